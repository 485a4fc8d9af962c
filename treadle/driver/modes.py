"""Chooses among all tile shapes and sub-tilings of a program, and says of each other one why it is not the best.

Modes come in order of their bounds, which a walk over the assignments to warp groups raises first; the first one that
has a schedule at its bound is the best. Those before it, for which a short search found none, stay open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.tile_traffic import issued_load_bytes
from treadle.driver.kernel_groups import with_groups
from treadle.driver.kernels import COST_MODEL, KernelOptions, plan_program, unfit
from treadle.frontends.programs.modes import every_mode, usual_place
from treadle.frontends.programs.rows import ROW_PARTS
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.impossible import impossible, impossible_over_groups
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.modes import LoopBound, Mode, Modes, certificate_of, work_cycles
from treadle.ir.tile.program import TileProgram
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.modulo.interval import interval_bounds, serial_interval
from treadle.solvers.modulo.network import network_of
from treadle.solvers.modulo.solve import Options, schedule
from treadle.solvers.pipeline.bounds import interval_bound
from treadle.solvers.pipeline.drafts import schedule_at
from treadle.solvers.pipeline.walks import paced_bound

Tell = Callable[[str], None]

MOST_DRAFTS = 12
"""Modes for which a schedule at the bound is looked for; where none has one, the usual tile is scheduled in full."""
DRAFT_SHARE = 0.2
"""Share of the limit that one of them may take: many that no bound rules out have no schedule at their bound."""


class NoModeRuns(TreadleError):
    """No tile shape of a program runs on a machine."""

    code = "TRD590"
    template = "none of the {count} tile shapes of `{family}` runs on `{machine}`: {reasons}"
    hint = "leave out --modes and --warps to schedule the loop alone, or choose another machine"
    exit_code = ExitCode.UNMET


class TilesFixed(TreadleError):
    """All tile shapes are asked for, and one of them is given, or the program has no others."""

    code = "TRD594"
    template = "--modes compares all tile shapes of a program of the library, but {reason}"
    hint = "leave out --modes, or what fixes the tile"


@dataclass(slots=True)
class Contender:
    """A mode while its bound is being raised."""

    program: TileProgram
    mode: Mode
    walked: bool = False

    @property
    def key(self) -> tuple[int, int, int]:
        """Least cycles and bytes first, then the usual tiles."""
        assert self.mode.bound_cycles is not None
        return (self.mode.bound_cycles, self.mode.loaded_bytes, usual_place(self.program))


def choose_mode(
    family: str,
    shape: Mapping[str, int],
    chosen: Mapping[str, str | int | bool],
    machine: Machine,
    options: KernelOptions,
    tell: Tell,
) -> tuple[TileProgram, tuple[Mode, ...]]:
    """Return the best mode's program and what is known of every mode.

    Args:
        family, shape, chosen: the program of the library, its extents and its options.
        machine: where it runs; over warp groups where `options.warps` says so or products are asynchronous.

    Raises:
        NoModeRuns: no mode has a schedule. TreadleError: the request is wrong, or the machine lacks a figure.
    """
    over_groups = runs_over_groups(machine, options)
    every = [
        Contender(program, first_bound(program, machine, over_groups=over_groups))
        for program in every_mode(family, shape, chosen, over_groups=over_groups)
    ]
    best = _branch_and_bound(every, machine, options, tell, over_groups=over_groups)
    modes = tuple(contender.mode for contender in every)
    if best is None:
        reasons = "; ".join(dict.fromkeys(mode.refused or mode.note for mode in modes if mode.refused or mode.note))
        raise NoModeRuns(count=len(modes), family=family, machine=machine.id, reasons=reasons)
    return best.program, modes


def certified(kernel: KernelPlan, modes: tuple[Mode, ...], machine: Machine, options: KernelOptions) -> Modes:
    """Return the comparison with the chosen mode's final schedule in it."""
    assert kernel.program is not None
    position = next(place for place, mode in enumerate(modes) if of_program(mode, kernel.program))
    cycles = work_cycles(kernel.program, intervals_of(kernel), round(machine.value("sm_count")))
    final = (*modes[:position], replace(modes[position], cycles=cycles), *modes[position + 1 :])
    certificate = certificate_of(kernel.program.family, COST_MODEL, final, position)
    return Modes(runs_over_groups(machine, options), final, position, certificate)


def runs_over_groups(machine: Machine, options: KernelOptions) -> bool:
    """Whether kernels are scheduled over warp groups: as asked for, else where products are asynchronous."""
    return machine.has("async_mma") if options.warps is None else options.warps


def of_program(mode: Mode, program: TileProgram) -> bool:
    """Whether a mode is the tile of a program."""
    return mode.tile_sizes == program.tile_sizes and mode.row_parts == program.options.get(ROW_PARTS, 1)


def intervals_of(kernel: KernelPlan) -> tuple[int, ...]:
    """Return the intervals of a kernel's loops, over warp groups where it has them."""
    if kernel.groups is None:
        return (kernel.schedule.ii_cycles, *(loop.schedule.ii_cycles for loop in kernel.siblings))
    plans = (kernel.groups, *(loop.groups for loop in kernel.siblings if loop.groups is not None))
    return tuple(plan.schedule.schedule.ii_cycles for plan in plans)


def first_bound(program: TileProgram, machine: Machine, *, over_groups: bool) -> Mode:
    """Return a mode with bounds that take no search, or with the reason why it cannot run."""
    parts = int(program.options.get(ROW_PARTS, 1))
    loaded = issued_load_bytes(program)
    bounds: list[LoopBound] = []
    for loop in (program, *program.siblings):
        try:
            bounds.append(_plain_bound(loop, machine, over_groups=over_groups))
        except TreadleError as error:
            if not unfit(error):
                raise
            return Mode(program.tile_sizes, parts, loaded, None, refused=refusal(error))
        except _Impossible as reason:
            return Mode(program.tile_sizes, parts, loaded, None, refused=str(reason))
    return _bounded(Mode(program.tile_sizes, parts, loaded, 0, tuple(bounds)), program, machine)


class _Impossible(Exception):
    """A loop runs at no interval; caught here."""


def refusal(error: TreadleError) -> str:
    """Return an error as a mode's reason."""
    return f"{error.code}: {error}"


def _plain_bound(program: TileProgram, machine: Machine, *, over_groups: bool) -> LoopBound:
    if over_groups:
        warps = lower_warps(program, machine)
        if reason := impossible_over_groups(warps, walk=False):
            raise _Impossible(reason)
        return _of(interval_bound(warps, network_of(warps.loop)))
    loop = lower(program, machine)
    if reason := impossible(loop):
        raise _Impossible(reason)
    return _of(interval_bounds(network_of(loop))[0])


def _of(bound: Bound) -> LoopBound:
    return LoopBound(bound.value, bound.proof, bound.evidence)


def _bounded(mode: Mode, program: TileProgram, machine: Machine) -> Mode:
    cycles = tuple(bound.cycles for bound in mode.loops)
    return replace(mode, bound_cycles=work_cycles(program, cycles, round(machine.value("sm_count"))))


def _branch_and_bound(
    every: list[Contender], machine: Machine, options: KernelOptions, tell: Tell, *, over_groups: bool
) -> Contender | None:
    """Return the first mode, by its bounds, that keeps their pace; where none does, the best of some schedules."""
    tried: list[Contender] = []
    left = [contender for contender in every if not contender.mode.refused]
    while left and len(tried) < MOST_DRAFTS:
        contender = min(left, key=lambda one: one.key)
        if over_groups and not contender.walked:
            _walk(contender, machine)
            left = [one for one in left if not one.mode.refused]
            continue
        left.remove(contender)
        tried.append(contender)
        tell(f"mode {contender.mode.words}: at least {contender.mode.bound_cycles} cycles, looking for a schedule")
        if _keeps_pace(contender, machine, options, over_groups=over_groups):
            contender.mode = replace(contender.mode, cycles=contender.mode.bound_cycles)
            return contender
        contender.mode = replace(contender.mode, note="no schedule was found at its bound")
    fallback = sorted(tried, key=lambda one: (usual_place(one.program), one.key))
    usual = [one for one in left if usual_place(one.program) == 0]
    for contender in [*usual, *fallback]:
        _schedule(contender, machine, options, tell, over_groups=over_groups)
        if contender.mode.cycles is not None:
            return contender
    return None


def _walk(contender: Contender, machine: Machine) -> None:
    """Raise a mode's bounds by walking over the assignments to groups."""
    contender.walked = True
    loops: list[LoopBound] = []
    for program, plain in zip((contender.program, *contender.program.siblings), contender.mode.loops, strict=True):
        warps = lower_warps(program, machine)
        if reason := impossible_over_groups(warps, walk=True):
            contender.mode = replace(contender.mode, bound_cycles=None, loops=(), refused=reason)
            return
        longest = max(plain.cycles, serial_interval(network_of(warps.loop)))
        raised, _ = paced_bound(warps, Bound(plain.cycles, plain.proof, plain.evidence), 2 * longest)
        loops.append(_of(raised))
    contender.mode = _bounded(replace(contender.mode, loops=tuple(loops)), contender.program, machine)


def _keeps_pace(contender: Contender, machine: Machine, options: KernelOptions, *, over_groups: bool) -> bool:
    """Whether a short search finds a schedule of every loop at its bound."""
    limits = replace(options.limits, deterministic_s=DRAFT_SHARE * (options.limits.deterministic_s or 1.0))
    for program, bound in zip((contender.program, *contender.program.siblings), contender.mode.loops, strict=True):
        if over_groups and schedule_at(lower_warps(program, machine), bound.cycles, limits) is None:
            return False
        if not over_groups:
            solved = schedule(lower(program, machine), Options(limits=limits, levels=1))
            if solved.schedule.ii_cycles > bound.cycles:
                return False
    return True


def _schedule(contender: Contender, machine: Machine, options: KernelOptions, tell: Tell, *, over_groups: bool) -> None:
    """Schedule a mode at the least interval that is found."""
    settings = replace(options, warps=over_groups, objective=("ii",), earlier={}, spent_s={}, second_s={})
    try:
        kernel = with_groups(plan_program(contender.program, machine, settings), machine, settings, tell)
    except TreadleError as error:
        if not unfit(error):
            raise
        contender.mode = replace(contender.mode, note=refusal(error))
        return
    cycles = work_cycles(contender.program, intervals_of(kernel), round(machine.value("sm_count")))
    contender.mode = replace(contender.mode, cycles=cycles, note="")
