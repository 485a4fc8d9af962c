"""The best schedule of a tiny loop by trying everything: an oracle for tests and benchmarks, without a solver.

Slots are tried for operations on limited units, depths for rings; what remains is a least fixpoint: the earliest start
of every operation that its arcs and its slot allow, which is earliest for all operations at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from treadle.ir.tile.constraints import Arc, dependence_arc, depth_limit, free_bytes, ring_arc
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.schedule import Schedule, length_of


def exhaustive(loop: Loop, most_ii: int) -> Schedule | None:
    """Return the schedule of least interval, then length, then ring bytes; None if none has an interval <= `most_ii`.

    Work grows as interval ** (operations on limited units): keep loops to about eight operations.
    """
    for ii in range(1, most_ii + 1):
        best = min(schedules(loop, ii), key=lambda schedule: _rank(loop, schedule), default=None)
        if best is not None:
            return best
    return None


def schedules(loop: Loop, ii: int) -> Iterator[Schedule]:
    """Yield the earliest schedule of every choice of slots and ring depths at one interval."""
    limited = {unit.name: unit.count for unit in loop.units if unit.count is not None}
    placed = [v for v, op in enumerate(loop.operations) if op.unit in limited and op.occupancy_cycles]
    fixed = [dependence_arc(loop, position) for position in range(len(loop.dependences))]
    depth_choices = list(_depths(loop))
    for slots in product(range(ii), repeat=len(placed)):
        chosen = dict(zip(placed, slots, strict=True))
        if not _units_fit(loop, ii, chosen, limited):
            continue
        for depths in depth_choices:
            rings = [
                ring_arc(loop, ring, position, depths[ring.name])
                for ring in loop.rings
                for position in range(len(ring.readers))
            ]
            starts = _earliest(loop, ii, chosen, [*fixed, *rings])
            if starts is not None:
                named = {op.name: start for op, start in zip(loop.operations, starts, strict=True)}
                yield Schedule(loop.name, ii, named, length_of(loop, named), depths)


def _rank(loop: Loop, schedule: Schedule) -> tuple[int, int]:
    return schedule.length_cycles, sum(ring.slot_bytes * schedule.ring_depths[ring.name] for ring in loop.rings)


def _depths(loop: Loop) -> Iterator[dict[str, int]]:
    names = [ring.name for ring in loop.rings]
    for depths in product(*(range(1, depth_limit(loop, ring) + 1) for ring in loop.rings)):
        chosen = dict(zip(names, depths, strict=True))
        if all(
            sum(ring.slot_bytes * chosen[ring.name] for ring in loop.rings if ring.memory == capacity.memory)
            <= free_bytes(loop, capacity.memory)
            for capacity in loop.capacities
        ):
            yield chosen


def _units_fit(loop: Loop, ii: int, slots: dict[int, int], limited: dict[str, int]) -> bool:
    use: dict[tuple[str, int], int] = {}
    for vertex, slot in slots.items():
        operation = loop.operations[vertex]
        for cycle in range(operation.occupancy_cycles):
            key = (operation.unit, (slot + cycle) % ii)
            use[key] = use.get(key, 0) + 1
            if use[key] > limited[operation.unit]:
                return False
    return True


def _earliest(loop: Loop, ii: int, slots: dict[int, int], arcs: list[Arc]) -> list[int] | None:
    starts = [slots.get(vertex, 0) for vertex in range(len(loop.operations))]
    steepest = max([0, *(arc.delay_cycles - ii * arc.distance for arc in arcs)]) + ii
    last = steepest * (len(starts) + 1)
    changed = True
    while changed:
        changed = False
        for arc in arcs:
            reach = starts[arc.source] + arc.delay_cycles - ii * arc.distance
            if reach > starts[arc.target]:
                slot = slots.get(arc.target)
                starts[arc.target] = reach if slot is None else reach + (slot - reach) % ii
                changed = True
                if starts[arc.target] > last:
                    return None
    return starts
