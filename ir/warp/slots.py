"""Slots of channels moved from one buffer to another: memory goes where a program that runs waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from treadle.ir.tile.program import Memory
from treadle.ir.tile.schedule import lifetime_cycles
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.facts import MEMORIES, Facts
from treadle.ir.warp.program import Buffer, WarpProgram


def moved_slots(program: WarpProgram, warps: WarpLoop, made: WarpSchedule, facts: Facts) -> Iterator[WarpProgram]:
    """Yield the program with one slot more for a channel, from free memory or from as few slots of another one.

    No ring gets fewer slots than the schedule's lifetimes need, no handoff fewer than it needs at all.
    """
    least = _least_slots(program, warps, made)
    for wanting in (program.buffer(name) for name in least):
        if not wanting.slot_bytes:
            continue
        lacking = wanting.slot_bytes - _free_bytes(program, warps, facts, wanting.memory)
        if lacking <= 0:
            yield _with_slots(program, {wanting.name: wanting.slots + 1})
            continue
        for giving in (program.buffer(name) for name in least if name != wanting.name):
            count = -(-lacking // giving.slot_bytes) if giving.slot_bytes else giving.slots
            if giving.memory is wanting.memory and giving.slots - count >= least[giving.name]:
                yield _with_slots(program, {wanting.name: wanting.slots + 1, giving.name: giving.slots - count})


def _least_slots(program: WarpProgram, warps: WarpLoop, made: WarpSchedule) -> dict[str, int]:
    """Return the fewest slots of every buffer that a channel with full and empty barriers guards."""
    found = {channel.buffer: max(1, channel.primed) for channel in program.channels if not channel.one_way}
    needed = {
        ring.name: -(-lifetime_cycles(ring, made.schedule) // made.schedule.ii_cycles) for ring in warps.loop.rings
    }
    return {name: max(slots, needed.get(name, 1)) for name, slots in found.items()}


def _free_bytes(program: WarpProgram, warps: WarpLoop, facts: Facts, memory: Memory) -> int:
    """Return the bytes of a memory that neither rings nor handoffs take; accumulators are among its fixed bytes."""
    own = {buffer.name for buffer in facts.buffers}
    used = sum(b.slots * b.slot_bytes for b in program.buffers if b.memory is memory and b.name not in own)
    return sum(
        capacity.capacity_bytes - capacity.fixed_bytes - used
        for capacity in warps.loop.capacities
        if MEMORIES.get(capacity.memory, Memory.SHARED) is memory
    )


def _with_slots(program: WarpProgram, slots: dict[str, int]) -> WarpProgram:
    def given(buffer: Buffer) -> Buffer:
        return replace(buffer, slots=slots.get(buffer.name, buffer.slots))

    return replace(program, buffers=tuple(map(given, program.buffers)))
