"""Least period, then least latency, each with the best bound at hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import gcd

import networkx as nx
from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.operator.loop import OperatorLoop
from treadle.ir.operator.schedule import OperatorSchedule
from treadle.solvers.backend import Limits, Outcome, solve
from treadle.solvers.overlap.bounds import Bound, critical_path, period_bounds
from treadle.solvers.overlap.model import Model, build


class NoOverlapFound(TreadleError):
    """The limit came before any schedule."""

    code = "TRD380"
    template = "no schedule of `{loop}` was found within the limit"
    hint = "raise the limit with --limit"
    exit_code = ExitCode.LIMIT


@dataclass(frozen=True, slots=True)
class OverlapOptions:
    """How deep to pipeline and when to stop."""

    stages: int = 3
    limits: Limits = field(default_factory=Limits)


def schedule(loop: OperatorLoop, options: OverlapOptions | None = None) -> tuple[OperatorSchedule, Certificate]:
    """Return the best schedule found and its certificate (levels `period`, `latency`).

    Raises:
        NoOverlapFound: the limit came first.
    """
    options = options or OverlapOptions()
    grain = gcd(*(mode.duration_ns for operator in loop.operators for mode in operator.modes))
    found, certificate = _schedule(_scaled(loop, grain), options)
    return _unscaled(found, certificate, grain)


def _scaled(loop: OperatorLoop, grain: int) -> OperatorLoop:
    """Measure time in the durations' greatest common divisor: starts need no finer grid."""
    operators = tuple(
        replace(op, modes=tuple(replace(mode, duration_ns=mode.duration_ns // grain) for mode in op.modes))
        for op in loop.operators
    )
    return replace(loop, operators=operators)


def _unscaled(found: OperatorSchedule, certificate: Certificate, grain: int) -> tuple[OperatorSchedule, Certificate]:
    schedule = replace(
        found,
        period_ns=found.period_ns * grain,
        start_ns={name: start * grain for name, start in found.start_ns.items()},
    )
    levels = (
        replace(level, value=level.value * grain, bound=None if level.bound is None else level.bound * grain)
        for level in certificate.levels
    )
    return schedule, replace(certificate, levels=tuple(levels))


def _schedule(loop: OperatorLoop, options: OverlapOptions) -> tuple[OperatorSchedule, Certificate]:
    bound = period_bounds(loop)[0]
    largest = sum(min(mode.duration_ns for mode in operator.modes) for operator in loop.operators)
    largest = max(largest, max(mode.duration_ns for operator in loop.operators for mode in operator.modes))
    model = build(loop, bound.value_ns, largest, options.stages if loop.periodic else 1)
    assert model.period is not None
    assert model.latency is not None
    model.cp.minimize(model.period)
    first = solve(model.cp, options.limits, hint=_in_turn(model))
    if not first.solved:
        raise NoOverlapFound(loop=loop.name)
    period = first[model.period]
    levels = [_level("period", period, bound, first)]
    best = first
    if loop.periodic:
        best = _least_latency(model, period, first, options.limits)
        levels.append(_level("latency", best[model.latency], _path_bound(loop), best))
    return _read(model, best), Certificate("overlap", "stream shares", tuple(levels))


def _least_latency(model: Model, period: int, first: Outcome, limits: Limits) -> Outcome:
    assert model.latency is not None
    model.cp.add(model.period == period)
    model.cp.minimize(model.latency)
    second = solve(model.cp, limits, hint=_hints(model, first))
    return second if second.solved else first


def _in_turn(model: Model) -> Iterable[tuple[cp_model.IntVar, int]]:
    """One operator after the other, each in its fastest mode: always legal, and where the search begins."""
    assert model.period is not None
    now = 0
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(model.loop.index)
    graph.add_edges_from((d.source, d.target) for d in model.loop.dependences if d.distance == 0)
    for name in nx.lexicographical_topological_sort(graph, key=lambda name: model.loop.index[name]):
        fastest = min(model.loop.operator(name).modes, key=lambda mode: mode.duration_ns)
        yield model.slots[name], now
        yield model.durations[name], fastest.duration_ns
        for mode in model.loop.operator(name).modes:
            yield model.modes[name, mode.name], int(mode is fastest)
        if name in model.stages_of:
            yield model.stages_of[name], 0
            yield model.starts[name], now
        now += fastest.duration_ns
    yield model.period, now


def _hints(model: Model, outcome: Outcome) -> Iterable[tuple[cp_model.IntVar, int]]:
    for group in (model.slots, model.starts, model.durations, model.modes):
        for variable in group.values():
            yield variable, outcome[variable]


def _path_bound(loop: OperatorLoop) -> Bound:
    once = OperatorLoop(
        loop.name, loop.streams, loop.operators, tuple(d for d in loop.dependences if d.distance == 0), periodic=False
    )
    return critical_path(once)


def _level(name: str, value: int, bound: Bound, outcome: Outcome) -> Level:
    """Prefer the bound without search; else what the solver proved."""
    if bound.value_ns == value:
        return Level(name, "ns", value, value, Status.OPTIMAL, bound.proof, bound.evidence)
    proven = bound.value_ns if outcome.bound is None else max(bound.value_ns, min(value, round(outcome.bound)))
    if outcome.status is Status.OPTIMAL and outcome.value == value:
        return Level(name, "ns", value, value, Status.OPTIMAL, ProofKind.SOLVER, outcome.report.evidence())
    if proven > bound.value_ns and outcome.value == value:
        return Level(name, "ns", value, proven, Status.FEASIBLE, ProofKind.SOLVER, outcome.report.evidence())
    return Level(name, "ns", value, bound.value_ns, Status.FEASIBLE, bound.proof, bound.evidence)


def _read(model: Model, outcome: Outcome) -> OperatorSchedule:
    """Return the solution with the earliest start at time 0 (starts shift together; slots shift modulo the period)."""
    assert model.period is not None
    starts = {name: outcome[variable] for name, variable in model.starts.items()}
    earliest = min(starts.values())
    return OperatorSchedule(
        loop=model.loop.name,
        period_ns=outcome[model.period],
        start_ns={name: start - earliest for name, start in starts.items()},
        modes={operator: mode for (operator, mode), chosen in model.modes.items() if outcome[chosen]},
    )
