"""Migrations: order, temporary places, outages, budgets - and the replay's findings on broken ones."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest

from tests.packing.builders import app, node, shape
from treadle.costmodels.migration import check, fewest_detours, fewest_waves, replay
from treadle.ir.cluster.cluster import PENDING, Budget, Cluster, Pod
from treadle.ir.cluster.errors import NoLegalOrder
from treadle.ir.cluster.migration import Migration, Step, StepKind
from treadle.ir.cluster.placement import Placement
from treadle.ir.cluster.placement import check as placement_check
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
    at_once = Migration((tuple(Step(StepKind.MOVE, i, 0, 1) for i in range(3)),), 3, 0, (0, 1, 2), 3)
    assert {finding.code for finding in check(cluster, goal, at_once)} == {"TRD472"}


def test_nothing_to_do_has_no_waves() -> None:
    cluster = swap(0)
    steps = order(cluster, Placement(cluster.current))
    assert steps == Migration((), 0)


def test_room_is_needed_while_a_pod_moves() -> None:
    cluster = swap(0)
    both = Migration(((Step(StepKind.MOVE, 0, 0, 1), Step(StepKind.MOVE, 1, 1, 0)),), 2, detour_bound=1)
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
        replace(steps, detour_bound=2),
        replace(steps, outage_price=1),
        replace(steps, outages=(0,)),
    ):
        assert {finding.code for finding in check(cluster, EXCHANGED, claim)} == {"TRD474"}


def test_the_bound_on_waves_counts_budgets() -> None:
    pods = tuple(Pod(f"p{i}", 0, 0, surge=False) for i in range(5))
    cluster = Cluster((node("n0"), node("n1")), (shape("a", 100),), pods, (Budget("b", "default", app("a"), 2),))
    assert fewest_waves(cluster, Placement((1,) * 5)) == 3


def test_knots_need_detours() -> None:
    assert fewest_detours(swap(800), EXCHANGED) == 1
    free = replace(swap(0), nodes=(node("n0", 1600), node("n1"), node("n2", 0)))
    assert fewest_detours(free, EXCHANGED) == 0
    twice = Cluster(
        tuple(node(f"n{i}") for i in range(5)), (shape("a", 800),), tuple(Pod(f"p{i}", 0, i) for i in range(4))
    )
    assert fewest_detours(twice, Placement((1, 0, 3, 2))) == 2


def _all_orders(cluster: Cluster, goal: Placement, most: int) -> int:
    """Return the fewest waves without detours, by trying all assignments of pods to waves (most + 1: none)."""
    moving = [i for i, pod in enumerate(cluster.pods) if pod.node != goal.nodes[i]]
    for waves in range(1, most + 1):
        for chosen in product(range(waves), repeat=len(moving)):
            steps = [
                tuple(
                    Step(StepKind.MOVE, p, cluster.pods[p].node, goal.nodes[p])
                    for p, at in zip(moving, chosen, strict=True)
                    if at == wave
                )
                for wave in range(waves)
            ]
            if not replay(cluster, Migration(tuple(steps), 0)).findings:
                return waves
    return most + 1


def _random_moves(seed: int) -> tuple[Cluster, Placement]:
    source = random.Random(seed)
    shapes = tuple(shape(f"s{i}", source.choice((200, 300, 500))) for i in range(5))
    nodes = tuple(node(f"n{i}", 1000) for i in range(4))
    while True:
        current, goal = ([source.randrange(4) for _ in range(5)] for _ in range(2))
        pods = tuple(Pod(f"p{i}", i, at) for i, at in enumerate(current))
        cluster, placement = Cluster(nodes, shapes, pods), Placement(tuple(goal))
        if not placement_check(cluster, Placement(cluster.current)) and not placement_check(cluster, placement):
            return cluster, placement


@pytest.mark.parametrize("seed", range(25))
def test_waves_equal_brute_force(seed: int) -> None:
    cluster, placement = _random_moves(seed)
    steps = order(cluster, placement)
    assert check(cluster, placement, steps) == []
    best = _all_orders(cluster, placement, 4)
    if cluster.current == placement.nodes:
        assert not steps.waves
    elif best <= 4 and not steps.outages:
        assert len(steps.waves) <= best
    if not steps.temporary_moves and not steps.outages and steps.waves:
        assert len(steps.waves) == best
    assert fewest_detours(cluster, placement) <= steps.temporary_moves + len(steps.outages)
    assert steps.wave_bound <= len(steps.waves)
