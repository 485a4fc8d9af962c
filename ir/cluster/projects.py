"""Projects: activities with precedence on renewable resources that have downtime, inside time windows (RCPSP)."""

from __future__ import annotations

from dataclasses import dataclass, field

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Activity:
    """How long an activity takes, what it needs all the while, and when it may run: not before, not after."""

    duration: int
    needs: dict[str, int] = field(default_factory=dict[str, int])
    after: tuple[int, ...] = ()
    """Activities that must have ended."""
    release: int = 0
    deadline: int | None = None


@dataclass(frozen=True, slots=True)
class Downtime:
    """So much of a resource is missing from `start` to `end`."""

    resource: str
    start: int
    end: int
    amount: int


@dataclass(frozen=True, slots=True)
class Project:
    """Activities, what there is of every resource, and downtime. Activities are not interrupted."""

    activities: tuple[Activity, ...]
    capacity: dict[str, int]
    downtime: tuple[Downtime, ...] = ()

    def __post_init__(self) -> None:
        for number, one in enumerate(self.activities):
            if one.duration < 0 or one.release < 0 or any(not 0 <= b < len(self.activities) for b in one.after):
                raise InvalidValue(message=f"activity {number} has a negative time or follows one that does not exist")
            if missing := sorted(name for name, need in one.needs.items() if need > self.capacity.get(name, 0)):
                raise InvalidValue(message=f"activity {number} needs more of {', '.join(missing)} than there is")
        for gap in self.downtime:
            if gap.resource not in self.capacity or not 0 <= gap.start < gap.end or gap.amount < 0:
                raise InvalidValue(message=f"downtime of `{gap.resource}` from {gap.start} to {gap.end}")

    @property
    def horizon(self) -> int:
        """A time by which everything can have ended, if it can at all."""
        last = max([0, *(gap.end for gap in self.downtime), *(one.release for one in self.activities)])
        return last + sum(one.duration for one in self.activities)


def makespan(project: Project, starts: tuple[int, ...]) -> int:
    """Return when the last activity ends."""
    return max((s + one.duration for s, one in zip(starts, project.activities, strict=True)), default=0)


def check(project: Project, starts: tuple[int, ...]) -> list[Finding]:
    """Return why a schedule is not legal.

    Codes: TRD460 form, TRD461 a resource overfull, TRD462 outside the window, TRD463 an activity before its time.
    """
    if len(starts) != len(project.activities) or min(starts, default=0) < 0:
        return [Finding("TRD460", "schedule", "one start per activity, not negative")]
    findings: list[Finding] = []
    for number, (start, one) in enumerate(zip(starts, project.activities, strict=True)):
        end, where = start + one.duration, f"activity {number}"
        if start < one.release or (one.deadline is not None and end > one.deadline):
            findings.append(
                Finding("TRD462", where, "outside its window", f"{one.release}..{one.deadline}", str(start))
            )
        for before in one.after:
            if starts[before] + project.activities[before].duration > start:
                findings.append(Finding("TRD463", where, f"starts before activity {before} has ended"))
    for name, there in sorted(project.capacity.items()):
        if over := _overfull(project, starts, name, there):
            findings.append(over)
    return findings


def _overfull(project: Project, starts: tuple[int, ...], name: str, there: int) -> Finding | None:
    moments = sorted({*starts, *(gap.start for gap in project.downtime if gap.resource == name)})
    for moment in moments:
        used = sum(
            one.needs.get(name, 0)
            for start, one in zip(starts, project.activities, strict=True)
            if start <= moment < start + one.duration
        )
        gone = sum(g.amount for g in project.downtime if g.resource == name and g.start <= moment < g.end)
        if used and used > there - gone:
            return Finding("TRD461", name, f"overfull at {moment}", f"<= {there - gone}", str(used))
    return None


def time_bound(project: Project) -> int:
    """Return a bound on the makespan: the longest path with releases, or a resource's work over its capacity."""
    ends = [one.release + one.duration for one in project.activities]
    for _ in project.activities:
        for number, one in enumerate(project.activities):
            for before in one.after:
                ends[number] = max(ends[number], ends[before] + one.duration)
    work = [
        -(-sum(one.duration * one.needs.get(name, 0) for one in project.activities) // there)
        for name, there in project.capacity.items()
        if there
    ]
    return max([0, *ends, *work])
