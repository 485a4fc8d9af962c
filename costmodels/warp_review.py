"""Replay of a warp schedule: lowered to a warp program, checked, and timed; what `treadle verify` does with one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from math import ceil

from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_simulator import Pace, measure_pace
from treadle.ir.diagnostics import Finding, Severity, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.check import check_warp_program
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.lower import lower_schedule
from treadle.ir.warp.program import WarpProgram

TOLERANCE = 0.01
"""Share of the interval by which the simulated pace may differ from it."""


CROWDED = 0.5
"""Share of the interval from which on a unit is taken to be one that groups may get into each other's way on."""


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


def lower_at_pace(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> tuple[WarpProgram, Pace]:
    """Return the warp program of a schedule, and its simulated pace.

    Groups take turns on the units of `facts`. Where that does not keep the schedule's pace, since they get into each
    other's way on another unit, they take turns there too: one unit, the busiest first, or all of them.

    Raises:
        NoRoomForHandoffs, Stuck.
    """
    crowded = _crowded_units(warps, made)
    best: tuple[WarpProgram, Pace] | None = None
    for more in ((), *((unit,) for unit in crowded), crowded if len(crowded) > 1 else ()):
        units = tuple(dict.fromkeys((*facts.turn_units, *more)))
        lowered = lower_schedule(warps, made, replace(facts, turn_units=units))
        pace = measure_pace(lowered, warps, facts)
        if best is None or pace.steady_cycles < best[1].steady_cycles:
            best = lowered, pace
        if pace.steady_cycles <= (1 + TOLERANCE) * made.schedule.ii_cycles:
            break
    assert best is not None
    return best


def _crowded_units(warps: WarpLoop, made: WarpSchedule) -> tuple[str, ...]:
    """Return the units that several groups issue to and that are busy for most of the interval, busiest first."""
    busy: dict[str, int] = defaultdict(int)
    groups: dict[str, set[int]] = defaultdict(set)
    for operation in warps.loop.operations:
        if operation.name in made.groups:
            busy[operation.unit] += operation.occupancy_cycles
            groups[operation.unit].add(made.groups[operation.name])
    full = [unit for unit in busy if len(groups[unit]) > 1 and busy[unit] >= CROWDED * made.schedule.ii_cycles]
    return tuple(sorted(full, key=lambda unit: (-busy[unit], unit)))


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
