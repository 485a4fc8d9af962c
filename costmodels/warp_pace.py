"""Why a warp program does not run at its schedule's interval: the program is run again with one thing changed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from treadle.costmodels.warp_lowering import TOLERANCE
from treadle.costmodels.warp_simulator import steady_cycles
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.program import Action, Step, WarpProgram

MORE_SLOTS = 4
"""Slots that every handoff gets in a run that asks whether they are what is missing."""


def why_off(
    lowered: WarpProgram, warps: WarpLoop, made: WarpSchedule, facts: Facts, steady: float, least_ii: int
) -> str:
    """Return why the steady state of a warp program is off its schedule's interval; empty within 1 %.

    Args:
        lowered: warp program of `made`.
        warps: the loop.
        made: its schedule.
        facts: what its operations read and write.
        steady: simulated cycles of an iteration.
        least_ii: what the interval is proven to be at least.
    """
    ii = made.schedule.ii_cycles
    if abs(steady / ii - 1) <= TOLERANCE:
        return ""
    if steady < ii:
        if least_ii < ii:
            return f"faster: the interval is open (at least {least_ii}), and queues do better than the schedule found"
        return "faster: the interval is the model's least, and a rule of the model does not hold its program back"
    enough = (1 + TOLERANCE) * ii
    handed = [buffer for buffer in lowered.buffers if _handed(buffer.name, warps, facts)]
    if handed and steady_cycles(_deeper(lowered, {buffer.name for buffer in handed}), warps, facts) <= enough:
        slots = ", ".join(f"`{b.name}` {b.slots}" for b in handed if b.slot_bytes)
        return f"slower: memory holds too few slots for what groups hand over ({slots})"
    if steady_cycles(lowered, warps, replace(facts, signal_cycles=0, turn_cycles=0)) <= enough:
        return "slower: signals of barriers that the schedule does not count"
    draining = {queue.name for queue in lowered.queues if queue.drains}
    if draining and steady_cycles(_without_waits(lowered, draining), warps, facts) <= enough:
        return f"slower: {', '.join(f'`{name}`' for name in sorted(draining))} can only be waited for as a whole"
    unit, share = _busiest(warps, ii)
    return f"slower: groups share `{unit}`, {share:.0%} busy, in the order in which they come"


def _handed(buffer: str, warps: WarpLoop, facts: Facts) -> bool:
    """Whether a buffer holds what groups hand over, neither a ring's slots nor accumulators."""
    return buffer not in {ring.name for ring in warps.loop.rings} and buffer not in {b.name for b in facts.buffers}


def _deeper(lowered: WarpProgram, names: set[str]) -> WarpProgram:
    buffers = tuple(replace(b, slots=b.slots + MORE_SLOTS) if b.name in names else b for b in lowered.buffers)
    return replace(lowered, buffers=buffers)


def _without_waits(lowered: WarpProgram, queues: set[str]) -> WarpProgram:
    """Return a program for timing only: operands are still waited for by whoever reads them."""

    def kept(step: Step) -> Step:
        return tuple(i for i in step if i.action is not Action.WAIT or i.subject not in queues)

    groups = tuple(
        replace(
            group,
            prologue=tuple(map(kept, group.prologue)),
            steady=kept(group.steady),
            epilogue=tuple(map(kept, group.epilogue)),
        )
        for group in lowered.groups
    )
    return replace(lowered, groups=groups)


def _busiest(warps: WarpLoop, ii: int) -> tuple[str, float]:
    busy: dict[str, int] = defaultdict(int)
    for operation in warps.loop.operations:
        busy[operation.unit] += operation.occupancy_cycles
    shares = {unit.name: busy[unit.name] / (ii * unit.count) for unit in warps.loop.units if unit.count}
    return max(shares.items(), key=lambda item: (item[1], item[0]))
