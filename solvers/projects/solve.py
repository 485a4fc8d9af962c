"""RCPSP by CP-SAT: cumulative resources, downtime as fixed intervals, windows as domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.errors import NoSchedule
from treadle.ir.cluster.projects import Project, earliest_starts, makespan, missing, tails_of, time_bound
from treadle.solvers.backend import Limits, solve
from treadle.solvers.projects.serial import serial_schedule


@dataclass(frozen=True, slots=True)
class ScheduledProject:
    """The start of every activity, and how good that is."""

    starts: tuple[int, ...]
    certificate: Certificate


def schedule_project(project: Project, deterministic_s: float = 2.0, seed: int = 0) -> ScheduledProject:
    """Return a schedule with an early end: the best of many orders, then what CP-SAT makes of it within the limit.

    Args:
        project: activities, resources, downtime.
        deterministic_s: limit in CP-SAT's machine-independent clock; 2 are some five seconds of one core.
        seed: of the orders and of the search.

    Raises:
        NoSchedule: none exists, or none was found within the limit (the message says which).
    """
    floor, known = time_bound(project), serial_schedule(project, seed)
    if known is not None and makespan(project, known) == floor:
        return _scheduled(known, floor, floor, {})
    model, starts = _model(project, floor, known)
    hint = list(zip(starts, known, strict=True)) if known else []
    outcome = solve(model, Limits(deterministic_s, seed=seed), hint=hint)
    found = tuple(outcome[start] for start in starts) if outcome.solved else known
    if found is None:
        proven = outcome.status is Status.INFEASIBLE
        raise NoSchedule(reason="the windows and resources contradict each other" if proven else "none found in time")
    bound = max(floor, round(outcome.bound or 0.0))
    return _scheduled(found, makespan(project, found), bound, outcome.report.evidence() if bound > floor else {})


def _scheduled(starts: tuple[int, ...], value: int, bound: int, evidence: dict[str, Any]) -> ScheduledProject:
    status = Status.OPTIMAL if value == bound else Status.FEASIBLE
    proof = ProofKind.SOLVER if evidence else ProofKind.RECURRENCE
    level = Level("makespan", "time units", value, bound, status, proof, evidence)
    return ScheduledProject(starts, Certificate("project", "rcpsp/1", (level,)))


def _model(
    project: Project, floor: int, known: tuple[int, ...] | None
) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    """Return the model and the start of every activity; what is known bounds the end."""
    model = cp_model.CpModel()
    end = project.horizon if known is None else makespan(project, known)
    heads, tails = earliest_starts(project), tails_of(project)
    starts = [
        model.new_int_var(head, max(head, min(end - tail, (one.deadline or end) - one.duration)), "")
        for one, head, tail in zip(project.activities, heads, tails, strict=True)
    ]
    for number, one in enumerate(project.activities):
        if one.deadline is not None:
            model.add(starts[number] + one.duration <= one.deadline)
        for before in one.after:
            model.add(starts[number] >= starts[before] + project.activities[before].duration)
    for name, there in sorted(project.capacity.items()):
        _add_resource(model, project, starts, name, there)
    last = model.new_int_var(floor, max(end, floor), "")
    for start, one in zip(starts, project.activities, strict=True):
        model.add(last >= start + one.duration)
    model.minimize(last)
    return model, starts


def _add_resource(
    model: cp_model.CpModel, project: Project, starts: list[cp_model.IntVar], name: str, there: int
) -> None:
    intervals: list[cp_model.IntervalVar] = []
    amounts: list[int] = []
    for start, one in zip(starts, project.activities, strict=True):
        if one.needs.get(name, 0) and one.duration:
            intervals.append(model.new_fixed_size_interval_var(start, one.duration, ""))
            amounts.append(one.needs[name])
    for gap_start, gap_end, gone in missing(project, name):
        intervals.append(model.new_fixed_size_interval_var(gap_start, gap_end - gap_start, ""))
        amounts.append(gone)
    if intervals:
        model.add_cumulative(intervals, amounts, there)
