"""RCPSP by CP-SAT: cumulative resources, downtime as fixed intervals, windows as domains."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.errors import NoSchedule
from treadle.ir.cluster.projects import Project, makespan, time_bound
from treadle.solvers.backend import Limits, solve


@dataclass(frozen=True, slots=True)
class ScheduledProject:
    """The start of every activity, and how good that is."""

    starts: tuple[int, ...]
    certificate: Certificate


def schedule_project(project: Project, deterministic_s: float = 10.0, seed: int = 0) -> ScheduledProject:
    """Return a schedule with an early end.

    Raises:
        NoSchedule: none exists, or none was found within the limit (the message says which).
    """
    floor, horizon = time_bound(project), project.horizon
    model = cp_model.CpModel()
    starts = [
        model.new_int_var(one.release, max(one.release, (one.deadline or horizon) - one.duration), "")
        for one in project.activities
    ]
    for number, one in enumerate(project.activities):
        if one.deadline is not None:
            model.add(starts[number] + one.duration <= one.deadline)
        for before in one.after:
            model.add(starts[number] >= starts[before] + project.activities[before].duration)
    for name, there in sorted(project.capacity.items()):
        _add_resource(model, project, starts, name, there)
    last = model.new_int_var(0, max(horizon, floor), "")
    for start, one in zip(starts, project.activities, strict=True):
        model.add(last >= start + one.duration)
    model.minimize(last)
    outcome = solve(model, Limits(deterministic_s, seed=seed))
    if not outcome.solved:
        proven = outcome.status is Status.INFEASIBLE
        raise NoSchedule(reason="the windows and resources contradict each other" if proven else "none found in time")
    found = tuple(outcome[start] for start in starts)
    value, proven_bound = makespan(project, found), max(floor, round(outcome.bound or 0.0))
    searched = proven_bound > floor
    proof = ProofKind.SOLVER if searched else ProofKind.RECURRENCE
    status = Status.OPTIMAL if value == proven_bound else Status.FEASIBLE
    evidence = outcome.report.evidence() if searched else {}
    level = Level("makespan", "time units", value, proven_bound, status, proof, evidence)
    return ScheduledProject(found, Certificate("project", "rcpsp/1", (level,)))


def _add_resource(
    model: cp_model.CpModel, project: Project, starts: list[cp_model.IntVar], name: str, there: int
) -> None:
    intervals: list[cp_model.IntervalVar] = []
    amounts: list[int] = []
    for start, one in zip(starts, project.activities, strict=True):
        if one.needs.get(name, 0) and one.duration:
            intervals.append(model.new_fixed_size_interval_var(start, one.duration, ""))
            amounts.append(one.needs[name])
    for gap_start, gap_end, missing in _missing(project, name, there):
        intervals.append(model.new_fixed_size_interval_var(gap_start, gap_end - gap_start, ""))
        amounts.append(missing)
    if intervals:
        model.add_cumulative(intervals, amounts, there)


def _missing(project: Project, name: str, there: int) -> list[tuple[int, int, int]]:
    """Return (from, to, amount missing) in pieces, overlapping downtime added up, never more than there is."""
    gaps = [gap for gap in project.downtime if gap.resource == name]
    moments = sorted({moment for gap in gaps for moment in (gap.start, gap.end)})
    pieces: list[tuple[int, int, int]] = []
    for begin, end in pairwise(moments):
        gone = min(there, sum(gap.amount for gap in gaps if gap.start <= begin < gap.end))
        if gone:
            pieces.append((begin, end, gone))
    return pieces
