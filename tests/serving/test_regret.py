"""Regret of pools under disturbed engine times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.serving.test_pools import PLAN
from tests.serving.test_serve import envelope, request
from treadle.cli.main import main
from treadle.costmodels.serving_regret import rate_of, regret_of
from treadle.ir.serving.check import check
from treadle.ir.serving.pools import Objective, PoolsPlan, RequestClass
from treadle.solvers.serving.fleet_plan import plan_serving
from treadle.solvers.serving.robust import hedged, with_counts
from treadle.solvers.serving.solve import solve_pools
from treadle.verification.core import review_plan


def test_no_error_no_regret_and_more_error_no_less() -> None:
    none, some, more = (regret_of(PLAN, error) for error in (0.0, 0.1, 0.4))
    assert none is not None
    assert some is not None
    assert more is not None
    assert none.worst == pytest.approx(0.0, abs=1e-9)
    assert 0 <= some.median <= some.worst < 0.2
    assert more.worst >= some.worst


def test_rate_of_counts_is_the_plans_rate() -> None:
    assert rate_of(PLAN.problem, PLAN.pools.counts) == pytest.approx(float(PLAN.rate_per_s))


@pytest.mark.parametrize("objective", [Objective.MOST_REQUESTS, Objective.FEWEST_GPUS])
@pytest.mark.parametrize("error", [0.1, 0.4])
def test_a_hedged_plan_is_legal_loses_no_more_at_worst_and_is_reviewed(objective: Objective, error: float) -> None:
    body, certificate = plan_serving(request(objective))
    pools, changed, found = hedged(body.pools, None, error)
    assert check(pools) == []
    assert found.counts_worst <= found.worst
    assert changed.levels[0].bound == pytest.approx(certificate.levels[0].bound)
    assert review_plan(envelope(replace(body, pools=pools), changed), None).errors == ()
    if objective is Objective.FEWEST_GPUS:
        assert pools.price == body.pools.price


def test_counts_that_fall_short_of_the_asked_rate_are_no_choice() -> None:
    body, _ = plan_serving(request(Objective.FEWEST_GPUS))
    problem = body.pools.problem
    assert with_counts(problem, body.pools.pools.counts) is not None
    assert with_counts(problem, tuple(0 for _ in problem.engines)) is None


def test_classes_are_routed_again_for_given_engines() -> None:
    classes = (RequestClass("short", 0.7, 100, 10), RequestClass("long", 0.3, 900, 10))
    engines = tuple(
        replace(engine, seconds=(engine.seconds[0], 3 * engine.seconds[0])) for engine in PLAN.problem.engines
    )
    problem = replace(PLAN.problem, engines=engines, classes=classes)
    plan, certificate = solve_pools(problem)
    pools = with_counts(problem, plan.pools.counts)
    assert pools is not None
    assert float(PoolsPlan(problem, pools).rate_per_s) == pytest.approx(certificate.levels[0].value, rel=1e-6)


@pytest.mark.parametrize("text", ["2", "-0.1", "some"])
def test_errors_beyond_reason_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nowhere", "--hedge", text]) == 2
    assert "--hedge" in capsys.readouterr().err
