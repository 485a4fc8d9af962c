"""Task graphs on unlike processors: when and where every task runs, and when the last one ends.

A task's time depends on its processor; data between tasks on different processors takes time, on one processor none
(the model of HEFT: Topcuoglu, Hariri and Wu, IEEE TPDS 2002).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Transfer:
    """Data from one task to a later one: how long it takes between two processors."""

    source: int
    target: int
    time: int


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """`times[task][processor]` in any one unit, and the transfers, which form no cycle."""

    times: tuple[tuple[int, ...], ...]
    transfers: tuple[Transfer, ...]

    def __post_init__(self) -> None:
        if len({len(row) for row in self.times}) > 1 or any(time < 0 for row in self.times for time in row):
            raise InvalidValue(message="every task needs one time per processor, none of them negative")
        for one in self.transfers:
            if not (0 <= one.source < len(self.times) and 0 <= one.target < len(self.times)) or one.time < 0:
                raise InvalidValue(message=f"the transfer {one.source} -> {one.target} names no tasks of the graph")
        if len(self.order) < len(self.times):
            raise InvalidValue(message="the transfers form a cycle")

    @property
    def order(self) -> tuple[int, ...]:
        """Tasks so that every transfer leads to a later one; those of cycles are missing."""
        waiting = [sum(one.target == task for one in self.transfers) for task in range(len(self.times))]
        ready = [task for task, count in enumerate(waiting) if not count]
        done: list[int] = []
        while ready:
            done.append(ready.pop(0))
            for one in self.transfers:
                if one.source == done[-1]:
                    waiting[one.target] -= 1
                    if not waiting[one.target]:
                        ready.append(one.target)
        return tuple(done)


@dataclass(frozen=True, slots=True)
class Run:
    """Where and when a task starts."""

    processor: int
    start: int


def makespan(graph: TaskGraph, runs: tuple[Run, ...]) -> int:
    """Return when the last task ends."""
    return max((run.start + graph.times[task][run.processor] for task, run in enumerate(runs)), default=0)


def check(graph: TaskGraph, runs: tuple[Run, ...]) -> list[Finding]:
    """Return why a schedule is not legal. Codes: TRD460 form, TRD461 two tasks at once, TRD463 data that is late."""
    processors = len(graph.times[0]) if graph.times else 0
    if len(runs) != len(graph.times) or any(not 0 <= r.processor < processors or r.start < 0 for r in runs):
        return [Finding("TRD460", "schedule", "one run per task, on an existing processor")]
    findings: list[Finding] = []
    ends = [run.start + graph.times[task][run.processor] for task, run in enumerate(runs)]
    for one in graph.transfers:
        apart = runs[one.source].processor != runs[one.target].processor
        ready = ends[one.source] + one.time * apart
        if runs[one.target].start < ready:
            where = f"task {one.target}"
            findings.append(Finding("TRD463", where, "starts early", f">= {ready}", str(runs[one.target].start)))
    for processor in range(processors):
        queue = sorted((run.start, ends[t], t) for t, run in enumerate(runs) if run.processor == processor)
        busy = [entry for entry in queue if entry[1] > entry[0]]
        for (_, end, task), (start, _, later) in pairwise(busy):
            if start < end:
                findings.append(Finding("TRD461", f"processor {processor}", f"tasks {task} and {later} overlap"))
    return findings


def path_bound(graph: TaskGraph) -> int:
    """Return a bound on the makespan: the longest path with every task at its fastest, or the work per processor."""
    fastest = [min(row) for row in graph.times]
    ends = [0] * len(fastest)
    for task in graph.order:
        ready = max((ends[one.source] for one in graph.transfers if one.target == task), default=0)
        ends[task] = ready + fastest[task]
    processors = len(graph.times[0]) if graph.times else 1
    return max([0, *ends, -(-sum(fastest) // max(1, processors))])
