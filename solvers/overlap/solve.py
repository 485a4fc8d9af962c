"""Least period, then least latency, each with the best bound at hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

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
    bound = period_bounds(loop)[0]
    largest = sum(min(mode.duration_ns for mode in operator.modes) for operator in loop.operators)
    largest = max(largest, max(mode.duration_ns for operator in loop.operators for mode in operator.modes))
    model = build(loop, bound.value_ns, largest, options.stages if loop.periodic else 1)
    assert model.period is not None
    assert model.latency is not None
    model.cp.minimize(model.period)
    first = solve(model.cp, options.limits)
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
