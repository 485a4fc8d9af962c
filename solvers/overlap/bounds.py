"""Bounds on the period that need no search: weighted stream volume (LP duals) and recurrences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from math import ceil
from typing import Any

import networkx as nx
from ortools.math_opt.python import mathopt

from treadle.ir.certificate import ProofKind
from treadle.ir.operator.lane_patterns import heaviest, lane_entries
from treadle.ir.operator.lanes import Row, rows_of
from treadle.ir.operator.loop import Mode, OperatorLoop
from treadle.ir.operator.patterns import LARGEST, Pattern, pattern_bound_ns, patterns
from treadle.ir.operator.schedule import recurrence_bound_ns, volume_bound_ns
from treadle.solvers.backend import solve_linear

_PATTERN_DENOMINATOR = 10**7

_DENOMINATOR = 10**9
"""Multipliers are rounded to this many parts; any non-negative rounding keeps the bound valid."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound in ns with the proof that a checker can repeat."""

    value_ns: int
    proof: ProofKind
    evidence: dict[str, Any] = field(default_factory=dict[str, Any])


def period_bounds(loop: OperatorLoop, enough_ns: int | None = None) -> list[Bound]:
    """Return the bounds on the period, largest first; without the slower ones where another proves `enough_ns`."""
    found = [volume_bound(loop), longest_operator(loop)]
    if not loop.periodic:
        found.append(critical_path(loop))
    recurrence = recurrence_bound(loop)
    if recurrence is not None:
        found.append(recurrence)
    most = max(bound.value_ns for bound in found)
    if (enough_ns is None or most < enough_ns) and (together := pattern_bound(loop, enough_ns)) is not None:
        found.append(together)
    return sorted(found, key=lambda bound: -bound.value_ns)


def pattern_bound(loop: OperatorLoop, enough_ns: int | None = None) -> Bound | None:
    """Best bound over patterns of concurrent operators (duals of the preemptive relaxation); None with too many.

    The relaxation cuts a period into patterns: sum over patterns of time / duration is one for each operator. Patterns
    of lanes are generated as the duals ask for them, until `enough_ns` is proven; those of other loops are listed.
    """
    rows = rows_of(loop)
    cover = _Cover(loop)
    if rows is not None:
        weights = _generated(cover, rows, enough_ns)
    elif len(listed := list(islice(patterns(loop), LARGEST))) < LARGEST:
        cover.add(listed)
        weights = cover.weights()
    else:
        weights = None
    if weights is None:
        return None
    evidence = {"weights": {name: str(weight) for name, weight in weights.items()}}
    return Bound(ceil(pattern_bound_ns(loop, weights)), ProofKind.PATTERN_DUAL, evidence)


class _Cover:
    """The relaxation as a linear program over the patterns known so far, with the longest duration as unit of time."""

    def __init__(self, loop: OperatorLoop) -> None:
        self.loop = loop
        self.unit_ns = max(mode.duration_ns for operator in loop.operators for mode in operator.modes)
        self.model = mathopt.Model()
        self.model.objective.is_maximize = False
        self.rows = {name: self.model.add_linear_constraint(lb=1) for name in loop.index}

    def add(self, listed: Iterable[Pattern]) -> None:
        """Add patterns that are not known yet."""
        for pattern in listed:
            time = self.model.add_variable(lb=0)
            self.model.objective.set_linear_coefficient(time, 1)
            for name, mode in pattern:
                self.rows[name].set_coefficient(time, self.unit_ns / mode.duration_ns)

    def weights(self) -> dict[str, Fraction] | None:
        """Return the weight of each operator in the best cover."""
        outcome = solve_linear(self.model)
        if not outcome.duals:
            return None
        return {
            name: Fraction(max(0.0, outcome.dual(row))).limit_denominator(_PATTERN_DENOMINATOR)
            for name, row in self.rows.items()
        }


_PRICED, _ROUNDS, _CLOSE = 150, 60, 1e-4
"""Patterns taken in at once; rounds at most; excess of the heaviest pattern that is no longer worth a round."""

_PARTS = 2**30
"""Whole parts of a unit of weight, for prices."""


def _generated(cover: _Cover, rows: tuple[Row, ...], enough_ns: int | None) -> dict[str, Fraction] | None:
    """Return the weights of the best cover, with patterns of lanes added while one is worth more than its time.

    It ends early where the weights prove `enough_ns`.
    """
    loop = cover.loop
    entries = [lane_entries(row) for row in rows]
    alone: list[Pattern] = [((name, mode),) for lane in entries for name, mode in lane if _fits_alone(loop, mode)]
    names = {_key(pattern) for pattern in alone}
    cover.add(alone)
    weights: dict[str, Fraction] | None = None
    for _ in range(_ROUNDS):
        weights = cover.weights()
        if weights is None:
            return None
        found = heaviest(rows, loop.streams, _prices(cover, weights), _PRICED)
        heaviest_parts = int(found.weight[0])
        proven_ns = float(sum(weights.values())) * cover.unit_ns * _PARTS / max(1, heaviest_parts)
        if heaviest_parts <= _PARTS * (1 + _CLOSE) or (enough_ns is not None and proven_ns > enough_ns * (1 + _CLOSE)):
            break
        worth = found.entries[found.weight > _PARTS]
        made = (tuple(lane[at - 1] for lane, at in zip(entries, row, strict=True) if at) for row in worth)
        fresh = {_key(pattern): pattern for pattern in made if _key(pattern) not in names}
        names |= set(fresh)
        cover.add(fresh.values())
    return weights


def _key(pattern: Pattern) -> tuple[tuple[str, str], ...]:
    return tuple((name, mode.name) for name, mode in pattern)


def _prices(cover: _Cover, weights: dict[str, Fraction]) -> dict[tuple[str, str], int]:
    """Weight that each mode completes in a unit of time, in whole parts."""
    return {
        (operator.name, mode.name): int(float(weights[operator.name]) * cover.unit_ns * _PARTS / mode.duration_ns)
        for operator in cover.loop.operators
        for mode in operator.modes
    }


def _fits_alone(loop: OperatorLoop, mode: Mode) -> bool:
    return all(mode.shares_milli.get(stream.name, 0) <= stream.capacity_milli for stream in loop.streams)


def volume_bound(loop: OperatorLoop) -> Bound:
    """Best weighted volume bound: the duals of the relaxed mode choice, rounded to rationals and recomputed."""
    model = mathopt.Model()
    period = model.add_variable(lb=0)
    loads: dict[str, list[Any]] = {stream.name: [] for stream in loop.streams}
    for operator in loop.operators:
        choice = [model.add_variable(lb=0) for _ in operator.modes]
        model.add_linear_constraint(sum(choice) == 1)
        for variable, mode in zip(choice, operator.modes, strict=True):
            for stream, share in mode.shares_milli.items():
                loads[stream].append(variable * (mode.duration_ns * share))
    rows = {
        stream.name: model.add_linear_constraint(stream.capacity_milli * period - sum(loads[stream.name]) >= 0)
        for stream in loop.streams
    }
    model.minimize(period)
    outcome = solve_linear(model)
    weights = {
        name: Fraction(max(0.0, outcome.dual(row)) * _scale(loop)).limit_denominator(_DENOMINATOR)
        for name, row in rows.items()
        if outcome.duals
    }
    value = ceil(volume_bound_ns(loop, weights))
    return Bound(value, ProofKind.LP_DUAL, {"weights": {name: str(weight) for name, weight in weights.items()}})


def _scale(loop: OperatorLoop) -> int:
    return max(stream.capacity_milli for stream in loop.streams)


def longest_operator(loop: OperatorLoop) -> Bound:
    """No operator overlaps itself: the period is at least the shortest mode of the longest operator."""
    longest = max(loop.operators, key=lambda operator: min(mode.duration_ns for mode in operator.modes))
    shortest = min(mode.duration_ns for mode in longest.modes)
    return Bound(shortest, ProofKind.RESOURCE, {"operator": longest.name})


def recurrence_bound(loop: OperatorLoop) -> Bound | None:
    """Largest ratio of shortest durations to distance over all cycles, found by Lawler's binary search; None without.

    Each step asks for a cycle of positive weight at a trial period (networkx negative-cycle search).
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    best: tuple[Fraction, list[str]] | None = None
    for dependence in loop.dependences:
        edge = graph.get_edge_data(dependence.source, dependence.target)
        distance = min(dependence.distance, edge["distance"]) if edge else dependence.distance
        shortest = min(mode.duration_ns for mode in loop.operator(dependence.source).modes)
        graph.add_edge(dependence.source, dependence.target, distance=distance, shortest=shortest)
    trial = Fraction(0)
    while (cycle := _cycle_above(graph, trial)) is not None:
        ratio = recurrence_bound_ns(loop, cycle)
        if ratio <= trial:
            break
        best, trial = (ratio, cycle), ratio
    if best is None:
        return None
    return Bound(ceil(best[0]), ProofKind.RECURRENCE, {"cycle": best[1]})


def _cycle_above(graph: nx.DiGraph[str], trial: Fraction) -> list[str] | None:
    """Return a cycle whose durations exceed `trial` times its distance, or None."""
    weights = {(u, v): trial * data["distance"] - data["shortest"] for u, v, data in graph.edges(data=True)}
    for source, target in graph.edges:
        graph[source][target]["weight"] = weights[source, target]
    for component in nx.strongly_connected_components(graph):
        if alone := [name for name in sorted(component) if weights.get((name, name), 0) < 0]:
            return alone[:1]  # networkx stumbles over loops of one vertex
        inner = nx.DiGraph(graph.subgraph(component))
        inner.remove_edges_from(list(nx.selfloop_edges(inner)))
        start = min(component)
        if inner.number_of_edges() == 0:
            continue
        try:
            cycle = nx.find_negative_cycle(inner, start)
        except nx.NetworkXError:
            continue
        return list(cycle[:-1])
    return None


def critical_path(loop: OperatorLoop) -> Bound:
    """Longest chain of shortest durations in a one-shot loop."""
    graph: nx.DiGraph[str] = nx.DiGraph((d.source, d.target) for d in loop.dependences)
    graph.add_nodes_from(loop.index)
    shortest = {operator.name: min(mode.duration_ns for mode in operator.modes) for operator in loop.operators}
    ends: dict[str, int] = {}
    before: dict[str, str | None] = {}
    for name in nx.topological_sort(graph):
        last = max(graph.predecessors(name), key=lambda p: ends[p], default=None)
        before[name] = last
        ends[name] = shortest[name] + (ends[last] if last is not None else 0)
    walker: str | None = max(ends, key=lambda name: ends[name])
    value, path = ends[str(walker)], list[str]()
    while walker is not None:
        path.append(walker)
        walker = before[walker]
    return Bound(value, ProofKind.RECURRENCE, {"path": path[::-1]})
