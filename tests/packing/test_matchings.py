"""Matchings of pods to nodes: they keep capacities, eligibility and frozen pods, and find long chains."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.packing_instances import Cell, scheduled
from treadle.ir.cluster.cluster import PENDING, Cluster, Node, Pod, Shape
from treadle.ir.cluster.objective import Order
from treadle.ir.cluster.placement import Placement, check
from treadle.solvers.packing.chains import Board
from treadle.solvers.packing.matchings import Matchings, matchings
from treadle.solvers.packing.problem import assign, build, current
from treadle.solvers.packing.search import Budget, Incumbent, evaluate


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("temperature", [0.0, 200.0])
def test_steps_keep_capacities_and_nobody_below_the_worth_of_a_pod(order: Order, temperature: float) -> None:
    cluster = scheduled(Cell(8, 8, 2, 100), 3)
    problem = build(cluster, order)
    board = Board(problem, 0)
    search = Matchings(board, problem.tiers, None, 0)
    placed = int((board.at >= 0).sum())
    for _ in range(50):
        change = search.step(temperature)
        assert change <= temperature
        assert (board.free >= 0).all()
        assert check(cluster, Placement(assign(problem, board.counts()))) == []
    assert int((board.at >= 0).sum()) >= placed
    used = np.zeros_like(board.free)
    standing = np.flatnonzero(board.at >= 0)
    np.add.at(used, board.at[standing], board.demand[standing])
    assert (board.capacity - used == board.free).all()


def test_frozen_pods_stand_still() -> None:
    problem = build(scheduled(Cell(8, 8, 2, 100), 1), Order.DISRUPTION_FIRST)
    board = Board(problem, 0)
    search = Matchings(board, problem.tiers, 2, 0)
    frozen, before = board.priority >= 2, board.at.copy()
    for _ in range(60):
        search.step(200.0)
    assert (board.at[frozen] == before[frozen]).all()
    assert (board.at != before).any()


def stairs(count: int) -> Cluster:
    """Every pod stands on a node one size too large; what waits fits the largest node once all have moved on."""
    nodes = tuple(Node(f"n{k}", {"cpu": 10 * (k + 1)}) for k in range(count))
    shapes = tuple(Shape(f"s{k}", {"cpu": 10 * (k + 1)}) for k in range(count))
    pods = (*(Pod(f"p{k}", k, k + 1) for k in range(count - 1)), Pod("w", count - 1))
    return Cluster(nodes, shapes, pods)


def test_a_chain_of_five_lets_a_pod_in() -> None:
    cluster = stairs(6)
    problem = build(cluster, Order.PLACE_FIRST)
    counts = current(problem)
    incumbent = Incumbent(counts, evaluate(problem, counts))
    goal = (-len(cluster.pods), 0, 0)
    matchings(problem, incumbent, Budget(2.0, None), 0.0, goal, lambda _: True, 20)
    nodes = assign(problem, incumbent.counts)
    assert PENDING not in nodes
    assert check(cluster, Placement(nodes)) == []


def test_they_repeat() -> None:
    def run() -> tuple[int, ...]:
        problem = build(scheduled(Cell(8, 4, 1, 100), 0), Order.DISRUPTION_FIRST)
        counts = current(problem)
        incumbent = Incumbent(counts, evaluate(problem, counts))
        matchings(problem, incumbent, Budget(0.5, None), 0.0, (), lambda _: True, 4)
        return incumbent.values

    assert run() == run()
