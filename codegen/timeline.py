"""A schedule as a Perfetto (Chrome trace event) timeline: units as tracks, iterations one after another.

Format: "Trace Event Format": complete events (`ph` X), instants (`i`), metadata (`M`). One cycle is shown as 1 us.
"""

from __future__ import annotations

import json
from typing import Any

from treadle.codegen.events import Event, unrolled
from treadle.ir.tile.kernel import KernelPlan

ITERATIONS = 4
"""Iterations shown: enough to see the steady state of three stages."""


def timeline_json(kernel: KernelPlan, iterations: int = ITERATIONS) -> str:
    """Return the trace of the first iterations of a kernel's schedule as JSON; same kernel, same text."""
    drawn = unrolled(kernel.loop, kernel.schedule, range(iterations))
    tracks = _tracks(kernel, drawn)
    events: list[dict[str, Any]] = [_label(0, "process_name", f"{kernel.name} (1 us = 1 cycle)")]
    for (unit, lane), track in tracks.items():
        events.append(_label(track, "thread_name", unit + (f" {lane + 1}" if lane else "")))
    events += [_slice(kernel, event, tracks[event.unit, event.lane]) for event in drawn]
    facts = {"ii_cycles": kernel.schedule.ii_cycles, "length_cycles": kernel.schedule.length_cycles}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": facts}, indent=1) + "\n"


def _tracks(kernel: KernelPlan, drawn: list[Event]) -> dict[tuple[str, int], int]:
    """Return a track number per unit and lane: slices of a track must not overlap."""
    order = {unit.name: position for position, unit in enumerate(kernel.loop.units)}
    used = sorted({(event.unit, event.lane) for event in drawn}, key=lambda row: (order[row[0]], row[1]))
    return {row: number for number, row in enumerate(used, 1)}


def _slice(kernel: KernelPlan, event: Event, track: int) -> dict[str, Any]:
    """Return a complete event, or an instant for an operation that holds its unit for no time."""
    held = event.end - event.start
    return {
        "name": event.operation,
        "cat": f"stage {event.stage}",
        **({"ph": "X", "dur": held} if held else {"ph": "i", "s": "t"}),
        "pid": 0,
        "tid": track,
        "ts": event.start,
        "args": {
            "iteration": event.iteration,
            "stage": event.stage,
            "slot": kernel.schedule.slot(event.operation),
            "latency_cycles": event.ready - event.start,
        },
    }


def _label(track: int, kind: str, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 0, "tid": track, "args": {"name": name}}
