"""One level of the objective by contents of nodes: column generation, whole contents by CP-SAT, and back to counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from treadle.costmodels.node_patterns import Patterns, counted, patterns
from treadle.ir.certificate import ProofKind
from treadle.ir.cluster.objective import Measure
from treadle.ir.codec import encode
from treadle.solvers.packing.bounds import Bound
from treadle.solvers.packing.columns import Content
from treadle.solvers.packing.generation import Generation
from treadle.solvers.packing.problem import Counts, Problem
from treadle.solvers.packing.search import Budget

_GROWTH = 1.3
"""Whole contents are chosen again once there are so many times as many columns."""


class LevelByContents:
    """Closes one level if it can: `run` improves the placement through `take` and returns the bound."""

    def __init__(
        self,
        problem: Problem,
        budget: Budget,
        position: int,
        frozen_tier: int | None,
        measures: Callable[[], Sequence[Measure]],
        counts: Callable[[], Counts],
        take: Callable[[Counts], None],
    ) -> None:
        self.problem = problem
        self.budget = budget
        self.position = position
        self.frozen_tier = frozen_tier
        self.measures = measures
        self.counts = counts
        self.take = take

    def run(self, until_s: float) -> Bound | None:
        """Generate and choose until the level is closed or `until_s` of the budget is left."""
        level, homes = self._level(), not self._level().maximize
        earlier = [one for one in self.measures()[: self.position] if counted(one) and (homes or one.maximize)]
        if not counted(level) or (level.floor is None and level.name not in ("moved", "evicted")):
            return None
        self.tier = level.floor if level.floor is not None else min(self.problem.tiers)
        frozen = None if level.name in ("moved", "evicted") else self.frozen_tier
        found = patterns(self.problem.cluster, self.tier, frozen, homes=homes)
        if found is None:
            return None
        self.found, self.frozen = found, frozen
        generation = Generation(
            found, level, earlier, self._charge, lambda: self.budget.left_s > until_s,
            lambda: None if self.budget.window_s is None else self.budget.left_s - until_s,
        )  # fmt: skip
        self._alternate(generation, until_s)
        if generation.bound is None or generation.prices is None:
            return None
        evidence = {"tier": self.tier, "frozen_tier": frozen, "node_prices": encode(generation.prices)}
        return Bound(generation.bound, ProofKind.PATTERN_DUAL, evidence)

    def _alternate(self, generation: Generation, until_s: float) -> None:
        """Prices while they may prove the value; whole contents when they cannot; prices to the end if nothing else."""
        tried = 0

        generation.seed(contents_of(self.problem, self.counts(), self.found, self.frozen))
        while generation.left():
            value = self._level().value
            columns = sum(map(len, generation.master.columns))
            generation.run(value, through=tried * _GROWTH > columns)
            if generation.bound == value or not generation.left():
                return
            columns = sum(map(len, generation.master.columns))
            if columns > tried:
                tried = columns
                self._choose(generation, until_s)
            elif generation.converged:
                return

    def _choose(self, generation: Generation, until_s: float) -> None:
        """Choose whole contents; a better placement is taken over."""
        spare_s = self.budget.left_s - until_s
        limits = self.budget.share(min(1.0, 0.4 * spare_s / max(self.budget.left_s, 1e-9)))
        hint = contents_of(self.problem, self.counts(), self.found, self.frozen)
        outcome, chosen = generation.master.solve_whole(limits, hint)
        self.budget.charge(outcome)
        if chosen:
            self.take(counts_from(self.problem, self.found, chosen, self.counts(), self.tier, self.frozen))
            generation.seed(contents_of(self.problem, self.counts(), self.found, self.frozen))

    def _level(self) -> Measure:
        return self.measures()[self.position]

    def _charge(self, seconds: float) -> None:
        self.budget.spent_s += seconds


def contents_of(problem: Problem, counts: Counts, found: Patterns, frozen: int | None) -> list[list[Content]]:
    """Return the contents of every node in a placement, per group of nodes that are alike."""
    kind_of = {(kind.shape, kind.restart_cost): g for g, kind in enumerate(found.kinds)}
    homes = any(found.offer.residents)
    inside: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for place, cells in enumerate((counts.stays, counts.arrives)):
        for (g, n), count in cells.items():
            group = problem.groups[g]
            kind = kind_of.get((group.shape, group.restart_cost))
            if kind is None or (not place and frozen is not None and group.priority >= frozen):
                continue
            inside[n][kind][place if homes else 1] += count
    return [
        [tuple((kind, both[0], both[1]) for kind, both in sorted(inside[n].items())) for n in members]
        for members in found.members
    ]


def counts_from(
    problem: Problem, found: Patterns, chosen: list[list[Content]], base: Counts, tier: int, frozen: int | None
) -> Counts:
    """Return the placement with the chosen contents; pods of lower tiers stay where they are if there is room."""
    groups_of: dict[int, list[int]] = defaultdict(list)
    kind_of = {(kind.shape, kind.restart_cost): g for g, kind in enumerate(found.kinds)}
    stays: Counter[tuple[int, int]] = Counter()
    for g, group in enumerate(problem.groups):
        if frozen is not None and group.priority >= frozen:
            stays.update({(g, n): count for n, count in group.running.items()})
        kind = kind_of.get((group.shape, group.restart_cost))
        if kind is not None and group.priority >= tier:
            groups_of[kind].append(g)
    arriving: list[tuple[int, int]] = []
    for n, content in _on_nodes(problem, found, chosen, groups_of):
        for kind, staying, arrives in content:
            kept = _seat(problem, stays, groups_of[kind], n, staying if staying else arrives, frozen)
            arriving += [(kind, n)] * (staying + arrives - kept)
    arrives_at: Counter[tuple[int, int]] = Counter()
    left = {g: group.count for g, group in enumerate(problem.groups)}
    for (g, _), count in stays.items():
        left[g] -= count
    for kind, n in arriving:
        if free := [g for g in groups_of[kind] if left[g] > 0]:
            left[free[0]] -= 1
            arrives_at[free[0], n] += 1
    _keep_lower(problem, base, tier, stays, arrives_at)
    return Counts({c: k for c, k in stays.items() if k}, {c: k for c, k in arrives_at.items() if k})


def _seat(
    problem: Problem, stays: Counter[tuple[int, int]], groups: list[int], n: int, wanted: int, frozen: int | None
) -> int:
    """Let up to `wanted` pods that run on the node stay; return how many do."""
    kept = 0
    for g in groups:
        if frozen is not None and problem.groups[g].priority >= frozen:
            continue
        more = min(wanted - kept, problem.groups[g].running.get(n, 0) - stays[g, n])
        if more > 0:
            stays[g, n] += more
            kept += more
    return kept


def _on_nodes(
    problem: Problem, found: Patterns, chosen: list[list[Content]], groups_of: dict[int, list[int]]
) -> list[tuple[int, Content]]:
    """Give contents to nodes that are alike, those first that leave most pods where they run."""
    placed: list[tuple[int, Content]] = []
    for members, contents in zip(found.members, chosen, strict=True):
        running = {
            n: {kind: sum(problem.groups[g].running.get(n, 0) for g in groups) for kind, groups in groups_of.items()}
            for n in members
        }
        pairs = sorted(
            (
                (-sum(min(s + a, running[n][kind]) for kind, s, a in content), n, index)
                for index, content in enumerate(contents)
                for n in members
            ),
        )
        used_nodes: set[int] = set()
        used: set[int] = set()
        for _, n, index in pairs:
            if n not in used_nodes and index not in used:
                used_nodes.add(n)
                used.add(index)
                placed.append((n, contents[index]))
    return placed


def _keep_lower(
    problem: Problem,
    base: Counts,
    tier: int,
    stays: Counter[tuple[int, int]],
    arrives: Counter[tuple[int, int]],
) -> None:
    room = [list(row) for row in problem.capacity]
    for cells in (stays, arrives):
        for (g, n), count in cells.items():
            room[n] = [r - count * w for r, w in zip(room[n], problem.groups[g].demand, strict=True)]
    lower = [
        (-problem.groups[g].priority, place, problem.groups[g].demand, g, n, count)
        for place, cells in enumerate((base.stays, base.arrives))
        for (g, n), count in cells.items()
        if problem.groups[g].priority < tier
    ]
    for _, place, demand, g, n, count in sorted(lower):
        fit = min([count, *(r // w for r, w in zip(room[n], demand, strict=True) if w)])
        if fit > 0:
            (arrives if place else stays)[g, n] += fit
            room[n] = [r - fit * w for r, w in zip(room[n], demand, strict=True)]
