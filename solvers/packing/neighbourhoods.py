"""Large neighbourhood search: a few nodes set free at a time, what is on them solved by CP-SAT with what waits."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable

from ortools.sat.python import cp_model

from treadle.ir.cluster.objective import Tail
from treadle.solvers.backend import Limits, solve
from treadle.solvers.packing.model import Expression, PackingModel
from treadle.solvers.packing.problem import Counts, Problem
from treadle.solvers.packing.search import Budget, Incumbent, Values, evaluate

_SIZES = (2, 3, 4, 6, 8, 12)
_CAP_S = {2: 0.1, 3: 0.15, 4: 0.2, 6: 0.25, 8: 0.3, 12: 0.4}
"""Deterministic seconds of one solve, by nodes set free."""
_FORGET = 0.85
_TRY_S = 0.002
"""Deterministic seconds charged per neighbourhood beside its solve."""


def neighbourhoods(
    problem: Problem,
    incumbent: Incumbent,
    budget: Budget,
    until_s: float,
    goal: Values,
    accept: Callable[[Counts], bool],
    tail: Tail = Tail.NOTHING,
    frozen_tier: int | None = None,
) -> None:
    """Improve the incumbent in place: free a few nodes at a time, solve what is on them together with what waits.

    Stops when `goal` (a bound on every level) is met, or when no more than `until_s` of the budget is left. Pods that
    run with priority >= `frozen_tier` keep their nodes. How many nodes are free follows what gained most lately.
    """
    chooser = _Chooser(problem, budget.seed)
    sizes = [size for size in _SIZES if size <= len(problem.capacity)] or [len(problem.capacity)]
    merit = {size: 1.0 / (1 + position) for position, size in enumerate(sizes)}
    while budget.left_s > until_s and incumbent.values != goal:
        size = chooser.random.choices(sizes, [0.05 + merit[size] for size in sizes])[0]
        before_s = budget.spent_s
        open_levels = [p for p, (value, best) in enumerate(zip(incumbent.values, goal, strict=True)) if value != best]
        first = chooser.random.choice(open_levels)
        found = _try(problem, incumbent, chooser(incumbent.counts, size), first, budget, until_s, tail, frozen_tier)
        gained = found is not None and accept(found.counts)
        if found is not None and gained:
            incumbent.counts, incumbent.values = found.counts, found.values
        rate = min(1.0, gained * 0.02 / max(budget.spent_s - before_s, 1e-3))
        merit[size] = _FORGET * merit[size] + (1 - _FORGET) * rate


def _try(
    problem: Problem,
    incumbent: Incumbent,
    nodes: list[int],
    first: int,
    budget: Budget,
    until_s: float,
    tail: Tail,
    frozen_tier: int | None,
) -> Incumbent | None:
    """Return a better placement of what is on the nodes and what waits; levels before `first` are held as they are."""
    model = PackingModel(problem, nodes, incumbent.counts, tail, frozen_tier)
    for (_, expression, maximize), value in zip(model.levels[:first], incumbent.values, strict=False):
        if not isinstance(expression, int):
            model.model.add(expression >= -value if maximize else expression <= value)
    objective = combine(model, first)
    if objective is None or not (model.stays or model.arrives):
        budget.spent_s += _TRY_S
        return None
    model.model.minimize(objective)
    cap_s = _CAP_S.get(len(nodes), 0.4)
    wall_s = max(0.001, budget.left_s - until_s) if budget.window_s is not None else None
    limits = Limits(deterministic_s=min(cap_s, max(0.001, budget.left_s)), wall_s=wall_s, workers=1, seed=budget.seed)
    outcome = solve(model.model, limits, hint=model.hint(incumbent.counts), tuning={"cp_model_probing_level": 0})
    budget.charge(outcome)
    if not outcome.solved:
        return None
    counts = model.read(outcome)
    values = evaluate(problem, counts, tail)
    return Incumbent(counts, values) if values < incumbent.values else None


def combine(model: PackingModel, first: int = 0) -> Expression | None:
    """Return the levels from `first` on in one weighted objective, or None if the weights leave 62 bits."""
    levels = model.levels[first:]
    spans = [_span(model, expression) for _, expression, _ in levels]
    weight, total, terms = 1, 0, list[Expression]()
    for (_, expression, maximize), span in zip(reversed(levels), reversed(spans), strict=True):
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


class _Chooser:
    """Chooses nodes to free: along moves, where waiting pods may go, by free room, or at random."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.random = random.Random(seed)
        self.largest = [
            max((row[r] for row in problem.capacity), default=1) or 1 for r in range(len(problem.resources))
        ]

    def __call__(self, counts: Counts, size: int) -> list[int]:
        """Return up to `size` nodes."""
        kind, nodes = self.random.random(), list(range(len(self.problem.capacity)))
        chosen: list[int] = []
        weights = [1.0] * len(nodes)
        if kind < 0.45:
            chosen = self._along_moves(counts, size)
        elif targets := self._targets(counts):
            chosen = [self.random.choice(targets)]
        if kind < 0.75:
            room = self._room(counts)
            weights = [0.02 + sum(f / m for f, m in zip(room[n], self.largest, strict=True)) for n in nodes]
        while len(chosen) < min(size, len(nodes)):
            node = self.random.choices(nodes, weights)[0]
            if node not in chosen:
                chosen.append(node)
        return sorted(chosen)

    def _along_moves(self, counts: Counts, size: int) -> list[int]:
        """Return nodes joined by moves: where a pod has left and where it went, from one on to the next."""
        links = self._links(counts)
        if not links:
            return []
        chosen = [self.random.choice(list(links))]
        most = self.random.randint(max(2, size // 2), size)
        for _ in range(4 * size):
            near = [n for n in links[self.random.choice(chosen)] if n not in chosen]
            if near:
                chosen.append(self.random.choice(near))
            if len(chosen) >= most:
                break
        return chosen

    def _links(self, counts: Counts) -> dict[int, list[int]]:
        left: dict[int, list[int]] = defaultdict(list)
        for g, group in enumerate(self.problem.groups):
            left[g] += [n for n, now in group.running.items() if counts.stays.get((g, n), 0) < now]
        links: dict[int, list[int]] = defaultdict(list)
        for g, n in counts.arrives:
            for home in left[g]:
                links[home].append(n)
                links[n].append(home)
        return links

    def _room(self, counts: Counts) -> list[list[int]]:
        room = [list(row) for row in self.problem.capacity]
        for cells in (counts.stays, counts.arrives):
            for (g, n), count in cells.items():
                for r, amount in enumerate(self.problem.groups[g].demand):
                    room[n][r] -= amount * count
        return room

    def _targets(self, counts: Counts) -> list[int]:
        placed: Counter[int] = Counter()
        for cells in (counts.stays, counts.arrives):
            for (g, _), count in cells.items():
                placed[g] += count
        waiting = [g for g, group in enumerate(self.problem.groups) if placed[g] < group.count]
        waiting = [g for g in waiting if self.problem.fit[g]]
        return list(self.problem.fit[self.random.choice(waiting)]) if waiting else []
