"""Training steps: forward of one microbatch beside backward of another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.overlap.test_plan import DENSE
from treadle.codegen.folder import write_plan
from treadle.costmodels.machines import load_machine
from treadle.costmodels.operator_kernels import kernels
from treadle.costmodels.operator_loop import block_layer, in_turn_ns, layer_loop
from treadle.driver.overlap import SCAN, NanoBatchNumber, OverlapRequest, overlap_files, plan_overlap
from treadle.frontends.hf import load_model
from treadle.ir.errors import InvalidValue
from treadle.ir.operator.plan import OverlapBody, Step
from treadle.verification.core import review_plan, verify

STEP = Step(prefill_sequences=1, prompt_tokens=4096, training=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dense") / "config.json"
    path.write_text(json.dumps(DENSE))
    return path


def test_backward_has_twice_the_products_and_two_reductions(config: Path) -> None:
    model = load_model(config)
    loop = layer_loop(model, load_machine("h100"), 8, STEP, (256,))
    names = [operator.name for operator in loop.operators]
    assert names.index("backward.down.input") < names.index("backward.down.weight")
    assert sum(name.startswith("backward.") and name.endswith(".reduce") for name in names) == 2
    forward = [kernel for kernel in kernels(block_layer(model), 8, STEP, 1.0) if kernel.demand.flops]
    products = [kernel for kernel in forward if kernel.operators and "attention" not in kernel.name]
    assert sum(name.startswith("backward.") and name.endswith(".weight") for name in names) == len(
        [kernel for kernel in products if f"backward.{kernel.name}.weight" in names]
    )
    assert in_turn_ns(loop) > 2.9 * sum(k.demand.flops for k in forward) / 989.4e12 * 1e9


def test_a_training_plan_verifies(config: Path, tmp_path: Path) -> None:
    plan = plan_overlap(config, OverlapRequest("h100", 8, STEP, options=SCAN), lambda _: None)
    body: OverlapBody = plan.body
    assert body.schedule.period_ns < in_turn_ns(body.loop)
    assert set(overlap_files(body)) == {"timeline.json", "engine_options.json", "overlap.py"}
    write_plan(tmp_path / "plan", plan, overlap_files(body))
    assert not verify(tmp_path / "plan").findings
    options = json.loads((tmp_path / "plan" / "engine_options.json").read_text())
    assert "training" in options["vllm"]["not_expressed"]
    forged = replace(plan, body=replace(body, step=replace(STEP, training=False)))
    assert review_plan(forged.sealed(), None).errors


def test_what_training_has_not(config: Path) -> None:
    with pytest.raises(InvalidValue, match="decodes nothing"):
        Step(4, 10, 1, 512, training=True)
    with pytest.raises(NanoBatchNumber):
        plan_overlap(config, OverlapRequest("h100", 8, STEP, 2), lambda _: None)
