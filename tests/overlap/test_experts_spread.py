"""Experts spread over GPUs: exchanges instead of an all-reduce, weights of own experts, the network between nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.overlap.test_presets import EXPERTS
from treadle.cli.main import main
from treadle.codegen.folder import write_plan
from treadle.costmodels.machines import load_machine
from treadle.costmodels.operator_experts import Spread
from treadle.costmodels.operator_kernels import kernels
from treadle.costmodels.operator_loop import SHARES_MILLI, block_layer, layer_loop, modes_of
from treadle.driver.overlap import SCAN, ExpertSpread, OverlapRequest, overlap_files, plan_overlap
from treadle.frontends.hf import parse_model
from treadle.ir.errors import InvalidValue
from treadle.ir.model import GroupedGemm
from treadle.ir.operator.plan import OverlapBody, Step
from treadle.solvers.overlap.solve import in_turn
from treadle.verification.core import verify

STEP = Step(512, 1024, 1, 512)
MODEL = parse_model(json.dumps(EXPERTS), name="mixtral")


def grouped() -> GroupedGemm:
    return next(op.detail for op in block_layer(MODEL).operators if isinstance(op.detail, GroupedGemm))


def test_exchange_inside_a_node_and_across() -> None:
    detail = grouped()
    width = 10 * detail.k * 2
    inside = Spread(4, 4, 8).exchange(10, detail)
    assert inside.sent_bytes == pytest.approx(width * detail.top_k * 3 / 4)
    assert inside.network_bytes == 0
    across = Spread(4, 16, 8).exchange(10, detail)
    assert across.sent_bytes == pytest.approx(width * detail.top_k * 7 / 8)
    # Of two nodes a row reaches 2 (1 - (1/2)^k) on average; half of those are the other one.
    assert across.network_bytes == pytest.approx(width * 2 * (1 - 0.5**detail.top_k) / 2)


def test_loop_has_exchanges_and_no_reduction_of_experts() -> None:
    machine = load_machine("h100")
    cut = layer_loop(MODEL, machine, 4, STEP, (128, 128), True)
    spread = layer_loop(MODEL, machine, 4, STEP, (128, 128), True, 8)
    names = [name.removeprefix("1.") for name in spread.index if name.startswith("1.")]
    assert names.index("dispatch") < names.index("experts_gate_up") < names.index("return")
    assert {"output.scatter", "gather"} <= set(names)
    assert "combine.reduce" not in names
    assert "output.reduce" not in names
    assert "1.output.reduce" in cut.index
    assert [stream.name for stream in spread.streams] == ["sm", "memory", "link"]
    wide = layer_loop(MODEL, load_machine("h200"), 1, STEP, (128, 128), False, 16)
    assert [stream.name for stream in wide.streams] == ["sm", "memory", "link", "network"]
    assert not any(name.endswith((".scatter", "gather")) for name in wide.index)


def test_own_experts_read_fewer_weights() -> None:
    machine = load_machine("h100")
    durations = [
        min(mode.duration_ns for mode in layer_loop(MODEL, machine, 1, Step(4, 64), (256,), False, gpus).operator(
            "1.experts_down").modes)
        for gpus in (1, 8)
    ]  # fmt: skip
    assert durations[1] < durations[0] / 2


def test_backward_sends_everything_back() -> None:
    step = Step(prefill_sequences=1, prompt_tokens=1024, training=True)
    loop = layer_loop(MODEL, load_machine("h100"), 4, step, (256,), True, 8)
    for name in ("dispatch", "return", "output.scatter", "gather"):
        assert {f"forward.{name}", f"backward.{name}"} <= set(loop.index)
    names = [name for name in loop.index if name.startswith("backward.")]
    assert names.index("backward.return") < names.index("backward.dispatch")


def test_every_transfer_has_modes() -> None:
    machine = load_machine("h100")
    made = [kernel for kernel in kernels(block_layer(MODEL), 4, STEP, 1.0, True) if kernel.demand.collective]
    assert made
    for kernel in made:
        assert modes_of(kernel.demand, machine, 4)
    assert len(SHARES_MILLI) == 8


def test_plan_is_written_and_verified(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(EXPERTS))
    request = OverlapRequest("h100", 4, STEP, 1, SCAN, expert_parallel=8)
    plan = plan_overlap(config, request, lambda _: None)
    body: OverlapBody = plan.body
    assert body.expert_parallel == 8
    write_plan(tmp_path / "plan", plan, overlap_files(body))
    assert not verify(tmp_path / "plan").findings
    options = json.loads((tmp_path / "plan" / "engine_options.json").read_text())
    assert options["vllm"]["options"]["--enable-expert-parallel"]
    assert options["vllm"]["options"]["--data-parallel-size"] == 2


@pytest.mark.parametrize(("gpus", "nearest"), [(6, "4"), (64, "8"), (12, "8")])
def test_experts_that_do_not_divide_are_refused(
    gpus: int, nearest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(EXPERTS))
    arguments = ["overlap", str(config), "--machine", "h100", "--tensor-parallel", "4", "--decode", "8"]
    assert main([*arguments, "--expert-parallel", str(gpus)]) == 2
    error = capsys.readouterr().err
    assert ExpertSpread.code in error
    assert f"--expert-parallel {nearest}" in error


def test_a_body_needs_whole_groups() -> None:
    loop = layer_loop(MODEL, load_machine("h100"), 4, STEP, (256,), True, 8)
    with pytest.raises(InvalidValue, match="whole groups"):
        OverlapBody(MODEL, load_machine("h100"), 4, STEP, (256,), loop, in_turn(loop), {}, True, 6)
