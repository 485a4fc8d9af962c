"""Overlaps by name: choices, gains, refusals, the verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.driver.overlap_presets import Preset, PresetRefused, PresetRequest, plan_preset
from treadle.frontends.hf import parse_model
from treadle.ir.operator.plan import Step

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


@pytest.mark.parametrize("preset", list(Preset))
def test_presets_are_no_slower_than_without(preset: Preset) -> None:
    model = parse_model(json.dumps(EXPERTS), name="mixtral")
    answer = plan_preset(model, PresetRequest(preset, "h100", 2, STEP, nodes=4))
    assert answer.time_us > 0
    assert answer.gain >= 1
    assert answer.choice
    assert answer.tried


def test_refusals() -> None:
    model = parse_model(json.dumps(DENSE), name="dense")
    with pytest.raises(PresetRefused, match="no experts"):
        plan_preset(model, PresetRequest(Preset.EXPERT_TILES, "h100", 8, STEP))
    with pytest.raises(PresetRefused, match="--nodes"):
        plan_preset(model, PresetRequest(Preset.EXPERT_CHUNKS, "h100", 8, STEP))
    with pytest.raises(PresetRefused, match="no decoding"):
        plan_preset(model, PresetRequest(Preset.CPU_ATTENTION, "h100", 8, Step(0, 1, 1, 64)))
    with pytest.raises(PresetRefused, match="--decode and --prefill"):
        plan_preset(model, PresetRequest(Preset.LAYERED_PREFILL, "h100", 8, Step(8, 64)))
    with pytest.raises(PresetRefused, match="the limit is 1"):
        plan_preset(model, PresetRequest(Preset.LAYERED_PREFILL, "h100", 8, STEP, tbt_ms=1.0))


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
    assert main([*words, "--preset", "token-split", "-o", str(tmp_path / "plan")]) == 2
