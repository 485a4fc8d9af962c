"""Why no interval lets a loop run: memory, rings, registers of warp groups, assignments to them. Without any search.

What is said here is said of every interval: at a long one iterations hardly overlap, which is when memory and registers
are needed least, and a still longer one changes nothing.
"""

from __future__ import annotations

from treadle.ir.tile.assignments import WalkTooLong, any_left
from treadle.ir.tile.claims import Refused, least_ring_bytes
from treadle.ir.tile.constraints import arcs, free_bytes
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.register_bound import register_bound
from treadle.ir.tile.warps import WarpLoop


def impossible(loop: Loop) -> str:
    """Return why a loop runs at no interval, in words; empty when nothing says so."""
    interval = _long(loop)
    try:
        for count in (_one_slot_each, least_ring_bytes):
            for memory in (capacity.memory for capacity in loop.capacities):
                needed, free = count(loop, interval, memory), max(0, free_bytes(loop, memory))
                if needed > free:
                    return f"rings need at least {needed} bytes of `{memory}` together, and {free} are free"
    except Refused:
        return "rings are too shallow at any interval: one has fewer slots than its readers' distances need"
    return ""


def _one_slot_each(loop: Loop, interval: int, memory: str | None) -> int:
    return sum(ring.slot_bytes for ring in loop.rings if ring.memory == memory)


def impossible_over_groups(warps: WarpLoop, *, walk: bool) -> str:
    """Return why a loop runs over warp groups at no interval, in words; empty when nothing says so.

    With `walk` the assignments to groups are gone through too, which takes up to a few seconds.
    """
    reason = impossible(warps.loop)
    if reason:
        return reason
    limits, interval = warps.limits, _long(warps.loop, sum(crossing.delay_cycles for crossing in warps.crossings))
    needed, values = register_bound(warps, interval, None)
    room = min(limits.registers_per_group, limits.registers_of_file - limits.role_registers * len(warps.roles))
    if needed > room:
        names = ", ".join(f"`{name}`" for name in values)
        return (
            f"{names} need {needed - limits.fixed_registers} registers per thread of one group together, "
            f"and it has {room - limits.fixed_registers} besides {limits.fixed_registers} fixed ones"
        )
    if walk and _unassignable(warps, interval):
        return (
            f"no assignment of its operations to at most {limits.most_groups} groups leaves enough registers and memory"
        )
    return ""


def _long(loop: Loop, delays: int = 0) -> int:
    """Return an interval beyond which no memory and no registers are saved."""
    work = sum(max(operation.occupancy_cycles, operation.latency_cycles) for operation in loop.operations)
    return 2 * max(1, work + delays + sum(max(0, arc.delay_cycles) for arc in arcs(loop)))


def _unassignable(warps: WarpLoop, interval: int) -> bool:
    try:
        return not any_left(warps, interval)
    except WalkTooLong:
        return False
