"""Migrations: order, temporary places, outages, budgets - and the replay's findings on broken ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packing.builders import app, node, shape
from treadle.costmodels.migration import check, replay
from treadle.ir.cluster.cluster import PENDING, Budget, Cluster, Pod
from treadle.ir.cluster.errors import NoLegalOrder
from treadle.ir.cluster.migration import Migration, Step, StepKind
from treadle.ir.cluster.placement import Placement
from treadle.solvers.packing.migrate import order


def swap(extra: int, *, surge: bool = True) -> Cluster:
    """Two pods that exchange their places, and a third node with `extra` CPU."""
    pods = (Pod("p", 0, 0, surge=surge), Pod("q", 0, 1, surge=surge))
    return Cluster((node("n0"), node("n1"), node("n2", extra)), (shape("a", 800),), pods)


EXCHANGED = Placement((1, 0))


def test_a_cycle_takes_a_temporary_place() -> None:
    cluster = swap(800)
    steps = order(cluster, EXCHANGED)
    assert check(cluster, EXCHANGED, steps) == []
    assert (steps.temporary_moves, steps.outages, len(steps.waves)) == (1, (), 3)


def test_a_cycle_without_room_is_an_outage() -> None:
    cluster = swap(0)
    steps = order(cluster, EXCHANGED)
    assert check(cluster, EXCHANGED, steps) == []
    assert (steps.temporary_moves, len(steps.outages)) == (0, 1)


def test_a_budget_forbids_the_outage() -> None:
    cluster = replace(swap(0), budgets=(Budget("b", "default", app("a"), 0),))
    with pytest.raises(NoLegalOrder, match="budget"):
        order(cluster, EXCHANGED)


def test_budgets_spread_restarts_over_waves() -> None:
    pods = tuple(Pod(f"p{i}", 0, 0, surge=False) for i in range(3))
    cluster = Cluster((node("n0"), node("n1")), (shape("a", 100),), pods, (Budget("b", "default", app("a"), 1),))
    goal = Placement((1, 1, 1))
    steps = order(cluster, goal)
    assert check(cluster, goal, steps) == []
    assert len(steps.waves) == 3
    at_once = Migration((tuple(Step(StepKind.MOVE, i, 0, 1) for i in range(3)),), 1, 0, (0, 1, 2))
    assert {finding.code for finding in check(cluster, goal, at_once)} == {"TRD472"}


def test_nothing_to_do_has_no_waves() -> None:
    cluster = swap(0)
    steps = order(cluster, Placement(cluster.current))
    assert steps == Migration((), 0)


def test_room_is_needed_while_a_pod_moves() -> None:
    cluster = swap(0)
    both = Migration(((Step(StepKind.MOVE, 0, 0, 1), Step(StepKind.MOVE, 1, 1, 0)),), 2)
    assert {finding.code for finding in check(cluster, EXCHANGED, both)} == {"TRD471"}


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Step(StepKind.MOVE, 0, 1, 2), "TRD470"),
        (Step(StepKind.MOVE, 0, 0, PENDING), "TRD470"),
        (Step(StepKind.MOVE, 9, 0, 1), "TRD470"),
        (Step(StepKind.BIND, 0, PENDING, 2), "TRD470"),
        (Step(StepKind.EVICT, 0, 0), "TRD473"),
    ],
)
def test_steps_that_do_not_apply(step: Step, code: str) -> None:
    cluster = swap(800)
    goal = Placement(cluster.current)
    assert code in {finding.code for finding in check(cluster, goal, Migration(((step,),), 0))}


def test_pinned_pods_do_not_move() -> None:
    cluster = swap(800)
    pinned = replace(cluster, pods=(replace(cluster.pods[0], pinned="DaemonSet"), cluster.pods[1]))
    played = replay(pinned, Migration(((Step(StepKind.MOVE, 0, 0, 2),),), 1))
    assert [finding.code for finding in played.findings] == ["TRD470"]


def test_two_steps_of_one_pod_in_a_wave() -> None:
    cluster = swap(800)
    wave = (Step(StepKind.MOVE, 0, 0, 2), Step(StepKind.MOVE, 0, 0, 2))
    assert "TRD470" in {finding.code for finding in replay(cluster, Migration((wave,), 1)).findings}


def test_false_claims_are_found() -> None:
    cluster = swap(800)
    steps = order(cluster, EXCHANGED)
    for claim in (
        replace(steps, temporary_moves=0),
        replace(steps, wave_bound=3),
        replace(steps, outages=(0,)),
    ):
        assert {finding.code for finding in check(cluster, EXCHANGED, claim)} == {"TRD474"}
