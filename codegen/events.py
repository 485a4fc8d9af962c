"""A schedule unrolled over iterations: what runs where and when, on rows that never overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from treadle.ir.tile.loop import Loop, Ring
from treadle.ir.tile.schedule import Schedule, lifetime_cycles


@dataclass(frozen=True, slots=True)
class Event:
    """One operation of one iteration on its unit; cycles count from the start of iteration 0.

    `lane` is the row of the unit it is drawn on; the result is there at `ready`.
    """

    operation: str
    unit: str
    lane: int
    iteration: int
    stage: int
    start: int
    end: int
    ready: int


def unrolled(loop: Loop, schedule: Schedule, iterations: Iterable[int]) -> list[Event]:
    """Return the events of the iterations in order of start; events of a unit that overlap get lanes of their own.

    Events that hold their unit for no time are marks on its first lane.
    """
    drawn = [
        Event(
            operation.name,
            operation.unit,
            0,
            iteration,
            schedule.stage(operation.name),
            start := schedule.start_cycles[operation.name] + iteration * schedule.ii_cycles,
            start + operation.occupancy_cycles,
            start + operation.latency_cycles,
        )
        for iteration in iterations
        for operation in loop.operations
    ]
    drawn.sort(key=lambda event: (event.start, event.iteration, event.operation))
    return _in_lanes(drawn)


def _in_lanes(events: list[Event]) -> list[Event]:
    free_at: dict[str, list[int]] = {}
    placed: list[Event] = []
    for event in events:
        lanes = free_at.setdefault(event.unit, [0])
        if event.end == event.start:
            placed.append(event)
            continue
        lane = next((index for index, free in enumerate(lanes) if free <= event.start), len(lanes))
        if lane == len(lanes):
            lanes.append(0)
        lanes[lane] = max(lanes[lane], event.end)
        placed.append(replace(event, lane=lane))
    return placed


def steady_window(schedule: Schedule) -> tuple[int, int]:
    """Return the first interval (from, to cycle) in which every stage runs."""
    begin = (schedule.stages - 1) * schedule.ii_cycles
    return begin, begin + schedule.ii_cycles


def slots_in_use(
    ring: Ring, schedule: Schedule, begin: int, end: int, iterations: Iterable[int]
) -> list[tuple[int, int, int]]:
    """Return how many slots of a ring are held over time, as steps (from, to cycle, slots)."""
    first = schedule.start_cycles[ring.producer]
    held = lifetime_cycles(ring, schedule)
    spans = [(first + i * schedule.ii_cycles, first + i * schedule.ii_cycles + held) for i in iterations]
    cuts = sorted({begin, end, *(cut for span in spans for cut in span if begin < cut < end)})
    return [(left, right, sum(a <= left < b for a, b in spans)) for left, right in pairwise(cuts)]
