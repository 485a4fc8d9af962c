"""Breakdown and memory over time agree with the replay; the report shows both."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.parallel.problems import problems
from tests.parallel.test_files import PLANS
from treadle.codegen.training.report import report
from treadle.costmodels.training_breakdown import PARTS, binding_stage, breakdowns, memory_over_time
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.training.plan import ParallelBody
from treadle.solvers.parallel.solve import search


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_parts_add_up_to_the_step(setting: Setting) -> None:
    state = search(setting, 2)
    for item in state.found[:3]:
        played = replay(setting, item.degrees, item.layout)
        for found in breakdowns(setting, item.degrees, item.layout, played):
            assert tuple(found.parts_us) == PARTS
            assert min(found.parts_us.values()) >= -1e-6 * played.step_us
            assert sum(found.parts_us.values()) == pytest.approx(played.step_us)
            assert found.binds in PARTS


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.degrees.text())
def test_memory_over_time_peaks_at_the_stages_figure(plan: ParallelBody) -> None:
    setting = setting_of(plan.model, plan.cluster, plan.spec)
    played = replay(setting, plan.degrees, plan.layout, record=True)
    for stage in played.stages:
        points = memory_over_time(setting, plan.degrees, plan.layout, played.events, stage.rank)
        assert max(size for _, size in points) == pytest.approx(stage.memory_bytes, rel=1e-6)
        assert points[-1][1] == pytest.approx(stage.state_bytes + stage.transient_bytes, rel=1e-6)
    assert binding_stage(setting, plan.degrees, played.stages)[1] > 0


def test_report_shows_breakdown_timeline_and_memory() -> None:
    plan = PLANS[4]
    level = Level("step_time", "us", 1.0, 1.0, Status.OPTIMAL, ProofKind.ENUMERATION)
    page = report(plan, Certificate("parallel", "", (level,))).decode()
    for words in (
        "What binds",
        "pipeline idle time",
        "Memory over time",
        "weights, microbatch",
        "no file for this trainer",
    ):
        assert words in page
    assert page.count("<svg") == 3
