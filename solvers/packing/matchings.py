"""Matchings: one pod leaves every node, and these and some that wait find their nodes anew at once.

A least-cost assignment of pods to nodes, one pod each: a step ranges over all cycles of exchanges and all chains of
moves among these pods. What is free is gathered on few nodes, so that more fits there afterwards; annealed from time
to time. Knows capacities and eligibility; rules between pods are for the caller to check.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.objective import Order, Tail
from treadle.solvers.assignment import least_cost_assignment
from treadle.solvers.packing.chains import Board
from treadle.solvers.packing.problem import Counts, Problem
from treadle.solvers.packing.search import Budget, Incumbent, Values, evaluate

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
_MOST_NODES = 80
_MOST_WAITING = 12
_IDLE = (0.0, 0.2, 0.5)
"""Shares of nodes that nothing leaves, drawn per step."""
_POINT = 100
"""Cost of a disruption; a pod placed is worth far more, what is gathered less."""
_PLACED = 1_000
_TIER = 30
"""How many times as much the next higher tier counts."""
_LOST = 8
"""Disruptions that losing a replica counts for where pods are placed first."""
_GATHER = (0.0, 10.0, 90.0, 200.0)
"""Costs of a node's room that is spread instead of gathered, drawn per cycle."""
_EXCHANGE = (0.0, 150.0)
"""Price of putting a pod out for another one to come in, drawn per cycle."""
_STEP_S = 1e-7
"""Deterministic seconds charged per place of a matching."""
_CYCLE = 400
"""Steps from the first temperature down to none."""
_HEAT = (0.0, 30.0, 100.0, 200.0)
"""First temperatures, drawn per cycle."""


class Matchings:
    """Matches on a board in place; `step` returns the change of cost."""

    def __init__(self, board: Board, tiers: tuple[int, ...], frozen_tier: int | None, seed: int) -> None:
        self.board = board
        self.random = np.random.default_rng(seed)
        self.work = 0
        rank = {tier: _TIER**position for position, tier in enumerate(sorted(tiers))}
        weight = np.array([rank[tier] for tier in board.priority.tolist()], dtype=np.int64)
        self.worth = _PLACED * weight
        self.point = _POINT * (weight if board.problem.order is Order.DISRUPTION_FIRST else np.ones_like(weight))
        self.frozen = board.priority >= frozen_tier if frozen_tier is not None else np.zeros(len(board.at), dtype=bool)
        groups = int(board.group.max(initial=-1)) + 1
        self.waiting = np.bincount(board.group[board.home < 0], minlength=groups)

    def step(self, temperature: float, gather: float = _GATHER[2], exchange: float = _EXCHANGE[1]) -> int:
        """Match once; return the change of what counts.

        Args:
            temperature: of the Gumbel noise on the costs.
            gather: worth of room for the smallest pod that waits, on one node.
            exchange: price of putting a pod out.
        """
        board = self.board
        coming = self._coming()
        nodes = self._nodes(coming)
        pods = np.concatenate([self._leaving(nodes), coming])
        self.work += len(pods) ** 2
        costs, gathered, allowed = self._costs(nodes, pods)
        noisy = costs - gather * gathered
        noisy[: len(nodes), len(nodes) :] += exchange
        if temperature > 0:
            noisy = noisy - temperature * np.log(self.random.random(costs.shape) + 1e-300)
        target = least_cost_assignment((16 * noisy).astype(np.int64), allowed)
        rows = np.arange(len(pods))
        change = int((costs[rows, target] - costs[rows, rows]).sum())
        if change > temperature:
            return 0
        for row in np.flatnonzero((pods >= 0) & (target != rows)).tolist():
            place = int(target[row])
            board.move([(int(pods[row]), int(nodes[place]) if place < len(nodes) else PENDING)])
        return change

    def _nodes(self, coming: Integers) -> Integers:
        """Return nodes: all, or a sample with some where a pod that waits misses no more than one resource."""
        board = self.board
        if len(board.free) <= _MOST_NODES:
            return np.arange(len(board.free))
        chosen = self.random.choice(len(board.free), _MOST_NODES, replace=False)
        if len(coming):
            asked = board.demand[self.random.choice(coming)]
            near = np.flatnonzero((board.free < asked).sum(axis=1) <= 1)
            few = self.random.permutation(near)[: _MOST_NODES // 4]
            chosen[: len(few)] = few
        return np.unique(chosen)

    def _leaving(self, nodes: Integers) -> Integers:
        """Return a pod per node (-1: none) that leaves it."""
        board = self.board
        placed = self.random.permutation(np.flatnonzero((board.at >= 0) & ~self.frozen))
        chosen = np.full(len(board.free), -1, dtype=np.int64)
        chosen[board.at[placed]] = placed
        away = placed[board.at[placed] != board.home[placed]]
        if self.random.random() < 0.5:
            chosen[board.at[away]] = away
        chosen[self.random.random(len(chosen)) < self.random.choice(_IDLE)] = -1
        return chosen[nodes]

    def _coming(self) -> Integers:
        waiting = np.flatnonzero((self.board.at < 0) & ~self.frozen)
        if len(waiting) <= _MOST_WAITING:
            return waiting
        return self.random.choice(waiting, _MOST_WAITING, replace=False)

    def _costs(self, nodes: Integers, pods: Integers) -> tuple[Integers, NDArray[np.float64], Flags]:
        """Return per (row, place) what counts, what is gathered, and what is possible; places past the nodes: out."""
        board, real, count = self.board, pods >= 0, len(nodes)
        demand = np.where(real[:, None], board.demand[pods], 0)
        free = board.free[nodes] + demand[:count]
        rest = free[None] - demand[:, None]
        allowed = np.ones((len(pods), len(pods)), dtype=bool)
        allowed[:, :count] = (rest >= 0).all(axis=2)
        allowed[real, :count] &= board.open[board.rule[pods[real]]][:, nodes]
        np.fill_diagonal(allowed, val=True)
        gathered = np.zeros(allowed.shape)
        gathered[:, :count] = np.clip((rest / self._room_wanted()).min(axis=2), 0.0, 1.0) ** 2
        costs = np.zeros(allowed.shape, dtype=np.int64)
        costs[:, :count], costs[:, count:] = self._moved(nodes, pods), self._out(pods)[:, None]
        costs[~real] = 0
        return costs, gathered, allowed

    def _room_wanted(self) -> Integers:
        """Return the room worth gathering: that of the smallest pod that waits, or of a mean one."""
        board = self.board
        waiting = np.flatnonzero((board.at < 0) & ~self.frozen)
        wanted: Integers = board.demand.mean(axis=0).astype(np.int64)
        if len(waiting):
            wanted = board.demand[waiting[int(board.size[waiting].argmin())]]
        return wanted.clip(min=1)

    def _moved(self, nodes: Integers, pods: Integers) -> Integers:
        """Return (row, node) points: one for leaving home, one for arriving where no waiting twin might have."""
        board = self.board
        home, group = board.home[pods], board.group[pods]
        away = home[:, None] != nodes[None]
        if board.problem.order is Order.PLACE_FIRST:
            found: Integers = self.point[pods][:, None] * (away & (home >= 0)[:, None])
            return found
        arrived = np.bincount(board.group[(board.at >= 0) & (board.at != board.home)], minlength=len(self.waiting))
        spare = arrived[group] + (board.at[pods] < 0) <= self.waiting[group]
        points: Integers = self.point[pods][:, None] * away * ((home >= 0)[:, None].astype(np.int64) + ~spare[:, None])
        return points

    def _out(self, pods: Integers) -> Integers:
        lost = _LOST if self.board.problem.order is Order.PLACE_FIRST else 1
        found: Integers = self.worth[pods] + self.point[pods] * lost * (self.board.home[pods] >= 0)
        return found


def matchings(
    problem: Problem,
    incumbent: Incumbent,
    budget: Budget,
    until_s: float,
    goal: Values,
    accept: Callable[[Counts], bool],
    patience: int,
    tail: Tail = Tail.NOTHING,
    frozen_tier: int | None = None,
) -> None:
    """Improve the incumbent in place, in annealed cycles from it.

    Stops when `goal` is met, after `patience` cycles without an improvement, or when `until_s` of the budget is left.
    """
    board = Board(problem, budget.seed)
    search = Matchings(board, problem.tiers, frozen_tier, budget.seed)
    idle = 0
    while idle < patience and incumbent.values != goal and budget.left_s > until_s:
        board.load(incumbent.counts)
        heat, cost, best, idle = float(search.random.choice(_HEAT)), 0, 0, idle + 1
        gather, exchange = float(search.random.choice(_GATHER)), float(search.random.choice(_EXCHANGE))
        for number in range(_CYCLE):
            if budget.left_s <= until_s:
                break
            search.work = 0
            cost += search.step(heat * (1 - number / _CYCLE) ** 2, gather, exchange)
            budget.spent_s += search.work * _STEP_S
            if cost >= best and number != _CYCLE - 1:
                continue
            best = min(best, cost)
            counts = board.counts()
            values = evaluate(problem, counts, tail)
            if values < incumbent.values and accept(counts):
                incumbent.counts, incumbent.values, idle = counts, values, 0
