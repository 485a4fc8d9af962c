"""`treadle overlap`: layer loops, plans, their review, mutations, and the verb."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from treadle.cli.main import main
from treadle.codegen.folder import write_plan
from treadle.codegen.operator_timeline import operator_timeline
from treadle.costmodels.machines import load_machine
from treadle.costmodels.operator_loop import in_turn_ns, layer_loop
from treadle.driver.overlap import (
    SCAN,
    GroupTooLarge,
    NanoBatchNumber,
    OverlapRequest,
    overlap_files,
    plan_overlap,
    what_more_buys,
)
from treadle.frontends.hf import load_model
from treadle.ir.errors import InvalidValue
from treadle.ir.operator.plan import OverlapBody, Step
from treadle.ir.plan import Plan
from treadle.verification.core import review_plan, verify

DENSE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "hidden_act": "silu",
}  # fmt: skip
STEP = Step(512, 1024, 1, 512)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 8 B parameters."""
    path = tmp_path_factory.mktemp("dense") / "config.json"
    path.write_text(json.dumps(DENSE))
    return path


@pytest.fixture(scope="module")
def plan(config: Path) -> Plan:
    """Two nano-batches on 8 H100."""
    return plan_overlap(config, OverlapRequest("h100", 8, STEP, 2, SCAN), lambda _: None).sealed()


def test_overlap_beats_running_in_turn(plan: Plan) -> None:
    body: OverlapBody = plan.body
    assert len(body.nano_batches) == 2
    assert body.schedule.period_ns < in_turn_ns(body.loop)
    level = plan.certificates[0]["period"]
    assert level.bound is not None
    assert level.bound <= body.schedule.period_ns
    assert level.proof.checkable


def test_review_finds_nothing(plan: Plan) -> None:
    review = review_plan(plan, None)
    assert review.findings == ()
    assert review.rederived > 10


def test_files_are_reviewed(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    write_plan(folder, plan, overlap_files(plan.body))
    assert verify(folder).findings == ()
    write_plan(folder, plan, {"timeline.json": b"{}"})
    assert [finding.code for finding in verify(folder).findings] == ["TRD488"]


def _codes(plan: Plan) -> set[str]:
    return {finding.code for finding in review_plan(plan.sealed(), None).findings}


def test_mutations_are_found(plan: Plan) -> None:
    body: OverlapBody = plan.body
    chosen = plan.certificates[0]
    (period,) = chosen.levels

    def changed(**fields: Any) -> set[str]:
        return _codes(replace(plan, body=replace(body, **fields)))

    def claimed(**fields: Any) -> set[str]:
        return _codes(replace(plan, certificates=(replace(chosen, levels=(replace(period, **fields),)),)))

    quicker = replace(body.schedule, period_ns=body.schedule.period_ns - 1000)
    assert changed(schedule=quicker) & {"TRD481", "TRD482"}
    assert "TRD486" in changed(step=Step(511, 1024, 1, 512))
    assert "TRD486" in changed(tensor_parallel=4)
    assert "TRD487" in changed(alternatives={})
    assert "TRD487" in changed(alternatives={**body.alternatives, "1+255": 1})
    assert claimed(bound=period.value) == {"TRD484"}
    assert claimed(evidence={}) == {"TRD484"}
    assert claimed(evidence={"weights": {"1.norm": "much"}}) == {"TRD484"}
    assert claimed(value=period.value + 1) == {"TRD483"}
    assert _codes(replace(plan, certificates=(replace(chosen, levels=(period, period)),))) == {"TRD483"}
    assert _codes(replace(plan, certificates=())) == {"TRD483"}
    faster = replace(plan.predictions[1], value=plan.predictions[1].value * 2)
    predicted = (plan.predictions[0], faster, *plan.predictions[2:])
    assert _codes(replace(plan, predictions=predicted)) == {"TRD494"}


def test_more_of_what_binds_is_faster(plan: Plan) -> None:
    bought = what_more_buys(plan.body)
    assert set(bought) == {"tensor cores", "memory bandwidth", "all-reduce bandwidth"}
    assert min(bought.values()) < plan.body.schedule.period_ns


def test_timeline_has_a_counter_per_stream(plan: Plan) -> None:
    trace = json.loads(operator_timeline(plan.body.loop, plan.body.schedule))
    events = trace["traceEvents"]
    assert {event["name"] for event in events if event["ph"] == "C"} == {"sm", "memory", "link"}
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == 3 * len(plan.body.loop.operators)
    for track in {event["tid"] for event in slices}:
        ends = -1.0
        for event in sorted((e for e in slices if e["tid"] == track), key=lambda e: float(e["ts"])):
            assert event["ts"] >= ends - 1e-6
            ends = event["ts"] + event["dur"]


def test_a_single_gpu_has_no_collective(config: Path) -> None:
    loop = layer_loop(load_model(config), load_machine("h100"), 1, STEP, (256,))
    assert [stream.name for stream in loop.streams] == ["sm", "memory"]
    assert not any("reduce" in operator.name for operator in loop.operators)


def test_bad_requests(config: Path) -> None:
    with pytest.raises(NanoBatchNumber, match="5 nano-batches"):
        plan_overlap(config, OverlapRequest("h100", 8, STEP, 5), lambda _: None)
    with pytest.raises(GroupTooLarge, match="16"):
        plan_overlap(config, OverlapRequest("h100", 16, STEP), lambda _: None)
    with pytest.raises(InvalidValue, match="without tokens"):
        Step()
    with pytest.raises(InvalidValue, match="no negative"):
        Step(-1, 1, 1, 1)


def test_verb(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plan"
    words = ["overlap", str(config), "--machine", "h100", "--tensor-parallel", "8", "--decode", "256"]
    assert main([*words, "--context", "512", "--nano-batches", "1", "-o", str(folder)]) in (0, 3)
    assert "of optimal" in capsys.readouterr().out
    assert (folder / "timeline.json").exists()
    assert main(["verify", str(folder)]) == 0
    capsys.readouterr()
    assert main([*words, "--nano-batches", "1", "--json"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["kind"] == "overlap"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--machine", "h100", "--decode", "8", "--nano-batches", "some"], "TRD181"),
        (["--machine", "h100", "--decode", "8", "--nano-batches", "7"], "TRD181"),
        (["--machine", "h100", "--decode", "8", "--tensor-parallel", "9"], "TRD182"),
        (["--machine", "h100"], "TRD006"),
        (["--machine", "none", "--decode", "8"], "TRD"),
    ],
)
def test_verb_refuses_with_a_code(
    config: Path, words: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["overlap", str(config), *words]) == 2
    assert code in capsys.readouterr().err
