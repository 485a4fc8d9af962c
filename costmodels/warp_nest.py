"""The loops of a kernel on one set of warp groups: who runs what, whether it is legal, what all of it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import ceil

from treadle.costmodels.warp_review import WarpReview, review_warp_program
from treadle.costmodels.warp_simulator import Pace
from treadle.ir.diagnostics import Finding
from treadle.ir.machine import Machine
from treadle.ir.plan import Prediction
from treadle.ir.tile.kernel import KernelPlan, WarpPlan
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.nest import NestedLoop, check_nest, kernel_registers, main_loop


@dataclass(frozen=True, slots=True)
class KernelRun:
    """A kernel's loops lowered to warp programs, checked and simulated: the main one first, then its siblings."""

    reviews: tuple[WarpReview, ...]
    findings: tuple[Finding, ...]
    simulated: tuple[Prediction, ...]
    rederived: int


def align(main: NestedLoop, warps: WarpLoop, made: WarpSchedule) -> NestedLoop | None:
    """Return a further loop on the groups of the main one; None when no choice of groups is legal.

    Of all choices, the one that moves the fewest registers between groups (values carried on from the main loop), then
    needs the fewest registers, then the first in order.
    """
    best: tuple[tuple[int, int, tuple[int, ...]], NestedLoop] | None = None
    for homes in permutations(range(max(main.made.group_count, made.group_count)), made.group_count):
        loop = NestedLoop(warps, made, homes)
        if check_nest(warps.loop.name, (main, loop)):
            continue
        cost = (moved_registers(main, loop), sum(kernel_registers((main, loop))), homes)
        if best is None or cost < best[0]:
            best = cost, loop
    return None if best is None else best[1]


def moved_registers(main: NestedLoop, other: NestedLoop) -> int:
    """Return the registers per thread of values that both loops carry, but in different groups."""
    before = {value.name: main.homes[main.made.groups[value.producer]] for value in main.warps.values}
    return sum(
        value.registers
        for value in other.warps.values
        if value.name in before
        and any(reader.distance for reader in value.readers)
        and other.homes[other.made.groups[value.producer]] != before[value.name]
    )


def run_kernel(kernel: KernelPlan, machine: Machine) -> KernelRun:
    """Lower, check and simulate every loop of a kernel over warp groups; nothing for a kernel without groups.

    Findings: those of `review_warp_program` for every loop, then those of `check_nest`. There are no figures where a
    loop has no warp program, or not all loops run over groups.
    """
    if kernel.groups is None or kernel.program is None:
        return KernelRun((), (), (), 0)
    plans: list[tuple[TileProgram, WarpPlan]] = [(kernel.program, kernel.groups)]
    loops = [main_loop(kernel.groups.warps, kernel.groups.schedule)]
    for program, sibling in zip(kernel.program.siblings, kernel.siblings, strict=True):
        if sibling.groups is not None:
            plans.append((program, sibling.groups))
            loops.append(NestedLoop(sibling.groups.warps, sibling.groups.schedule, sibling.homes))
    reviews = tuple(review_warp_program(program, machine, plan.warps, plan.schedule) for program, plan in plans)
    findings = [finding for review in reviews for finding in review.findings]
    findings += check_nest(kernel.name, loops)
    rederived = sum(review.rederived for review in reviews) + 1
    paces = [review.pace for review in reviews if review.pace is not None]
    if len(paces) <= len(kernel.siblings):
        return KernelRun(reviews, tuple(findings), (), rederived)
    outside = kernel.prediction("outside_cycles").value if kernel.predictions else 0.0
    simulated = predict_run([program for program, _ in plans], paces, machine, outside)
    return KernelRun(reviews, tuple(findings), simulated, rederived + len(simulated))


def predict_run(
    programs: Sequence[TileProgram], paces: Sequence[Pace], machine: Machine, outside_cycles: float
) -> tuple[Prediction, ...]:
    """Return what a kernel over warp groups takes as simulated, from its loops and their paces, the main one first.

    Instances run one at a time on every multiprocessor, wave after wave. Loops are divided by a barrier of all groups.
    `outside_cycles` are those of an instance outside its loops (operands, results).
    """
    main, pace = programs[0], paces[0]
    barrier = machine.value("mbarrier_cycles" if machine.has("warp_specialization") else "named_barrier_cycles")
    once = sum(own.total_cycles(program.trips) for program, own in zip(programs, paces, strict=True))
    inside = main.repeats * once + (main.repeats * len(programs) - 1) * barrier
    steady = main.repeats * sum(own.steady_cycles * p.trips for p, own in zip(programs, paces, strict=True))
    waves = ceil(main.instances / machine.value("sm_count"))
    return (
        Prediction("steady_cycles", pace.steady_cycles, "cycle"),
        Prediction("fill_and_drain_cycles", pace.overhead_cycles, "cycle"),
        Prediction("one_iteration_cycles", pace.total_cycles(1), "cycle"),
        Prediction("two_iterations_cycles", pace.total_cycles(2), "cycle"),
        Prediction("loops_cycles", inside, "cycle"),
        Prediction("steady_share", min(1.0, steady / inside), "1"),
        Prediction("waves", waves, "wave"),
        Prediction("last_wave_share", main.instances / machine.value("sm_count") - (waves - 1), "1"),
        Prediction("grid_cycles", waves * (inside + outside_cycles), "cycle"),
    )
