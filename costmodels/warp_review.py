"""Replay of a warp schedule: lowered to a warp program, checked, and timed; what `treadle verify` does with one."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class WarpReview:
    """A lowered schedule with its pace and everything found wrong; `rederived` counts what was recomputed."""

    program: WarpProgram | None
    pace: Pace | None
    findings: tuple[Finding, ...]
    rederived: int


def review_warp_program(program: TileProgram, machine: Machine, warps: WarpLoop, made: WarpSchedule) -> WarpReview:
    """Lower a schedule of `lower_warps(program, machine)`, check the warp program, and run it on the machine model.

    Findings: those of `check_warp_program`; TRD538 for a steady state off the schedule's interval (a warning when it is
    faster); TRD539 when the schedule has no warp program.
    """
    return review_schedule(warps, made, facts_of(program, machine, warps, made))


def review_schedule(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> WarpReview:
    """Lower, check and time a schedule, given the facts of its operations; findings as `review_warp_program`."""
    where = warps.loop.name
    try:
        program = lower_schedule(warps, made, facts)
    except TreadleError as error:
        return WarpReview(None, None, (Finding("TRD539", where, f"the schedule has no warp program: {error}"),), 1)
    findings = check_warp_program(program, warps, made, facts)
    if findings:
        return WarpReview(program, None, tuple(findings), 1)
    pace = measure_pace(program, warps, facts)
    return WarpReview(program, pace, compare_pace(where, pace, made.schedule.ii_cycles), 2)


def compare_pace(where: str, pace: Pace, ii_cycles: int) -> tuple[Finding, ...]:
    """Return TRD538 when the simulated steady state is not the schedule's interval within 1 %."""
    off = pace.steady_cycles / ii_cycles - 1
    if abs(off) <= TOLERANCE:
        return ()
    slower = off > 0
    message = "the simulated steady state is slower" if slower else "the simulated steady state is faster"
    severity = Severity.ERROR if slower else Severity.WARNING
    return (Finding("TRD538", where, message, f"{ii_cycles} cycles", f"{pace.steady_cycles:.1f} cycles", severity),)


def grid_cycles(program: TileProgram, machine: Machine, pace: Pace) -> float:
    """Return the cycles of all instances of a grid, one at a time on every multiprocessor, wave after wave."""
    waves = ceil(program.instances / machine.value("sm_count"))
    return waves * pace.total_cycles(program.trips)
