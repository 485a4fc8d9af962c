"""`pack`: the current placement, better ones around it, then every level of the objective as far as limits allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from treadle.costmodels.migration import budgets_by_shape, loads
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.cluster import PENDING, Cluster, require_fitting
from treadle.ir.cluster.errors import InconsistentCluster
from treadle.ir.cluster.objective import Measure, Objective, measure
from treadle.ir.cluster.placement import Placement, check
from treadle.solvers.backend import Outcome, solve
from treadle.solvers.packing.bounds import Bound, disturbed_bound, placed_bound
from treadle.solvers.packing.bundles import applies, fresh_nodes
from treadle.solvers.packing.devices import assign_devices
from treadle.solvers.packing.flows import applies as flow_applies
from treadle.solvers.packing.flows import least_cost
from treadle.solvers.packing.levels import LevelByContents
from treadle.solvers.packing.matchings import matchings
from treadle.solvers.packing.model import PackingModel
from treadle.solvers.packing.neighbourhoods import neighbourhoods
from treadle.solvers.packing.problem import Counts, Problem, assign, build, counts_of, current
from treadle.solvers.packing.search import Budget, Incumbent, Values, chains, evaluate

COST_MODEL = "kubernetes-requests/1"
"""Pods use what they request; nodes offer what is allocatable."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to pack. The limits are deterministic unless a wall-clock window is given."""

    objective: Objective = field(default_factory=Objective)
    deterministic_s: float | None = 20.0
    window_s: float | None = None
    workers: int = 1
    seed: int = 0
    whole_model_cells: int = 60_000
    """The whole model is built only up to so many (group, node) cells."""
    for_neighbourhoods: float = 0.25
    """Share of the budget's rest that proofs leave for neighbourhoods."""
    starts: int = 1
    """Searches from so many seeds; see `starts.py`."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A placement, how good it is, and whether the search ended by itself."""

    placement: Placement
    certificate: Certificate


Progress = Callable[[str], None]


def pack(cluster: Cluster, options: Options | None = None, progress: Progress | None = None) -> Packed:
    """Return the best placement found from one seed; never worse than the current one, and always legal.

    `starts.pack` searches from several.

    Raises:
        OverfullNode, InconsistentCluster: the current placement is not legal.
    """
    options = options or Options()
    budget = Budget(
        options.deterministic_s if options.window_s is None else None, options.window_s, options.workers, options.seed
    )
    require_fitting(cluster)
    _require_free_ports(cluster)
    packing = _Packing(cluster, options, budget, progress or (lambda _: None))
    if findings := check(cluster, packing.placement()):
        raise InconsistentCluster(message=f"the cluster contradicts itself as it is now: {findings[0]}")
    packing.keep_reserve()
    return packing.run()


def _require_free_ports(cluster: Cluster) -> None:
    """Raise InconsistentCluster if two pods claim one host port of a node now."""
    claimed: set[tuple[int, str]] = set()
    shape_loads = loads(cluster)
    for pod in cluster.pods:
        for name in shape_loads[pod.shape]:
            if pod.node == PENDING or not name.startswith("port/"):
                continue
            if (pod.node, name) in claimed:
                node = cluster.nodes[pod.node].name
                raise InconsistentCluster(message=f"two pods on the node `{node}` claim the host {name}")
            claimed.add((pod.node, name))


_SMALL_CELLS = 1_500
_FOR_LATER = 0.35
"""Share of the budget's rest that the contents of nodes leave for later levels and the whole model."""
_AFTER_SEARCH = 0.7
"""Share of the budget's rest that the first search leaves for proofs and later searches."""
_CHAINS_KEEP, _MATCHINGS_KEEP = 0.5, 0.25
"""Shares of a search's time that chains, and then matchings, leave for what comes after them."""
_CHAINS_PER_CYCLE = 60
"""Chains without gain that weigh as much as one cycle of matchings without."""
_LEAST_S = 0.05
_RESERVE = 0.03
"""Share of a window kept for writing the result down, beside what the setup took."""
_RESERVE_S = 0.04
"""The least of it: a busy machine lets a process wait so long."""
_LATE = 0.3
"""Share of the reserve from which on bounds are not looked for."""
_MODEL_CELL_S = 4e-5
"""Seconds that building the whole model takes per (group, node) cell, at most."""
_THOROUGH_S = 3.0
"""Seconds that must be left for the thorough bound, per 32 nodes."""


class _Packing:
    def __init__(self, cluster: Cluster, options: Options, budget: Budget, progress: Progress) -> None:
        self.cluster = cluster
        self.options = options
        self.progress = progress
        self.budget = budget
        self.problem: Problem = build(cluster, options.objective.order)
        self.tail = options.objective.tail
        self.budgets_of = budgets_by_shape(cluster)
        counts = current(self.problem)
        self.incumbent = Incumbent(counts, evaluate(self.problem, counts, self.tail))
        self.bounds: dict[str, Bound] = {}
        self.proven: set[str] = set()
        self.frozen: int | None = None
        """Running pods of this priority and above stand still: an earlier level says so."""
        self.given: dict[str, Values] = {}
        """Earlier values that a bound after an open level supposes."""

    def keep_reserve(self) -> None:
        """Keep of the window what writing the result down takes: as long as reading and checking took, and a little."""
        if self.options.window_s is not None:
            spent_s = self.options.window_s - self.budget.rest_s
            late_s = max(_RESERVE * self.options.window_s, _RESERVE_S)
            self.budget.reserve_s = min(spent_s + late_s, 0.5 * self.options.window_s)

    def run(self) -> Packed:
        """Search, then say how good the result is."""
        names = [level.name for level in self._measures()]
        goal = self._goal()
        if applies(self.cluster) and self.budget.left_s > 0:
            self._take(counts_of(self.problem, fresh_nodes(self.cluster, self.options.seed)))
        elif flow_applies(self.problem, self.tail):
            self._take(least_cost(self.problem))
        elif self.budget.left_s > 0:
            self._improve(_AFTER_SEARCH, goal, patience=150 if self._cells() <= _SMALL_CELLS else 600)
        if self._cells() <= self.options.whole_model_cells and self.incumbent.values != goal:
            self.budget.held_s = self.options.for_neighbourhoods * self.budget.left_s
            self._whole(names)
            self.budget.held_s = 0.0
        self._improve(0.0, goal, patience=1000, last=True)
        placement = self.placement()
        return Packed(placement, Certificate("packing", COST_MODEL, self._levels(placement)))

    def _improve(self, keep: float, goal: Values, patience: int, *, last: bool = False) -> None:
        """Search around the incumbent until a share `keep` of the budget's rest is left, or nothing better turns up.

        `last`: neighbourhoods have a part of the time even where the other searches suffice by themselves.
        """
        if self.incumbent.values == goal or (all(name in self.proven for name in self.bounds) and self.bounds):
            return
        there_s, until_s = self.budget.left_s, self.budget.left_s * keep
        ends = [until_s + share * (there_s - until_s) for share in (_CHAINS_KEEP, _MATCHINGS_KEEP)]
        if not last:
            ends = [until_s if self.problem.ruled else ends[0], until_s]
        args = (self.problem, self.incumbent, self.budget)
        chains(*args, ends[0], goal, self._accept, patience, self.tail)
        if not self.problem.ruled:
            cycles = max(2, patience // _CHAINS_PER_CYCLE)
            matchings(*args, ends[1], goal, self._accept, cycles, self.tail, self.frozen)
        if self.problem.ruled or last:
            neighbourhoods(*args, until_s, goal, self._accept, self.tail, self.frozen)

    def placement(self) -> Placement:
        """Return the best placement so far."""
        return self._placement(self.incumbent.counts)

    def _cells(self) -> int:
        return self.problem.fit.cells(self.options.whole_model_cells)

    def _measures(self) -> tuple[Measure, ...]:
        return measure(self.cluster, Placement(self.cluster.current), self.options.objective)

    def _goal(self) -> tuple[int, ...]:
        """Return values that no placement beats: the count bound of every level."""
        totals = {
            tier: sum(self.cluster.priority(p) >= tier for p in range(len(self.cluster.pods)))
            for tier in self.cluster.tiers
        }
        return tuple(
            -totals[level.floor] if level.maximize and level.floor is not None else 0 for level in self._measures()
        )

    def _placement(self, counts: Counts) -> Placement:
        """Return the placement with its devices; devices that do not fit are left out, and `check` says so."""
        nodes = assign(self.problem, counts)
        return Placement(nodes, assign_devices(self.cluster, nodes) or ())

    def _accept(self, counts: Counts) -> bool:
        placement = self._placement(counts)
        return not check(self.cluster, placement) and self._keeps_budgets(placement)

    def _keeps_budgets(self, placement: Placement) -> bool:
        """Whether no budget has lost more pods for good than it allows."""
        lost = [0] * len(self.cluster.budgets)
        for pod, node in zip(self.cluster.pods, placement.nodes, strict=True):
            for budget in self.budgets_of.get(pod.shape, []):
                lost[budget] += (pod.node != PENDING) - (node != PENDING)
        return all(count <= b.disruptions_allowed for count, b in zip(lost, self.cluster.budgets, strict=True))

    def _whole(self, names: list[str]) -> None:
        """Prove or improve level by level; stops at the first level that stays open."""
        model: PackingModel | None = None
        frozen: int | None = None
        for position, name in enumerate(names):
            bound = self._cheap_bound(position, frozen)
            self.bounds[name] = bound
            value = self._value(position)
            if value != bound.value:
                self._by_contents(position, frozen)
                bound, value = self.bounds[name], self._value(position)
            if value != bound.value:
                if model is None and self.budget.left_s < _MODEL_CELL_S * self._cells():
                    self._open_levels(position + 1, names)
                    return
                model = model or self._model(frozen, position)
                if not self._solve_level(model, position, bound):
                    self._open_levels(position + 1, names)
                    return
                value = self._value(position)
            self.proven.add(name)
            maximize = self._measures()[position].maximize
            if model is not None and not isinstance(model.levels[position][1], int):
                expression = model.levels[position][1]
                model.model.add(expression >= value if maximize else expression <= value)
            floor = self._measures()[position].floor
            if name.startswith("disruption") and value == 0:
                frozen, model = floor, None
                self.frozen = floor

    def _open_levels(self, first: int, names: list[str]) -> None:
        """Improve and bound the levels after one that stays open, as far as contents of nodes do."""
        for position in range(first, len(names)):
            level = self._levels_now()[position]
            if not level.maximize and self.budget.left_s > _LEAST_S:
                self.bounds[names[position]] = self._cheap_bound(position, None)
                self._by_contents(position, None)
                self.given[names[position]] = self.incumbent.values[:position]

    def _by_contents(self, position: int, frozen: int | None) -> None:
        """Bound and improve a level by contents of nodes; see `levels.py`."""
        name = self._measures()[position].name
        if self.budget.left_s < _MODEL_CELL_S * self._cells():
            return
        by_contents = LevelByContents(
            self.problem, self.budget, position, frozen, self._levels_now, lambda: self.incumbent.counts, self._take
        )
        found = by_contents.run(self.budget.left_s * _FOR_LATER)
        level = self._levels_now()[position]
        if found is not None and (
            found.value < self.bounds[name].value if level.maximize else found.value > self.bounds[name].value
        ):
            self.bounds[name] = found

    def _model(self, frozen: int | None, upto: int) -> PackingModel:
        """Return the whole model with the proven levels before `upto` fixed."""
        model = PackingModel(self.problem, range(len(self.problem.capacity)), current(self.problem), self.tail, frozen)
        model.add_departure_cuts()
        for earlier in range(upto):
            _, expression, maximize = model.levels[earlier]
            if not isinstance(expression, int):
                value = self._value(earlier)
                model.model.add(expression >= value if maximize else expression <= value)
        return model

    def _solve_level(self, model: PackingModel, position: int, bound: Bound) -> bool:
        """Solve one level of the whole model; return whether its value is now proven."""
        name, expression, maximize = model.levels[position]
        if self.budget.left_s <= 0.01:
            return False
        if maximize:
            model.model.add(expression <= bound.value)
            model.model.maximize(expression)
        else:
            model.model.add(expression >= bound.value)
            model.model.minimize(expression)
        outcome = solve(
            model.model, self.budget.share(0.5 if maximize else 0.9), hint=model.hint(self.incumbent.counts)
        )
        self.budget.charge(outcome)
        if outcome.solved:
            self._take(model.read(outcome))
        return self._record(name, position, outcome, maximize, bound)

    def _take(self, counts: Counts) -> None:
        values = evaluate(self.problem, counts, self.tail)
        if values < self.incumbent.values and self._accept(counts):
            self.incumbent.counts, self.incumbent.values = counts, values

    def _record(self, name: str, position: int, outcome: Outcome, maximize: bool, bound: Bound) -> bool:
        if outcome.bound is None:
            return False
        proven = round(outcome.bound)
        value = self._value(position)
        better = proven < bound.value if maximize else proven > bound.value
        if better and (proven >= value if maximize else proven <= value):
            self.bounds[name] = Bound(proven, ProofKind.SOLVER, outcome.report.evidence())
        return self.bounds[name].value == value

    def _cheap_bound(self, position: int, frozen: int | None) -> Bound:
        level = self._levels_now()[position]
        if level.maximize and level.floor is not None:
            if not self._in_time():
                everyone = sum(self.cluster.priority(p) >= level.floor for p in range(len(self.cluster.pods)))
                return Bound(everyone, ProofKind.COUNT, {})
            return placed_bound(self.cluster, level.floor, frozen, level.value)
        values = {earlier.name: earlier.value for earlier in self._levels_now()[:position]}
        thorough = self.budget.left_s > _THOROUGH_S * len(self.cluster.nodes) / 32
        return disturbed_bound(self.cluster, level, values, frozen, thorough=thorough, go_on=self._in_time)

    def _in_time(self) -> bool:
        """Whether there is time for bounds: always without a window."""
        return self.budget.rest_s > _LATE * self.budget.reserve_s

    def _levels_now(self) -> tuple[Measure, ...]:
        """Return the levels with the incumbent's values."""
        return tuple(
            replace(level, value=abs(value))
            for level, value in zip(self._measures(), self.incumbent.values, strict=True)
        )

    def _value(self, position: int) -> int:
        return abs(self.incumbent.values[position])

    def _levels(self, placement: Placement) -> tuple[Level, ...]:
        levels: list[Level] = []
        open_before, values = False, self.incumbent.values
        for position, level in enumerate(measure(self.cluster, placement, self.options.objective)):
            bound = self.bounds.get(level.name)
            if bound is None or self.given.get(level.name, values[:position]) != values[:position]:
                bound = self._cheap_bound(position, None)
            closed = bound.value == level.value and not open_before
            open_before = open_before or not closed
            evidence: dict[str, Any] = dict(bound.evidence)
            status = Status.OPTIMAL if closed else Status.FEASIBLE
            levels.append(
                Level(level.name, level.unit, level.value, bound.value, status, bound.proof, evidence, level.maximize)
            )
        return tuple(levels)
