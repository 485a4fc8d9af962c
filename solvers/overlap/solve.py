"""Least period, then least latency, each with the best bound at hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import gcd

import networkx as nx
from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.operator.claims import level_names
from treadle.ir.operator.lanes import Row, rows_of
from treadle.ir.operator.loop import Mode, OperatorLoop
from treadle.ir.operator.patterns import pattern_bound_ns
from treadle.ir.operator.schedule import OperatorSchedule, latency_ns
from treadle.ir.operator.two_lanes import least_period_ns, least_schedule
from treadle.solvers.backend import Limits, Outcome, solve
from treadle.solvers.overlap.beam import beam_schedule
from treadle.solvers.overlap.bounds import Bound, critical_path, period_bounds
from treadle.solvers.overlap.model import Model, build
from treadle.solvers.overlap.rounding import rounded_schedule


@dataclass(frozen=True, slots=True)
class OverlapOptions:
    """How deep to pipeline and when to stop."""

    stages: int = 3
    searched_modes: int = 128
    """Loops that are not enumerated and have more modes in all run in turn: CP-SAT finds nothing better in seconds."""
    exact: bool = True
    """Enumerate two lanes; without it their durations are rounded up first, which is quick and proves nothing."""
    beam_widths: tuple[int, ...] = (400, 1000, 4000)
    """States kept after each start where there are three lanes or more; a wider beam mostly, not always, finds more."""
    below_ns: int | None = None
    """Periods from here on are of no interest: nothing is searched where a bound reaches it."""
    limits: Limits = field(default_factory=Limits)


def schedule(loop: OperatorLoop, options: OverlapOptions | None = None) -> tuple[OperatorSchedule, Certificate]:
    """Return the best schedule found and its certificate (levels `period`, `latency`).

    There always is one: operators in turn, each in its fastest mode that fits.
    """
    options = options or OverlapOptions()
    if loop.periodic:  # the least period may lie between the multiples of a coarser grid
        return _schedule(loop, options)
    grain = gcd(*(mode.duration_ns for operator in loop.operators for mode in operator.modes))
    found, certificate = _schedule(_scaled(loop, grain), options)
    return _unscaled(found, certificate, grain)


def _scaled(loop: OperatorLoop, grain: int) -> OperatorLoop:
    """Measure time in the durations' greatest common divisor: a one-shot loop's starts need no finer grid."""
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
    bounds = period_bounds(loop, options.below_ns)
    start = in_turn(loop)
    if options.below_ns is not None and bounds[0].value_ns >= options.below_ns:
        return start, _certificate(loop, start, bounds[0])
    shortest = "latency" not in level_names(loop) or latency_ns(loop, start) == path_ns(loop)
    if start.period_ns == bounds[0].value_ns and shortest:
        return start, _certificate(loop, start, bounds[0])
    rows = rows_of(loop)
    if rows is not None and len(rows) > 2:
        return _beamed(loop, rows, options, bounds, start)
    if not options.exact:
        start = _rounded(loop, bounds, start)
    else:
        start, enumerated = _enumerated(loop, bounds, start)
        if enumerated is not None:
            return start, _certificate(loop, start, enumerated)
    if sum(len(operator.modes) for operator in loop.operators) > options.searched_modes:
        return start, _certificate(loop, start, bounds[0])
    return _searched(loop, options, bounds[0], start)


NEAR = 1.15
"""The least period is mostly within this factor of the bound, and enumerating below a low limit is quick."""


def _guide(bounds: list[Bound]) -> dict[str, str]:
    known = [bound.evidence["weights"] for bound in bounds if bound.proof is ProofKind.PATTERN_DUAL]
    return known[0] if known else {}


def _rounded(loop: OperatorLoop, bounds: list[Bound], start: OperatorSchedule) -> OperatorSchedule:
    guide = {name: float(Fraction(text)) for name, text in _guide(bounds).items()}
    return rounded_schedule(loop, guide, bounds[0].value_ns, start.period_ns) or start


def _beamed(
    loop: OperatorLoop, rows: tuple[Row, ...], options: OverlapOptions, bounds: list[Bound], start: OperatorSchedule
) -> tuple[OperatorSchedule, Certificate]:
    """Three lanes and more: a beam guided by the weights of the pattern bound, which stays the bound."""
    weights = {name: Fraction(text) for name, text in _guide(bounds).items()}
    total = sum(weights.values(), Fraction(0))
    scale = pattern_bound_ns(loop, weights) / total if total else Fraction(0)
    guide = {name: float(weight * scale) for name, weight in weights.items()}
    found = [beam_schedule(loop, rows, guide, width) for width in options.beam_widths]
    best = min(start, *found, key=lambda schedule: schedule.period_ns)
    return best, _certificate(loop, best, bounds[0])


def _enumerated(
    loop: OperatorLoop, bounds: list[Bound], start: OperatorSchedule
) -> tuple[OperatorSchedule, Bound | None]:
    """Enumerate two lanes: near the bound first, then below a schedule that is known.

    Returns the best schedule found, and what the enumeration proves (None: other loops, or too many states).
    """
    weights = _guide(bounds)
    guide = {name: float(Fraction(text)) for name, text in weights.items()}
    near = min(int(bounds[0].value_ns * NEAR), start.period_ns)
    found = least_period_ns(loop, guide, near)
    if found is None or found[0] == near < start.period_ns:
        start = _rounded(loop, bounds, start)
        found = least_period_ns(loop, guide, start.period_ns) or found
    if found is None:
        return start, None
    best = least_schedule(loop, guide, *found) if found[0] < start.period_ns else start
    return best, Bound(best.period_ns, ProofKind.ENUMERATION, {"weights": weights})


def _certificate(loop: OperatorLoop, found: OperatorSchedule, bound: Bound) -> Certificate:
    """Certificate of a schedule that rests on bounds without search alone."""
    levels = [_bounded("period", found.period_ns, bound)]
    if "latency" in level_names(loop):
        levels.append(_bounded("latency", latency_ns(loop, found), _path_bound(loop)))
    return Certificate("overlap", "stream shares", tuple(levels))


def _bounded(name: str, value: int, bound: Bound) -> Level:
    status = Status.OPTIMAL if bound.value_ns == value else Status.FEASIBLE
    return Level(name, "ns", value, bound.value_ns, status, bound.proof, bound.evidence)


def _searched(
    loop: OperatorLoop, options: OverlapOptions, bound: Bound, start: OperatorSchedule
) -> tuple[OperatorSchedule, Certificate]:
    """CP-SAT over everything, from the first schedule on."""
    model = build(loop, bound.value_ns, start.period_ns, options.stages if loop.periodic else 1)
    assert model.period is not None
    assert model.latency is not None
    model.cp.minimize(model.period)
    first = solve(model.cp, options.limits, hint=_from(model, start))
    if not first.solved:
        return start, _certificate(loop, start, bound)
    period = first[model.period]
    levels = [_level("period", period, bound, first)]
    found = _read(model, first)
    if "latency" in level_names(loop):
        second = _least_latency(model, period, first, options.limits)
        found = _read(model, second) if second.solved else found
        value, path = latency_ns(loop, found), _path_bound(loop)
        levels.append(_level("latency", value, path, second) if second.solved else _bounded("latency", value, path))
    return found, Certificate("overlap", "stream shares", tuple(levels))


def _least_latency(model: Model, period: int, first: Outcome, limits: Limits) -> Outcome:
    """Solve again with the period fixed; without a solution the first one stands, with no claim but the path's."""
    assert model.latency is not None
    model.cp.add(model.period == period)
    model.cp.minimize(model.latency)
    return solve(model.cp, limits, hint=_hints(model, first))


def in_turn(loop: OperatorLoop) -> OperatorSchedule:
    """Return one operator after the other, each in its fastest mode that fits: what runs without any overlap."""
    now = 0
    starts: dict[str, int] = {}
    modes: dict[str, str] = {}
    for name in launch_order(loop):
        fastest = min(_fitting(loop, name), key=lambda mode: mode.duration_ns)
        starts[name], modes[name] = now, fastest.name
        now += fastest.duration_ns
    return OperatorSchedule(loop.name, now, starts, modes)


def launch_order(loop: OperatorLoop) -> list[str]:
    """Return the operators part by part (what no dependence connects), each in an order that respects them."""
    within: nx.DiGraph[str] = nx.DiGraph()
    within.add_nodes_from(loop.index)
    within.add_edges_from((d.source, d.target) for d in loop.dependences if d.distance == 0)
    whole: nx.Graph[str] = nx.Graph()
    whole.add_nodes_from(loop.index)
    whole.add_edges_from((d.source, d.target) for d in loop.dependences)
    order = list(nx.lexicographical_topological_sort(within, key=loop.index.__getitem__))
    parts = [set(part) for part in nx.connected_components(whole)]
    rows = sorted(([name for name in order if name in part] for part in parts), key=lambda row: loop.index[row[0]])
    return [name for row in rows for name in row]


def _fitting(loop: OperatorLoop, name: str) -> list[Mode]:
    capacities = {stream.name: stream.capacity_milli for stream in loop.streams}
    modes = loop.operator(name).modes
    return [mode for mode in modes if all(share <= capacities[s] for s, share in mode.shares_milli.items())]


def _from(model: Model, found: OperatorSchedule) -> Iterable[tuple[cp_model.IntVar, int]]:
    """A schedule as values to start from, turned so that the first operator starts a period."""
    assert model.period is not None
    period = found.period_ns
    shift = found.start_ns[model.loop.operators[0].name] % period if model.loop.periodic else 0
    shift -= period if shift else 0
    yield model.period, period
    for name, start in found.start_ns.items():
        chosen = found.mode(model.loop, name)
        yield model.slots[name], (start - shift) % period
        yield model.durations[name], chosen.duration_ns
        for mode in model.loop.operator(name).modes:
            yield model.modes[name, mode.name], int(mode is chosen)
        if name in model.stages_of:
            yield model.stages_of[name], (start - shift) // period
            yield model.starts[name], start - shift


def _hints(model: Model, outcome: Outcome) -> Iterable[tuple[cp_model.IntVar, int]]:
    for group in (model.slots, model.starts, model.durations, model.modes):
        for variable in group.values():
            yield variable, outcome[variable]


def path_ns(loop: OperatorLoop) -> int:
    """Return the longest chain of shortest durations within one iteration: no latency is below."""
    return _path_bound(loop).value_ns


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
