"""A step over memory spaces as a Perfetto timeline: kernels, stalls, copies by link, bytes by space."""

from __future__ import annotations

import json
from typing import Any

from treadle.costmodels.space_replay import StepTime
from treadle.ir.layout.space_modes import Way
from treadle.ir.layout.space_plan import SpacesPlan, gap_after


def step_timeline(plan: SpacesPlan, time: StepTime) -> str:
    """Return the trace as JSON ("Trace Event Format", times in us); a copy is drawn over its window."""
    problem = plan.problem
    starts = [0, *time.ends_ns[:-1]]
    events: list[dict[str, Any]] = [_named(1, "kernels"), _named(2, "stalls")]
    for section, (start, end) in enumerate(zip(starts, time.ends_ns, strict=True)):
        late = time.stalls_ns[section]
        events.append(_slice(problem.sections[section].name, 1, start, end - late, {"section": section}))
        if late:
            events.append(_slice("copy is late", 2, end - late, end, {"section": section}))
    tracks: dict[str, int] = {}
    for move in plan.moves:
        buffer = problem.buffers[move.buffer]
        gap = gap_after(buffer, move.buffer, move.before)
        if gap is None or move.mode.way is not Way.COPY:
            continue
        space = problem.spaces[move.mode.space].name
        facts = {"size_bytes": buffer.size_bytes}
        for name, low, high in (
            (f"to {space}", gap.before + 1, move.mode.out_until),
            (f"from {space}", move.mode.in_from, gap.after - 1),
        ):
            track = tracks.setdefault(name, 10 + len(tracks))
            events.append(_slice(buffer.id, track, starts[low], time.ends_ns[high], facts))
    events += [_named(track, name) for name, track in tracks.items()]
    events += _occupied(plan, starts)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}) + "\n"


def _occupied(plan: SpacesPlan, starts: list[int]) -> list[dict[str, Any]]:
    """Counters of the bytes that are taken in each space with a capacity."""
    events: list[dict[str, Any]] = []
    for space, each in enumerate(plan.problem.spaces):
        steps: dict[int, int] = {}
        for piece in plan.pieces:
            if piece.space == space:
                size = plan.problem.buffers[piece.buffer].size_bytes
                steps[piece.lower] = steps.get(piece.lower, 0) + size
                steps[piece.upper] = steps.get(piece.upper, 0) - size
        level = 0
        for section in sorted(steps):
            level += steps[section]
            if section < len(starts):
                time_us = starts[section] / 1000
                events.append({"name": each.name, "ph": "C", "pid": 0, "ts": time_us, "args": {"bytes": level}})
    return events


def _slice(name: str, track: int, start: int, end: int, facts: dict[str, Any]) -> dict[str, Any]:
    timed = {"ts": start / 1000, "dur": (end - start) / 1000}
    return {"name": name, "ph": "X", "pid": 0, "tid": track, **timed, "args": facts}


def _named(track: int, name: str) -> dict[str, Any]:
    return {"name": "thread_name", "ph": "M", "pid": 0, "tid": track, "args": {"name": name}}
