"""Schedules without search: the serial generation scheme (Kolisch 1996) under many priority rules."""

from __future__ import annotations

import random
from bisect import bisect_right

from treadle.ir.cluster.projects import Project, check, earliest_starts, makespan, tails_of

_PLACED = 6000
"""Activities that are placed in orders beside the fixed rules: a hundred orders of 60 activities, fewer of more."""


def serial_schedule(project: Project, seed: int = 0) -> tuple[int, ...] | None:
    """Return the earliest-ending legal schedule of all orders tried; None if none of them keeps every deadline."""
    tails = tails_of(project)
    due = _latest_ends(project)
    source = random.Random(seed)
    longest = max(tails, default=0)
    rules: list[list[float]] = [
        [-float(tail) for tail in tails],
        [float(end) for end in due],
        [float(start) for start in earliest_starts(project)],
    ]
    for sample in range(_PLACED // max(1, len(tails))):
        rules.append([one * source.uniform(0.6, 1.0) + longest * 0.02 * source.random() for one in rules[sample % 2]])
    best: tuple[int, ...] | None = None
    for rule in rules:
        starts = _by(project, rule)
        if starts is None:
            return None
        if (best is None or makespan(project, starts) < makespan(project, best)) and not check(project, starts):
            best = starts
    return best


def _by(project: Project, rule: list[float]) -> tuple[int, ...] | None:
    """Place activities one by one as early as they fit, least `rule` first; None if precedence has a cycle."""
    profile = _Profile(project)
    starts: dict[int, int] = {}
    waiting = set(range(len(project.activities)))
    while waiting:
        ready = [n for n in waiting if all(before in starts for before in project.activities[n].after)]
        if not ready:
            return None
        number = min(ready, key=lambda n: (rule[n], n))
        one = project.activities[number]
        after = (starts[before] + project.activities[before].duration for before in one.after)
        starts[number] = profile.place(max([one.release, *after]), one.duration, one.needs)
        waiting.remove(number)
    return tuple(starts[number] for number in range(len(project.activities)))


class _Profile:
    """What is free of every resource over time, in pieces; the last one lasts forever."""

    def __init__(self, project: Project) -> None:
        self._times = [0]
        self._free = [dict(project.capacity)]
        for gap in project.downtime:
            self._take(gap.start, gap.end, {gap.resource: gap.amount})

    def place(self, ready: int, duration: int, needs: dict[str, int]) -> int:
        """Take the needs from the earliest start on at which they fit; what takes no time takes no room."""
        if not duration:
            return ready
        start, piece = ready, bisect_right(self._times, ready) - 1
        while piece < len(self._times) and self._times[piece] < start + duration:
            free = self._free[piece]
            piece += 1
            if any(need > free[name] for name, need in needs.items() if need):
                start = self._times[piece]
        self._take(start, start + duration, needs)
        return start

    def _take(self, start: int, end: int, amounts: dict[str, int]) -> None:
        first, last = self._cut(start), self._cut(end)
        for free in self._free[first:last]:
            for name, amount in amounts.items():
                if amount:
                    free[name] -= amount

    def _cut(self, moment: int) -> int:
        """Return the index of the piece that begins at a moment."""
        index = bisect_right(self._times, moment) - 1
        if self._times[index] == moment:
            return index
        self._times.insert(index + 1, moment)
        self._free.insert(index + 1, dict(self._free[index]))
        return index + 1


def _latest_ends(project: Project) -> list[int]:
    """Return when every activity must have ended for all deadlines behind it."""
    ends = [project.horizon if one.deadline is None else one.deadline for one in project.activities]
    for _ in project.activities:
        before_pass = list(ends)
        for number in reversed(range(len(ends))):
            for before in project.activities[number].after:
                ends[before] = min(ends[before], ends[number] - project.activities[number].duration)
        if ends == before_pass:
            break
    return ends
