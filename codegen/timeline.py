"""A schedule as a Perfetto (Chrome trace event) timeline: units as tracks, iterations one after another.

Format: "Trace Event Format", complete events (`ph` X) and metadata (`ph` M). One cycle is shown as one microsecond.
"""

from __future__ import annotations

import json
from typing import Any

from treadle.ir.tile.kernel import KernelPlan

ITERATIONS = 4
"""Iterations shown: enough to see the steady state of three stages."""


def timeline_json(kernel: KernelPlan, iterations: int = ITERATIONS) -> str:
    """Return the trace of the first iterations of a kernel's schedule as JSON; same kernel, same text."""
    units = [unit.name for unit in kernel.loop.units]
    tracks = {name: position + 1 for position, name in enumerate(units)}
    events: list[dict[str, Any]] = [_label(0, "process_name", f"{kernel.name} (1 us = 1 cycle)")]
    events += [_label(track, "thread_name", name) for name, track in tracks.items()]
    for iteration in range(iterations):
        events += _iteration(kernel, tracks, iteration)
    facts = {"ii_cycles": kernel.schedule.ii_cycles, "length_cycles": kernel.schedule.length_cycles}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": facts}, indent=1) + "\n"


def _iteration(kernel: KernelPlan, tracks: dict[str, int], iteration: int) -> list[dict[str, Any]]:
    schedule = kernel.schedule
    events: list[dict[str, Any]] = []
    for operation in sorted(kernel.loop.operations, key=lambda op: (schedule.start_cycles[op.name], op.name)):
        start = schedule.start_cycles[operation.name] + iteration * schedule.ii_cycles
        events.append(
            {
                "name": operation.name,
                "cat": f"stage {schedule.stage(operation.name)}",
                "ph": "X",
                "pid": 0,
                "tid": tracks[operation.unit],
                "ts": start,
                "dur": max(1, operation.occupancy_cycles),
                "args": {
                    "iteration": iteration,
                    "stage": schedule.stage(operation.name),
                    "slot": schedule.slot(operation.name),
                    "latency_cycles": operation.latency_cycles,
                },
            }
        )
    return events


def _label(track: int, kind: str, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 0, "tid": track, "args": {"name": name}}
