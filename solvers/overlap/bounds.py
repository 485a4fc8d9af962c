"""Bounds on the period that need no search: weighted stream volume (LP duals) and recurrences."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from math import ceil
from typing import Any

import networkx as nx
from ortools.math_opt.python import mathopt

from treadle.ir.certificate import ProofKind
from treadle.ir.operator.loop import OperatorLoop
from treadle.ir.operator.patterns import LARGEST, pattern_bound_ns, patterns
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


def period_bounds(loop: OperatorLoop) -> list[Bound]:
    """Return the bounds on the period, largest first."""
    found = [volume_bound(loop), longest_operator(loop)]
    if not loop.periodic:
        found.append(critical_path(loop))
    recurrence = recurrence_bound(loop)
    if recurrence is not None:
        found.append(recurrence)
    if (together := pattern_bound(loop)) is not None:
        found.append(together)
    return sorted(found, key=lambda bound: -bound.value_ns)


def pattern_bound(loop: OperatorLoop) -> Bound | None:
    """Best bound over patterns of concurrent operators (duals of the preemptive relaxation); None with too many.

    The relaxation cuts a period into patterns: sum over patterns of time / duration is one for each operator.
    """
    listed = list(islice(patterns(loop), LARGEST))
    if len(listed) == LARGEST:
        return None
    unit = max(mode.duration_ns for operator in loop.operators for mode in operator.modes)
    model = mathopt.Model()
    done: dict[str, list[Any]] = {name: [] for name in loop.index}
    spent: list[Any] = []
    for pattern in listed:
        time = model.add_variable(lb=0)
        spent.append(time)
        for name, mode in pattern:
            done[name].append(time * (unit / mode.duration_ns))
    rows = {name: model.add_linear_constraint(mathopt.fast_sum(parts) >= 1) for name, parts in done.items()}
    model.minimize(mathopt.fast_sum(spent))
    outcome = solve_linear(model)
    if not outcome.duals:
        return None
    weights = {
        name: Fraction(max(0.0, outcome.dual(row))).limit_denominator(_PATTERN_DENOMINATOR)
        for name, row in rows.items()
    }
    evidence = {"weights": {name: str(weight) for name, weight in weights.items()}}
    return Bound(ceil(pattern_bound_ns(loop, weights)), ProofKind.PATTERN_DUAL, evidence)


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
