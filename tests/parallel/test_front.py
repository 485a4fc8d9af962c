"""The front of time, memory and GPUs: equal to brute force at every limit, verified, and forged ones found."""

from __future__ import annotations

import json
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.parallel.problems import dense_model
from tests.parallel.test_cli import SPEC, write
from tests.parallel.test_executors import die
from treadle.cli.main import main
from treadle.costmodels.training_bounds import Quick
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.costmodels.training_tails import best_with_tails
from treadle.ir.plan import Plan, load
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.front import MEMORY_STEP, front, limited, next_limit, parts_of
from treadle.ir.training.plan import FrontStep, ParallelBody
from treadle.ir.training.space import candidates
from treadle.ir.training.spec import Pipeline, Recompute, SearchSpace, TrainingSpec
from treadle.solvers.parallel.front import front_steps
from treadle.verification.core import review_plan, verify

_SPACE = SearchSpace(
    zero=(1, 3), recompute=(Recompute.NONE, Recompute.FULL), schedule=tuple(Pipeline)[:2], overlap_tensor=(False,),
    context=(1,), most_virtual=2, most_micro_batch=2,
)  # fmt: skip
_CLUSTER = ClusterTopology((NodeGroup("a100", 2, 2),), 25.0)


def posed() -> Setting:
    return setting_of(dense_model(6, 4096), _CLUSTER, TrainingSpec(8, 4096, search=_SPACE))


def fastest(setting: Setting) -> float:
    timer, best = LayerTimer(setting), math.inf
    quick = Quick(setting, timer)
    for degrees in candidates(setting.model, setting.cluster, setting.spec):
        for option in choices(setting, degrees, quick):
            layout = option.layout
            assert layout is not None
            if degrees.virtual == 1 and degrees.pipeline > 1:
                layout = best_with_tails(setting, degrees, timer, layout, math.inf).layout
                assert layout is not None
            best = min(best, replay(setting, degrees, layout, timer).step_us)
    return best


def test_every_step_is_the_fastest_under_its_limit() -> None:
    setting = posed()
    steps = front_steps(setting)
    assert {step.gpus for step in steps} == {2, 4}
    assert len(steps) > 5
    for step in steps:
        (cluster,) = (part for part in parts_of(_CLUSTER) if part.gpus == step.gpus)
        spec = limited(setting.spec, step.most_memory)
        expected = fastest(setting_of(setting.model, cluster, spec))
        assert (step.step_time_us if step.degrees else math.inf) == expected
    plans = front(steps)
    assert len(plans) > 2
    for one in plans:
        for other in plans:
            as_good = one.step_time_us <= other.step_time_us and one.peak_memory_bytes <= other.peak_memory_bytes
            assert one is other or not (as_good and one.gpus <= other.gpus)


def test_a_lost_worker_loses_no_step() -> None:
    with ProcessPoolExecutor(1) as pool:
        pool.submit(die, 0)
        assert front_steps(posed(), None, pool) == front_steps(posed())


def test_limits_fall_by_whole_steps() -> None:
    assert next_limit(3 * MEMORY_STEP + 1) == 3 * MEMORY_STEP
    assert next_limit(3 * MEMORY_STEP) == 2 * MEMORY_STEP
    assert next_limit(MEMORY_STEP) == 0


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front")
    text = SPEC.replace("[search]", '[search]\nschedule = ["1f1b"]\nzero = [1]\noverlap_tensor = [false]')
    config = write(folder, text.replace("sequence_tokens = 1024", "sequence_tokens = 65536")).parent / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 4096, "vocab_size": 128000}))
    assert main(["parallel", str(folder / "training.toml"), "--pareto", "-o", str(folder / "plan")]) == 0
    return folder / "plan"


def test_a_front_is_written_drawn_and_verified(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(planned).findings == ()
    body: ParallelBody = load(planned).body
    page = (planned / "report.html").read_text()
    assert "Time, memory and GPUs" in page
    assert len(front(body.steps)) > 2
    assert front(body.steps)[0].degrees == body.degrees


def forged(plan: Plan, number: int, **changes: object) -> set[str]:
    steps = list(plan.body.steps)
    steps[number] = replace(steps[number], **changes)
    return codes(plan, tuple(steps))


def codes(plan: Plan, steps: tuple[FrontStep, ...]) -> set[str]:
    changed = replace(plan, body=replace(plan.body, steps=steps)).sealed()
    return {finding.code for finding in review_plan(changed, None).findings}


def test_forged_steps_are_found(planned: Path) -> None:
    plan = load(planned)
    steps: tuple[FrontStep, ...] = plan.body.steps
    assert len([step for step in steps if step.gpus == 8]) > 2
    second = steps[1]
    assert second.degrees
    assert forged(plan, 1, step_time_us=second.step_time_us * 1.01) == {"TRD606"}
    assert forged(plan, 1, candidates=1) == {"TRD606"}
    assert forged(plan, 0, degrees=second.degrees, layout=second.layout) & {"TRD606", "TRD607"}
    first = steps[0]
    shown = {"step_time_us": second.step_time_us, "peak_memory_bytes": second.peak_memory_bytes}
    slower = replace(first, degrees=second.degrees, layout=second.layout, **shown)  # type: ignore[arg-type]  # of the fields' types
    assert codes(plan, (slower, *steps[2:])) == {"TRD606"}
    assert codes(plan, steps[:1]) == {"TRD607"}
    assert codes(plan, (steps[0], *steps[2:])) == {"TRD607"}
    assert codes(plan, steps[:-1]) == {"TRD607"}
    assert codes(plan, steps[::-1]) == {"TRD607"}
