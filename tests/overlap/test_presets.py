"""Overlaps by name: choices, gains, refusals, the verb."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.costmodels.machines import load_machine
from treadle.costmodels.overlap_presets import choices, words
from treadle.driver.overlap_presets import decided
from treadle.frontends.hf import parse_model
from treadle.ir.model import ModelGraph
from treadle.ir.operator.choice import ChoiceBody, Preset, PresetRefused, PresetRequest
from treadle.ir.operator.plan import Step
from treadle.ir.plan import load
from treadle.verification.core import review_plan

DENSE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "hidden_act": "silu",
}  # fmt: skip
EXPERTS = {
    **DENSE, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 8,
    "num_experts_per_tok": 2,
}  # fmt: skip
STEP = Step(256, 2048, 2, 512)


def decide(model: ModelGraph, request: PresetRequest) -> ChoiceBody:
    return decided(model, load_machine(request.machine), request)


@pytest.mark.parametrize("preset", list(Preset))
def test_presets_are_no_slower_than_without(preset: Preset) -> None:
    model = parse_model(json.dumps(EXPERTS), name="mixtral")
    request = PresetRequest(preset, "h100", 2, STEP, nodes=4)
    body = decide(model, request)
    assert 0 < body.time_ns <= body.without_ns
    assert words(request, body.chosen)
    assert body.chosen == choices(model, body.machine, request).best()


def test_refusals() -> None:
    model = parse_model(json.dumps(DENSE), name="dense")
    with pytest.raises(PresetRefused, match="no experts"):
        decide(model, PresetRequest(Preset.EXPERT_TILES, "h100", 8, STEP))
    with pytest.raises(PresetRefused, match="--nodes"):
        decide(model, PresetRequest(Preset.EXPERT_CHUNKS, "h100", 8, STEP))
    with pytest.raises(PresetRefused, match="no decoding"):
        decide(model, PresetRequest(Preset.CPU_ATTENTION, "h100", 8, Step(0, 1, 1, 64)))
    with pytest.raises(PresetRefused, match="--decode and --prefill"):
        decide(model, PresetRequest(Preset.LAYERED_PREFILL, "h100", 8, Step(8, 64)))
    with pytest.raises(PresetRefused, match="the limit is 1"):
        decide(model, PresetRequest(Preset.LAYERED_PREFILL, "h100", 8, STEP, tbt_ms=1.0))


def test_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    words = [
        "overlap",
        str(tmp_path),
        "--machine",
        "h100",
        "--tensor-parallel",
        "8",
        "--prefill",
        "8",
        "--prompt",
        "512",
    ]
    assert main([*words, "--preset", "token-split"]) == 0
    assert "waves" in capsys.readouterr().out
    assert main([*words, "--preset", "token-split", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gain"] >= 1
    assert main([*words, "--preset", "expert-tiles"]) == 2
    assert "TRD185" in capsys.readouterr().err


@pytest.mark.parametrize("preset", list(Preset))
def test_plans_verify_and_forged_ones_do_not(preset: Preset, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(EXPERTS))
    words = ["overlap", str(tmp_path), "--machine", "h100", "--tensor-parallel", "2", "--nodes", "4", "--preset"]
    step = ["--decode", "256", "--context", "2048", "--prefill", "2", "--prompt", "512"]
    assert main([*words, preset.value, *step, "-o", str(tmp_path / "plan")]) == 0
    assert main(["verify", str(tmp_path / "plan")]) == 0
    plan = load(tmp_path / "plan")
    body: ChoiceBody = plan.body
    first = body.chosen[0]
    name = next(iter(first.decisions))
    wrong = replace(first, decisions={**first.decisions, name: first.decisions[name] + 1})
    slower = max(next(iter(choices(body.model, body.machine, body.request).stages)), key=lambda choice: choice.cost)
    for forged in (
        replace(body, chosen=(wrong, *body.chosen[1:])),
        replace(body, chosen=(slower, *body.chosen[1:])),
        replace(body, chosen=()),
        replace(body, without_ns=body.without_ns * 2),
    ):
        if forged != body:
            assert review_plan(replace(plan, body=forged).sealed(), None).errors
