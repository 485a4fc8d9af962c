"""Replay of a warp schedule: lowered to a warp program, checked, and timed; what `treadle verify` does with one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil

from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_simulator import SETTLED, Pace, fetches_of, measure_pace, simulate, steady_cycles
from treadle.ir.diagnostics import Finding, Severity, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.check import check_warp_program
from treadle.ir.warp.facts import Facts, SharedUnit
from treadle.ir.warp.lower import lower_schedule
from treadle.ir.warp.program import WarpProgram

TOLERANCE = 0.01
"""Share of the interval by which the simulated pace may differ from it."""

CROWDED = 0.2
"""Share of the interval from which on a unit is taken to be one that groups may get into each other's way on."""

SHORT_CYCLES = 16
"""Operations that hold a unit for less take no turns: row vectors slip in between."""


@dataclass(frozen=True, slots=True)
class WarpReview:
    """A lowered schedule with its pace and everything found wrong; `rederived` counts what was recomputed."""

    program: WarpProgram | None
    pace: Pace | None
    findings: tuple[Finding, ...]
    rederived: int


def lower_warp_program(program: TileProgram, machine: Machine, warps: WarpLoop, made: WarpSchedule) -> WarpProgram:
    """Return the warp program of a schedule of `lower_warps(program, machine)`, as `lower_at_pace`."""
    return lower_at_pace(warps, made, facts_of(program, machine, warps, made))[0]


def observed_starts(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> tuple[int, dict[str, int]] | None:
    """Return the pace of a schedule's warp program and the starts of all operations in one steady iteration.

    None where the schedule has no warp program. Groups that share a unit come by slices, so that starts differ by some
    cycles from one iteration to the next.
    """
    try:
        lowered = lower_schedule(warps, made, facts)
        run = simulate(lowered, warps, facts, 3 * SETTLED)
    except TreadleError:
        return None
    last = 3 * SETTLED - max(group.stages for group in lowered.groups) - 1
    performed = {name for name, _ in run.starts}
    pace = max(run.starts[name, last] - run.starts[name, SETTLED] for name in performed) / (last - SETTLED)
    starts = {name: run.starts[name, last] for name in performed}
    for name, followers in fetches_of(warps).items():
        starts |= dict.fromkeys(followers, starts[name])
    return round(pace), starts


def lower_at_pace(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> tuple[WarpProgram, Pace]:
    """Return the warp program of a schedule, and its simulated pace.

    Groups take turns on the units of `facts`. Where that does not keep the schedule's pace, since they get into each
    other's way, other turns are tried in short runs until one does: on one crowded unit, for all or some groups, beside
    the turns of `facts` or in their place. The fastest is taken.

    Raises:
        NoRoomForHandoffs, Stuck.
    """
    lowered = lower_schedule(warps, made, facts)
    pace = measure_pace(lowered, warps, facts)
    enough = (1 + TOLERANCE) * made.schedule.ii_cycles
    if pace.steady_cycles <= enough:
        return lowered, pace
    found = [(pace.steady_cycles, 0, lowered)]
    for shared in _other_turns(warps, made, facts.shared_units):
        other = lower_schedule(warps, made, replace(facts, shared_units=shared))
        found.append((steady_cycles(other, warps, facts, SETTLED // 2), len(found), other))
        if found[-1][0] <= enough:
            break
    best = min(found, key=lambda each: each[:2])[2]
    return best, measure_pace(best, warps, facts)


def _other_turns(warps: WarpLoop, made: WarpSchedule, own: tuple[SharedUnit, ...]) -> Iterator[tuple[SharedUnit, ...]]:
    """Yield turns to try: crowded units, the busiest first; all groups, then some of them; with and without `own`."""
    for unit, groups in _crowded_units(warps, made).items():
        others = tuple(shared for shared in own if shared.unit != unit)
        for count in range(len(groups), 1, -1):
            for some in combinations(groups, count):
                turn = SharedUnit(unit, some, SHORT_CYCLES)
                yield from dict.fromkeys(((*others, turn), (turn,)))


def _crowded_units(warps: WarpLoop, made: WarpSchedule) -> dict[str, tuple[int, ...]]:
    """Return the units that are busy for most of the interval, busiest first, with the several groups on them."""
    busy: dict[str, int] = defaultdict(int)
    groups: dict[str, set[int]] = defaultdict(set)
    for operation in warps.loop.operations:
        if operation.name in made.groups and operation.occupancy_cycles:
            busy[operation.unit] += operation.occupancy_cycles
            if operation.occupancy_cycles >= SHORT_CYCLES:
                groups[operation.unit].add(made.groups[operation.name])
    full = [unit for unit in busy if len(groups[unit]) > 1 and busy[unit] >= CROWDED * made.schedule.ii_cycles]
    return {unit: tuple(sorted(groups[unit])) for unit in sorted(full, key=lambda unit: (-busy[unit], unit))}


def review_warp_program(program: TileProgram, machine: Machine, warps: WarpLoop, made: WarpSchedule) -> WarpReview:
    """Lower a schedule of `lower_warps(program, machine)`, check the warp program, and run it on the machine model.

    Findings: those of `check_warp_program`; TRD538, a warning, for a steady state off the schedule's interval; TRD539
    when the schedule has no warp program.
    """
    return review_schedule(warps, made, facts_of(program, machine, warps, made))


def review_schedule(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> WarpReview:
    """Lower, check and time a schedule, given the facts of its operations; findings as `review_warp_program`."""
    where = warps.loop.name
    try:
        program, pace = lower_at_pace(warps, made, facts)
    except TreadleError as error:
        return WarpReview(None, None, (Finding("TRD539", where, f"the schedule has no warp program: {error}"),), 1)
    findings = check_warp_program(program, warps, made, facts)
    if findings:
        return WarpReview(program, None, tuple(findings), 1)
    return WarpReview(program, pace, compare_pace(where, pace, made.schedule.ii_cycles), 2)


def compare_pace(where: str, pace: Pace, ii_cycles: int) -> tuple[Finding, ...]:
    """Return TRD538 when the simulated steady state is not the schedule's interval within 1 %: a warning, since the
    program is legal, and the claim is about the cost model's exclusive units."""
    off = pace.steady_cycles / ii_cycles - 1
    if abs(off) <= TOLERANCE:
        return ()
    message = f"the simulated steady state is {'slower' if off > 0 else 'faster'}"
    found = f"{pace.steady_cycles:.1f} cycles"
    return (Finding("TRD538", where, message, f"{ii_cycles} cycles", found, Severity.WARNING),)


def grid_cycles(program: TileProgram, machine: Machine, pace: Pace) -> float:
    """Return the cycles of all instances of a grid, one at a time on every multiprocessor, wave after wave."""
    waves = ceil(program.instances / machine.value("sm_count"))
    return waves * pace.total_cycles(program.trips)
