"""Replay of a warp schedule: lowered to a warp program, checked, and timed; what `treadle verify` does with one."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_lowering import TOLERANCE, lower_at_pace, paced_program
from treadle.costmodels.warp_simulator import SETTLED, Pace, fetches_of, simulate
from treadle.ir.diagnostics import Finding, Severity, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.check import check_warp_program
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.program import WarpProgram


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
        lowered = paced_program(warps, made, facts)
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
