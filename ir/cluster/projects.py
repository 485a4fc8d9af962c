"""Projects: activities with precedence on renewable resources that have downtime, inside time windows (RCPSP)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

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


def earliest_starts(project: Project) -> list[int]:
    """Return when every activity can start at the earliest: release, paths before it, and downtime it cannot stand."""
    starts = [_alone(project, one, one.release) for one in project.activities]
    for _ in project.activities:
        before_pass = list(starts)
        for number, one in enumerate(project.activities):
            for before in one.after:
                ready = starts[before] + project.activities[before].duration
                if ready > starts[number]:
                    starts[number] = _alone(project, one, ready)
        if starts == before_pass:
            break
    return starts


def tails_of(project: Project) -> list[int]:
    """Return the longest path from the start of every activity to the end."""
    tails = [one.duration for one in project.activities]
    for _ in project.activities:
        before_pass = list(tails)
        for number in reversed(range(len(tails))):
            for before in project.activities[number].after:
                tails[before] = max(tails[before], project.activities[before].duration + tails[number])
        if tails == before_pass:
            break
    return tails


def time_bound(project: Project) -> int:
    """Return a bound on the makespan that needs no search.

    The longest path, with releases and downtime; and for every resource, time and tail, when the work that cannot begin
    before that time can be through, if the resource is used up to what downtime leaves of it, and the tail after it.
    """
    heads, tails = earliest_starts(project), tails_of(project)
    paths = [head + tail for head, tail in zip(heads, tails, strict=True)]
    return max([0, *paths, *(_work_bound(project, heads, tails, name) for name in sorted(project.capacity))])


def _alone(project: Project, one: Activity, ready: int) -> int:
    """Return the earliest start from `ready` on at which the activity fits, were it the only one."""
    if not one.duration:
        return ready
    busy = [
        (begin, end)
        for name, need in one.needs.items()
        if need
        for begin, end, gone in missing(project, name)
        if need > project.capacity[name] - gone
    ]
    start = ready
    for begin, end in sorted(busy):
        if begin < start + one.duration and end > start:
            start = end
    return start


def missing(project: Project, name: str) -> list[tuple[int, int, int]]:
    """Return (from, to, amount missing) in pieces, overlapping downtime added up, never more than there is."""
    gaps = [gap for gap in project.downtime if gap.resource == name]
    moments = sorted({moment for gap in gaps for moment in (gap.start, gap.end)})
    pieces: list[tuple[int, int, int]] = []
    for begin, end in pairwise(moments):
        gone = min(project.capacity[name], sum(gap.amount for gap in gaps if gap.start <= begin < gap.end))
        if gone:
            pieces.append((begin, end, gone))
    return pieces


def _work_bound(project: Project, heads: list[int], tails: list[int], name: str) -> int:
    pieces, there = missing(project, name), project.capacity[name]
    asked = sorted(
        (
            (head, tail - one.duration, one.duration * one.needs[name])
            for head, tail, one in zip(heads, tails, project.activities, strict=True)
            if one.duration * one.needs.get(name, 0)
        ),
        reverse=True,
    )
    bound = 0
    for after in {after for _, after, _ in asked}:
        work = 0
        for head, tail, more in asked:
            if tail >= after:
                work += more
                bound = max(bound, _through(pieces, there, head, work) + after)
    return bound


def _through(pieces: list[tuple[int, int, int]], there: int, start: int, work: int) -> int:
    """Return when `work` is through that begins at `start` and uses all that is left."""
    moment = start
    for begin, end, gone in pieces:
        if end <= moment:
            continue
        done = max(0, begin - moment) * there
        if done >= work:
            break
        work, moment = work - done, max(moment, begin)
        left = (end - moment) * (there - gone)
        if left >= work:
            return moment - (-work // (there - gone))
        work, moment = work - left, end
    return moment - (-work // there)
