"""A schedule of operators as a Perfetto (Chrome trace event) timeline: a track per nano-batch, a counter per stream.

Format: "Trace Event Format": complete events (`ph` X), counters (`C`), metadata (`M`); times are in us.
"""

from __future__ import annotations

import json
from typing import Any

from treadle.ir.operator.loop import OperatorLoop
from treadle.ir.operator.schedule import OperatorSchedule, stream_profile

PERIODS = 3
"""Periods shown."""


def operator_timeline(loop: OperatorLoop, schedule: OperatorSchedule, periods: int = PERIODS) -> str:
    """Return the trace of the first iterations as JSON; the counters show the steady state."""
    tracks = _tracks(loop, schedule)
    events: list[dict[str, Any]] = [_label(0, "process_name", loop.name)]
    names = dict.fromkeys(tracks.values())
    events += [
        _label(number, "thread_name", f"{batch} {lane}".strip()) for number, (batch, lane) in enumerate(names, 1)
    ]
    numbers = {track: number for number, track in enumerate(names, 1)}
    for iteration in range(periods if loop.periodic else 1):
        for operator in loop.operators:
            events.append(_slice(loop, schedule, operator.name, iteration, numbers[tracks[operator.name]]))
    for stream in loop.streams:
        for iteration in range(periods if loop.periodic else 1):
            for low, _, load in stream_profile(loop, schedule, stream.name):
                time_us = (low + iteration * schedule.period_ns) / 1000
                counted = {"share": load / stream.capacity_milli}
                events.append({"name": stream.name, "ph": "C", "pid": 0, "ts": time_us, "args": counted})
    facts = {"period_us": schedule.period_ns / 1000}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": facts}, indent=1) + "\n"


def _tracks(loop: OperatorLoop, schedule: OperatorSchedule) -> dict[str, tuple[str, str]]:
    """Return (nano-batch, lane) by operator: what overlaps within a nano-batch gets a lane of its own."""
    ends: dict[tuple[str, str], int] = {}
    tracks: dict[str, tuple[str, str]] = {}
    for name in sorted(loop.index, key=lambda name: (schedule.start_ns[name], loop.index[name])):
        lane_name = name.partition(".")[0] if "." in name else "operators"
        batch = f"nano-batch {lane_name}" if lane_name.isdecimal() else lane_name
        lane = 0
        while ends.get((batch, "'" * lane), 0) > schedule.start_ns[name]:
            lane += 1
        tracks[name] = (batch, "'" * lane)
        ends[tracks[name]] = schedule.start_ns[name] + schedule.mode(loop, name).duration_ns
    return dict(sorted(tracks.items(), key=lambda item: item[1]))


def _slice(loop: OperatorLoop, schedule: OperatorSchedule, name: str, iteration: int, track: int) -> dict[str, Any]:
    mode = schedule.mode(loop, name)
    return {
        "name": name,
        "cat": mode.name,
        "ph": "X",
        "dur": mode.duration_ns / 1000,
        "pid": 0,
        "tid": track,
        "ts": (schedule.start_ns[name] + iteration * schedule.period_ns) / 1000,
        "args": {"layer": iteration, "mode": mode.name, **mode.shares_milli},
    }


def _label(track: int, kind: str, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 0, "tid": track, "args": {"name": name}}
