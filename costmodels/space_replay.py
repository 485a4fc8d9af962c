"""A step over memory spaces, section by section: kernels in turn, copies beside them, stalls where a copy is late.

Each direction of a link serves the copy with the earliest deadline first and may interrupt one for another. A section
ends when its kernel is done and every copy due by its end has arrived. Whole nanoseconds.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from treadle.ir.layout.memory_spaces import SpacesProblem
from treadle.ir.layout.space_modes import Way
from treadle.ir.layout.space_plan import SpacesPlan, gap_after


@dataclass(frozen=True, slots=True)
class StepTime:
    """What a step takes, and of what: `step_ns = kernels_ns + rerun_ns + stall_ns`."""

    step_ns: int
    kernels_ns: int
    rerun_ns: int
    stall_ns: int
    ends_ns: tuple[int, ...]
    """End of every section."""
    stalls_ns: tuple[int, ...]
    busy_ns: dict[str, int] = field(default_factory=dict[str, int])
    """Work of each direction of a link (`host in`)."""


def replay(plan: SpacesPlan) -> StepTime:
    """Return the time of a legal plan."""
    problem = plan.problem
    kernels, reruns = kernels_ns(plan), reruns_ns(plan)
    starts, busy = _copies(plan)
    links: dict[str, list[list[int]]] = {name: [] for name in busy}
    clock, ends, stalls = 0, list[int](), list[int]()
    for section in range(len(problem.sections)):
        for name, deadline, duration in starts.get(section, ()):
            heapq.heappush(links[name], [deadline, duration])
        duration = kernels[section] + reruns[section]
        for queue in links.values():
            _serve(queue, duration)
        late = max(
            (sum(left for deadline, left in queue if deadline <= section) for queue in links.values()), default=0
        )
        for queue in links.values():
            _serve(queue, late)
        clock += duration + late
        ends.append(clock)
        stalls.append(late)
    return StepTime(clock, sum(kernels), sum(reruns), sum(stalls), tuple(ends), tuple(stalls), busy)


def _serve(queue: list[list[int]], duration: int) -> None:
    """Let a link work for a while, earliest deadline first."""
    while queue and duration > 0:
        done = min(queue[0][1], duration)
        duration -= done
        queue[0][1] -= done
        if queue[0][1] == 0:
            heapq.heappop(queue)


def kernels_ns(plan: SpacesPlan) -> list[int]:
    """Return the time of each section's kernel, with buffers at home on chip read and written there."""
    problem = plan.problem
    if not plan.homes:
        return list(problem.base_ns)
    home = {each.buffer: each.space for each in plan.homes}
    times: list[int] = []
    for section, each in enumerate(problem.sections):
        traffic = [0] * len(problem.spaces)
        traffic[0] = problem.other_ns[section]
        for buffer in problem.used_by[section]:
            space = home.get(buffer, 0)
            traffic[space] += problem.access_ns[buffer][space]
        times.append(max(each.compute_ns, *traffic, 1))
    return times


def reruns_ns(plan: SpacesPlan) -> list[int]:
    """Return the time of the operators run again before each section."""
    times = [0] * len(plan.problem.sections)
    again = [(move.buffer, move.mode.in_from) for move in plan.moves if move.mode.way is Way.RERUN]
    for buffer, section in [*again, *((each.buffer, each.section) for each in plan.returns)]:
        times[section] += plan.problem.buffers[buffer].rerun_ns or 0
    return times


def _copies(plan: SpacesPlan) -> tuple[dict[int, list[tuple[str, int, int]]], dict[str, int]]:
    """Return (link, deadline, time) of the copies by the section that releases them, and the work of each link."""
    problem: SpacesProblem = plan.problem
    starts: dict[int, list[tuple[str, int, int]]] = {}
    busy: dict[str, int] = {}
    for move in plan.moves:
        if move.mode.way is not Way.COPY:
            continue
        gap = gap_after(problem.buffers[move.buffer], move.buffer, move.before)
        assert gap is not None
        link = problem.spaces[move.mode.space].link_name
        out_ns = problem.copy_ns(move.buffer, move.mode.space, False)
        in_ns = problem.copy_ns(move.buffer, move.mode.space, True)
        starts.setdefault(gap.before + 1, []).append((f"{link} out", move.mode.out_until, out_ns))
        starts.setdefault(move.mode.in_from, []).append((f"{link} in", gap.after - 1, in_ns))
        busy[f"{link} out"] = busy.get(f"{link} out", 0) + out_ns
        busy[f"{link} in"] = busy.get(f"{link} in", 0) + in_ns
    return starts, busy
