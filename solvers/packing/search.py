"""Search: neighbourhoods around the incumbent, then the whole model level by level."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ortools.sat.python import cp_model

from treadle.ir.cluster.cluster import Amounts
from treadle.ir.cluster.objective import Order, Tail, fullest_share, stranded_gpus
from treadle.solvers.backend import Limits, Outcome, solve
from treadle.solvers.packing.chains import WORK_S, Board, rebuild, shake
from treadle.solvers.packing.model import Expression, PackingModel
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

    @property
    def left_s(self) -> float:
        """Seconds left of whichever limit is nearer."""
        left = float("inf") if self.deterministic_s is None else self.deterministic_s - self.spent_s
        if self.window_s is not None:
            left = min(left, self.window_s - (time.perf_counter() - self.started))
        return max(0.0, left)

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


def combine(model: PackingModel) -> Expression | None:
    """Return all levels in one weighted objective, or None if the weights leave 62 bits."""
    spans = [_span(model, expression) for _, expression, _ in model.levels]
    weight, total, terms = 1, 0, list[Expression]()
    for (_, expression, maximize), span in zip(reversed(model.levels), reversed(spans), strict=True):
        terms.append((-weight if maximize else weight) * expression)
        total += weight * span
        weight *= span + 1
        if total >= 2**61:
            return None
    return sum(terms)


def _span(model: PackingModel, expression: Expression) -> int:
    """Return an upper bound on how far a level's values can be apart."""
    if isinstance(expression, int):
        return 0
    flat = cp_model.FlatIntExpr(expression)
    return sum(abs(c) * (v.domain.max() - v.domain.min()) for v, c in zip(flat.vars, flat.coeffs, strict=True))


@dataclass(slots=True)
class Incumbent:
    """The best placement so far."""

    counts: Counts
    values: Values


def neighbourhoods(
    problem: Problem,
    incumbent: Incumbent,
    budget: Budget,
    until_s: float,
    goal: Values,
    accept: Callable[[Counts], bool],
    tail: Tail = Tail.NOTHING,
) -> None:
    """Improve the incumbent in place: free a few nodes at a time, solve what is on them together with what waits.

    Stops when `goal` (a bound on every level) is met, or when no more than `until_s` of the budget is left.
    """
    choose = _Chooser(problem, budget.seed)
    size, failures = 2, 0
    while budget.left_s > until_s and incumbent.values != goal:
        nodes = choose(incumbent.counts, size)
        found = _try(problem, incumbent, nodes, budget, tail)
        if found is not None and accept(found.counts):
            incumbent.counts, incumbent.values = found.counts, found.values
            failures = 0
            continue
        failures += 1
        if failures >= 6:
            failures, size = 0, size + 1 if size < min(8, len(problem.capacity)) else 2


def _try(problem: Problem, incumbent: Incumbent, nodes: list[int], budget: Budget, tail: Tail) -> Incumbent | None:
    model = PackingModel(problem, nodes, incumbent.counts, tail)
    objective = combine(model)
    if objective is None or not (model.stays or model.arrives):
        budget.spent_s += 0.002
        return None
    model.model.minimize(objective)
    limits = budget.share(0.2)
    cap = 0.15
    limits = Limits(
        deterministic_s=min(cap, limits.deterministic_s or cap), wall_s=limits.wall_s, workers=1, seed=budget.seed
    )
    outcome = solve(model.model, limits, hint=model.hint(incumbent.counts), tuning={"cp_model_probing_level": 0})
    budget.charge(outcome)
    if not outcome.solved:
        return None
    counts = model.read(outcome)
    values = evaluate(problem, counts, tail)
    return Incumbent(counts, values) if values < incumbent.values else None


class _Chooser:
    """Chooses nodes to free: one where a waiting pod may go, the others by free room or at random."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.random = random.Random(seed)
        self.largest = [
            max((row[r] for row in problem.capacity), default=1) or 1 for r in range(len(problem.resources))
        ]

    def __call__(self, counts: Counts, size: int) -> list[int]:
        room = self._room(counts)
        targets = self._targets(counts)
        kind = self.random.random()
        nodes = list(range(len(room)))
        if kind < 0.4:
            weights = [0.02 + sum(f / m for f, m in zip(room[n], self.largest, strict=True)) for n in nodes]
        elif kind < 0.7:
            touched = {n for (_, n) in counts.arrives} | self._left(counts)
            weights = [1.0 if n in touched else 0.05 for n in nodes]
        else:
            weights = [1.0] * len(nodes)
        chosen: list[int] = [self.random.choice(targets)] if targets else []
        while len(chosen) < min(size, len(nodes)):
            node = self.random.choices(nodes, weights)[0]
            if node not in chosen:
                chosen.append(node)
        return sorted(chosen)

    def _room(self, counts: Counts) -> list[list[int]]:
        room = [list(row) for row in self.problem.capacity]
        for cells in (counts.stays, counts.arrives):
            for (g, n), count in cells.items():
                for r, amount in enumerate(self.problem.groups[g].demand):
                    room[n][r] -= amount * count
        return room

    def _left(self, counts: Counts) -> set[int]:
        return {
            n
            for g, group in enumerate(self.problem.groups)
            for n, now in group.running.items()
            if counts.stays.get((g, n), 0) < now
        }

    def _targets(self, counts: Counts) -> list[int]:
        placed: Counter[int] = Counter()
        for cells in (counts.stays, counts.arrives):
            for (g, _), count in cells.items():
                placed[g] += count
        waiting = [g for g, group in enumerate(self.problem.groups) if placed[g] < group.count and self.problem.fit[g]]
        if not waiting:
            return []
        return list(self.problem.fit[self.random.choice(waiting)])


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
