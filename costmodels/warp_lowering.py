"""The warp program of a schedule that keeps its pace: which units groups use in turns, who gets what memory is left.

The schedule says which operation uses a unit when; a program leaves that to its units, first come first served, and to
barriers. Where it runs slower than scheduled, turns that keep the schedule's order and slots in other places are tried
in short runs of the simulator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf

from treadle.costmodels.warp_interpreter import Stuck
from treadle.costmodels.warp_simulator import SETTLED, Pace, measure_pace, steady_cycles
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.facts import Facts, SharedUnit
from treadle.ir.warp.lower import NoRoomForHandoffs, lower_schedule
from treadle.ir.warp.program import WarpProgram
from treadle.ir.warp.slots import moved_slots

TOLERANCE = 0.01
"""Share of the interval by which the simulated pace may differ from it."""

CROWDED = 0.2
"""Share of the interval from which on a unit is taken to be one that groups may get into each other's way on."""

SHORT_CYCLES = 16
"""Operations that hold a unit for less take no turns: row vectors slip in between."""

MOST_CHANGES = 3
"""How many further turns, or slots in other places, a program gets one after the other."""

Turns = tuple[SharedUnit, ...]


@dataclass(frozen=True, slots=True)
class _Tried:
    """A program with its turns, and its pace in a short run."""

    cycles: float
    turns: Turns
    program: WarpProgram


def lower_at_pace(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> tuple[WarpProgram, Pace]:
    """Return the warp program of a schedule, and its simulated pace.

    Groups take turns on the units of `facts`. Where that does not keep the schedule's pace, since they get into each
    other's way, other turns are tried until one does: on one crowded unit, for all or some groups, beside the turns of
    `facts` or in their place; then, beside the best of them, on any further unit, and slots in other places. The
    fastest is taken.

    Raises:
        NoRoomForHandoffs, Stuck.
    """
    lowered = lower_schedule(warps, made, facts)
    pace = measure_pace(lowered, warps, facts)
    program = _improved(_Tried(pace.steady_cycles, facts.shared_units, lowered), warps, made, facts).program
    return program, pace if program is lowered else measure_pace(program, warps, facts)


def paced_program(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> WarpProgram:
    """Return the program of `lower_at_pace` alone; raises as it does."""
    lowered = lower_schedule(warps, made, facts)
    return _improved(_tried(lowered, warps, facts, facts.shared_units, SETTLED), warps, made, facts).program


def keeps_pace(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> bool:
    """Whether a short run of a schedule's program is at its interval; not where it has no program."""
    try:
        lowered = lower_schedule(warps, made, facts)
    except NoRoomForHandoffs:
        return False
    best = _improved(_tried(lowered, warps, facts, facts.shared_units, SETTLED // 2), warps, made, facts)
    return abs(best.cycles / made.schedule.ii_cycles - 1) <= TOLERANCE


def _improved(best: _Tried, warps: WarpLoop, made: WarpSchedule, facts: Facts) -> _Tried:
    """Return a program itself where it keeps the pace, else one with other turns and slots."""
    enough = (1 + TOLERANCE) * made.schedule.ii_cycles
    if best.cycles <= enough:
        return best
    best = _fastest(best, _with_other_turns(warps, made, facts), enough)
    for _ in range(MOST_CHANGES):
        if best.cycles <= enough:
            break
        changed = _fastest(best, _changed(warps, made, facts, best), enough)
        if changed is best:
            break
        best = changed
    return best


def _fastest(best: _Tried, others: Iterator[_Tried], enough: float) -> _Tried:
    """Return the first program that is fast enough, else the fastest."""
    for other in others:
        best = other if other.cycles < best.cycles else best
        if best.cycles <= enough:
            break
    return best


def _with_other_turns(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> Iterator[_Tried]:
    """Yield crowded units' turns, the busiest first; all groups, then some of them; with and without those of facts."""
    for unit, groups in _shared_units(warps, made, CROWDED).items():
        others = tuple(shared for shared in facts.shared_units if shared.unit != unit)
        for count in range(len(groups), 1, -1):
            for some in combinations(groups, count):
                turn = SharedUnit(unit, some, SHORT_CYCLES)
                for turns in dict.fromkeys(((*others, turn), (turn,))):
                    yield _with_turns(warps, made, facts, turns)


def _changed(warps: WarpLoop, made: WarpSchedule, facts: Facts, best: _Tried) -> Iterator[_Tried]:
    """Yield a program with one slot in another place, or with turns on one more unit, that hardly busy ones included:
    two groups that use a unit slice by slice at one time are both late.
    """
    for program in moved_slots(best.program, warps, made, facts):
        yield _tried(program, warps, facts, best.turns, SETTLED)
    for unit, groups in _shared_units(warps, made, 0.0).items():
        if unit not in {shared.unit for shared in best.turns}:
            yield _with_turns(warps, made, facts, (*best.turns, SharedUnit(unit, groups, SHORT_CYCLES)))


def _with_turns(warps: WarpLoop, made: WarpSchedule, facts: Facts, turns: Turns) -> _Tried:
    program = lower_schedule(warps, made, replace(facts, shared_units=turns))
    return _tried(program, warps, facts, turns, SETTLED // 2)


def _tried(program: WarpProgram, warps: WarpLoop, facts: Facts, turns: Turns, settled: int) -> _Tried:
    """Return a program with its pace; operations that take no cycles may be out of order, so that it never ends."""
    try:
        cycles = steady_cycles(program, warps, facts, settled)
    except Stuck:
        cycles = inf
    return _Tried(cycles, turns, program)


def _shared_units(warps: WarpLoop, made: WarpSchedule, least_share: float) -> dict[str, tuple[int, ...]]:
    """Return the units that are busy for such a share of the interval, busiest first, with the groups on them."""
    busy: dict[str, int] = defaultdict(int)
    groups: dict[str, set[int]] = defaultdict(set)
    for operation in warps.loop.operations:
        if operation.name in made.groups and operation.occupancy_cycles:
            busy[operation.unit] += operation.occupancy_cycles
            if operation.occupancy_cycles >= SHORT_CYCLES:
                groups[operation.unit].add(made.groups[operation.name])
    full = [unit for unit in busy if len(groups[unit]) > 1 and busy[unit] >= least_share * made.schedule.ii_cycles]
    return {unit: tuple(sorted(groups[unit])) for unit in sorted(full, key=lambda unit: (-busy[unit], unit))}
