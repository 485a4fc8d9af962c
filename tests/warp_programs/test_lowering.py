"""Programs that are to keep their schedule's pace: slots in other places, turns on further units."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.warp_programs.cases import case, needed_slots
from treadle.costmodels.warp_lowering import TOLERANCE, lower_at_pace
from treadle.costmodels.warp_simulator import steady_cycles
from treadle.ir.tile.loop import Capacity
from treadle.ir.tile.warps import WarpLoop
from treadle.ir.warp.check import check_warp_program
from treadle.ir.warp.lower import lower_schedule
from treadle.ir.warp.slots import moved_slots


def _without_room(warps: WarpLoop, memory: str, used_bytes: int) -> WarpLoop:
    capacities = tuple(
        Capacity(c.memory, c.fixed_bytes + used_bytes, c.fixed_bytes) if c.memory == memory else c
        for c in warps.loop.capacities
    )
    return replace(warps, loop=replace(warps.loop, capacities=capacities))


@pytest.mark.parametrize(("name", "machine"), [("gemm", "h100"), ("swiglu", "b200"), ("attention", "b200")])
def test_slots_move_within_memory_and_lifetimes(name: str, machine: str) -> None:
    solved = case(name, machine)
    before = {buffer.name: buffer.slots for buffer in solved.lowered.buffers}
    others = list(moved_slots(solved.lowered, solved.warps, solved.made, solved.facts))
    assert others
    for other in others:
        after = {buffer.name: buffer.slots for buffer in other.buffers}
        more = {name for name in before if after[name] > before[name]}
        assert len(more) == 1
        assert all(after[ring] >= slots for ring, slots in needed_slots(solved.warps, solved.made).items())
        assert check_warp_program(other, solved.warps, solved.made, solved.facts) == []


def test_a_full_memory_gives_slots_only_for_slots() -> None:
    solved = case("gemm", "h100")
    rings = {ring.name: ring.slot_bytes for ring in solved.warps.loop.rings}
    used = sum(b.slots * b.slot_bytes for b in solved.lowered.buffers if b.name in rings)
    full = _without_room(solved.warps, "shared", used)
    for other in moved_slots(solved.lowered, full, solved.made, solved.facts):
        assert sum(b.slots * b.slot_bytes for b in other.buffers if b.name in rings) <= used
        assert check_warp_program(other, full, solved.made, solved.facts) == []


@pytest.mark.parametrize(("name", "machine"), [("attention", "b200"), ("gemm", "h100")])
def test_what_is_tried_is_legal_and_the_fastest_is_taken(name: str, machine: str) -> None:
    """With signals as slow as this no turns and no slots reach the interval."""
    solved = case(name, machine)
    ii = solved.made.schedule.ii_cycles
    facts = replace(solved.facts, signal_cycles=3 * ii)
    plain = lower_schedule(solved.warps, solved.made, facts)
    full = _without_room(solved.warps, "shared", sum(b.slots * b.slot_bytes for b in plain.buffers))
    fixed = replace(plain, buffers=solved.lowered.buffers)
    assert steady_cycles(fixed, full, facts) > (1 + TOLERANCE) * ii
    program, pace = lower_at_pace(full, solved.made, facts)
    assert pace.steady_cycles <= steady_cycles(lower_schedule(full, solved.made, facts), full, facts)
    assert check_warp_program(program, full, solved.made, facts) == []
