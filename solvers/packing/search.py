"""What the searches share: the budget, values of a placement, the incumbent; and the chains around it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from treadle.ir.cluster.cluster import Amounts
from treadle.ir.cluster.objective import Order, Tail, fullest_share, stranded_gpus
from treadle.solvers.backend import Limits, Outcome
from treadle.solvers.packing.chains import WORK_S, Board, rebuild, shake
from treadle.solvers.packing.problem import Counts, Problem

Values = tuple[int, ...]
"""The levels of an objective as costs (maximized levels negated): smaller is better, lexicographically."""


@dataclass(slots=True)
class Budget:
    """What may be spent: deterministic seconds by default, a wall-clock window if one is given."""

    deterministic_s: float | None
    window_s: float | None
    workers: int = 1
    seed: int = 0
    started: float = field(default_factory=time.perf_counter)
    spent_s: float = 0.0
    reserve_s: float = 0.0
    """Of the window, what is kept for writing the result down."""

    held_s: float = 0.0
    """What is held back for later searches."""

    @property
    def left_s(self) -> float:
        """Seconds left of whichever limit is nearer, without what is held back."""
        left = float("inf") if self.deterministic_s is None else self.deterministic_s - self.spent_s
        if self.window_s is not None:
            left = min(left, self.window_s - self.reserve_s - (time.perf_counter() - self.started))
        return max(0.0, left - self.held_s)

    @property
    def rest_s(self) -> float:
        """Seconds of the window that are left in truth, the reserve included."""
        return float("inf") if self.window_s is None else self.window_s - (time.perf_counter() - self.started)

    def share(self, fraction: float, least_s: float = 0.0) -> Limits:
        """Return the limits for one solve that may use a fraction of what is left."""
        allowed = min(self.left_s, max(least_s, self.left_s * fraction))
        if self.window_s is not None:
            return Limits(deterministic_s=None, wall_s=allowed, workers=self.workers, seed=self.seed)
        return Limits(deterministic_s=allowed, workers=self.workers, seed=self.seed)

    def charge(self, outcome: Outcome) -> None:
        """Count a solve against the deterministic limit."""
        self.spent_s += outcome.report.deterministic_time + 0.002


def evaluate(problem: Problem, counts: Counts, tail: Tail = Tail.NOTHING) -> Values:
    """Return the objective's levels of a placement as costs."""
    stays: Counter[int] = Counter()
    arrives: Counter[int] = Counter()
    for (g, _), count in counts.stays.items():
        stays[g] += count
    for (g, _), count in counts.arrives.items():
        arrives[g] += count
    tiers = problem.tiers
    placed: dict[int, int] = {tier: -problem.pinned_placed.get(tier, 0) for tier in tiers}
    points: dict[int, int] = dict.fromkeys(tiers, 0)
    lost = moved = 0
    for g, group in enumerate(problem.groups):
        run = group.run_count
        placed[group.priority] -= stays[g] + arrives[g]
        displaced = run - stays[g]
        points[group.priority] += displaced + max(0, arrives[g] - (group.count - run))
        missing = max(0, run - stays[g] - arrives[g])
        lost += missing
        moved += group.restart_cost * (displaced - missing)
    values: list[int] = []
    total = disrupted = 0
    for tier in tiers:
        total += placed[tier]
        disrupted += points[tier]
        values += [total] if problem.order is Order.PLACE_FIRST else [total, disrupted]
    if problem.order is Order.PLACE_FIRST:
        values += [lost, moved]
    if tail is not Tail.NOTHING:
        values.append(_used(problem, counts, tail))
    return tuple(values)


def rest_in(problem: Problem, counts: Counts, nodes: Iterable[int] | None = None) -> list[Amounts]:
    """Return what is free of every node (or of some nodes) in a placement, pinned pods counted."""
    chosen = range(len(problem.capacity)) if nodes is None else list(nodes)
    inside = set(chosen)
    rest = {n: list(problem.capacity[n]) for n in chosen}
    for cells in (counts.stays, counts.arrives):
        for (g, n), count in cells.items():
            if n in inside:
                rest[n] = [r - count * w for r, w in zip(rest[n], problem.groups[g].demand, strict=True)]
    known = problem.cluster.nodes
    return [{**known[n].capacity, **dict(zip(problem.resources, rest[n], strict=True))} for n in chosen]


def _used(problem: Problem, counts: Counts, tail: Tail) -> int:
    if tail is Tail.STRANDED:
        return stranded_gpus(problem.cluster, rest_in(problem, counts))
    if tail is Tail.BALANCE:
        return fullest_share(problem.cluster, rest_in(problem, counts))
    pinned = {pod.node for pod in problem.cluster.pods if pod.pinned}
    used = {n for cells in (counts.stays, counts.arrives) for (_, n), count in cells.items() if count} - pinned
    return sum(1 if tail is Tail.NODES else problem.cluster.nodes[n].cost for n in used)


@dataclass(slots=True)
class Incumbent:
    """The best placement so far."""

    counts: Counts
    values: Values


def chains(
    problem: Problem,
    incumbent: Incumbent,
    budget: Budget,
    until_s: float,
    goal: Values,
    accept: Callable[[Counts], bool],
    patience: int,
    tail: Tail = Tail.NOTHING,
) -> None:
    """Improve the incumbent in place by ejection chains, shaken from time to time; see `chains.py`.

    Stops when `goal` is met, after `patience` rounds without an improvement, or when `until_s` of the budget is left.
    """
    board = Board(problem, budget.seed)
    deep = random.Random(budget.seed)

    def left() -> bool:
        return budget.left_s - board.work * WORK_S * (budget.window_s is None) > until_s

    board.left = left
    idle, first = 0, True
    while idle < patience and incumbent.values != goal and left():
        board.load(incumbent.counts)
        if not first:
            shake(board, board.random.randint(1, 4))
        rebuild(board, 2 if first else deep.choice((1, 2, 2, 3)), left)
        first = False
        budget.spent_s += board.work * WORK_S + 1e-4
        board.work = 0
        counts = board.counts()
        values = evaluate(problem, counts, tail)
        idle += 1
        if values < incumbent.values and accept(counts):
            incumbent.counts, incumbent.values, idle = counts, values, 0
        elif values == incumbent.values and accept(counts):
            incumbent.counts = counts
