"""The loops of a kernel over warp groups: which programs have room, schedules, others as good, what they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_lowering import keeps_pace
from treadle.costmodels.warp_nest import align, run_kernel
from treadle.costmodels.warp_review import observed_starts
from treadle.driver.kernels import COST_MODEL, KernelOptions, unfit
from treadle.driver.nearest import Advise, advice
from treadle.ir.certificate import ProofKind
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.machine import Machine, MissingFigure
from treadle.ir.tile.kernel import KernelPlan, ScheduledLoop, WarpPlan
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpSchedule
from treadle.ir.warp.nest import main_loop
from treadle.solvers.pipeline import solve as pipeline
from treadle.solvers.pipeline.ranked import others
from treadle.solvers.pipeline.running import at_pace
from treadle.solvers.pipeline.second_encoding import with_second_opinions

Tell = Callable[[str], None]


class LoopsDoNotShare(TreadleError):
    """Loops of a kernel, each with a schedule over warp groups, cannot share one set of groups."""

    code = "TRD572"
    template = "loop `{sibling}` of kernel `{kernel}` runs over warp groups, but not over those of `{loop}`: {reason}"
    hint = "choose smaller tiles with --tiles, or put `registers` first in --objective"
    exit_code = ExitCode.UNMET


def with_groups(
    kernel: KernelPlan, machine: Machine, options: KernelOptions, tell: Tell, advise: Advise = advice
) -> KernelPlan:
    """Return the kernel with its loops scheduled over warp groups, or with the reason why they are not.

    `advise` says which tile would fit where this one does not.

    Raises:
        TreadleError: they are not and `options.warps` asks for it, or it is a defect.
    """
    if kernel.program is None or options.warps is False:
        return kernel
    if options.warps is None and not machine.has("async_mma"):
        return replace(kernel, groupless="products hold the warps that issue them: groups could only take turns")
    begin = time.perf_counter()
    settings = pipeline.Options(options.limits, options.objective, COST_MODEL)
    try:
        groups = schedule_over_groups(kernel.program, machine, settings, tell)
        loops = zip(kernel.program.siblings, kernel.siblings, strict=True)
        siblings = tuple(
            _aligned(kernel, groups, loop, schedule_over_groups(own, machine, settings, tell)) for own, loop in loops
        )
    except TreadleError as error:
        if not unfit(error) or isinstance(error, MissingFigure):
            raise
        hint = advise(kernel.program, machine, over_groups=True)
        if options.warps:
            raise type(error)(place=error.place, expected=error.expected, hint=hint, **error.fields) from error
        return replace(kernel, groupless=f"{error.code}: {error}" + (f"; {hint}" if hint else ""))
    solved = time.perf_counter()
    siblings = tuple(loop if loop.groups is None else replace(loop, groups=_twice(loop.groups)) for loop in siblings)
    kernel = replace(kernel, groups=_twice(groups), siblings=siblings)
    options.spent_s[kernel.name] = solved - begin
    if any(level.proof is ProofKind.SOLVER for plan in _plans(kernel) for level in plan.certificate.levels):
        options.second_s[kernel.name] = time.perf_counter() - solved
    return kernel


def _plans(kernel: KernelPlan) -> list[WarpPlan]:
    """Return the schedules of all loops that run over warp groups."""
    plans = (kernel.groups, *(sibling.groups for sibling in kernel.siblings))
    return [plan for plan in plans if plan is not None]


def _twice(plan: WarpPlan) -> WarpPlan:
    """Return a plan whose levels on the solver's word say what a second encoding makes of them."""
    levels = with_second_opinions(plan.warps, plan.schedule.schedule.ii_cycles, plan.certificate.levels)
    return replace(plan, certificate=replace(plan.certificate, levels=tuple(levels)))


def schedule_over_groups(program: TileProgram, machine: Machine, options: pipeline.Options, tell: Tell) -> WarpPlan:
    """Return a loop's schedule over warp groups; raises as `pipeline.schedule`.

    Where its interval stays open, runs of its warp program say how to shorten it. Where its program does not run at the
    interval, another schedule of the same levels is looked for.
    """
    warps = lower_warps(program, machine)

    def observe(made: WarpSchedule) -> tuple[int, dict[str, int]] | None:
        return observed_starts(warps, made, facts_of(program, machine, warps, made))

    solved = pipeline.schedule(warps, replace(options, observe=observe), tell)
    facts = facts_of(program, machine, warps, solved.schedule)
    if not keeps_pace(warps, solved.schedule, facts):
        solved = at_pace(warps, solved, facts, observe, options.limits, tell)
    return WarpPlan(warps, solved.schedule, solved.certificate)


def _aligned(kernel: KernelPlan, main: WarpPlan, loop: ScheduledLoop, groups: WarpPlan) -> ScheduledLoop:
    """Return a further loop over the warp groups of the main one; raises LoopsDoNotShare."""
    nested = align(main_loop(main.warps, main.schedule), groups.warps, groups.schedule)
    if nested is not None:
        return replace(loop, groups=groups, homes=nested.homes)
    limits = main.warps.limits
    registers = f"{list(main.schedule.registers)} and {list(groups.schedule.registers)}"
    reason = f"registers of {registers} need more than {limits.registers_of_file}"
    if max(main.schedule.group_count, groups.schedule.group_count) > limits.most_groups:
        reason = f"more than {limits.most_groups} groups"
    raise LoopsDoNotShare(sibling=loop.loop.name, kernel=kernel.name, loop=kernel.loop.name, reason=reason)


def simulated(kernel: KernelPlan, machine: Machine) -> KernelPlan:
    """Return the kernel with what its loops over warp groups take when they are simulated.

    Further loops are put on the main loop's groups once more, which may have been scheduled anew since.
    """
    if kernel.groups is None:
        return kernel
    groups = kernel.groups
    siblings = tuple(_aligned(kernel, groups, loop, loop.groups) if loop.groups else loop for loop in kernel.siblings)
    settled = replace(kernel, siblings=siblings)
    return replace(settled, simulated=run_kernel(settled, machine).simulated)


def further_schedules(
    kernel: KernelPlan, count: int, options: KernelOptions, tell: Callable[[str], None]
) -> list[KernelPlan]:
    """Return the kernel with up to `count` other schedules over warp groups, at the same interval, cheapest first.

    Other schedules are of kernels of one loop: those of several loops share their groups.
    """
    if count < 1:
        return []
    found: list[KernelPlan] = []
    if kernel.groups is not None and not kernel.siblings:
        plan, settings = kernel.groups, pipeline.Options(options.limits, options.objective, COST_MODEL)
        best = pipeline.Solution(plan.schedule, plan.certificate)
        made = others(plan.warps, best, count, settings, tell)
        found = [replace(kernel, groups=WarpPlan(plan.warps, one.schedule, one.certificate)) for one in made]
    if len(found) < count:
        tell(f"{kernel.name}: {len(found)} other schedules of {count}: {_why_fewer(kernel)}")
    return found


def _why_fewer(kernel: KernelPlan) -> str:
    if kernel.groups is None:
        return "it runs over no warp groups"
    if kernel.siblings:
        return "its loops share their groups, which are those of the best"
    return "no further assignment to groups was found at this interval"


def with_room_for_groups(candidates: Sequence[TileProgram], machine: Machine) -> tuple[TileProgram, ...]:
    """Return the candidates that some interval lets run over warp groups; all of them when none is left."""
    return tuple(program for program in candidates if _has_room(program, machine)) or tuple(candidates)


def _has_room(program: TileProgram, machine: Machine) -> bool:
    try:
        pipeline.refuse_impossible(lower_warps(program, machine))
    except TreadleError as error:
        if not unfit(error):
            raise
        return False
    return True
