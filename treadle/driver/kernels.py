"""One hot loop to one kernel plan: program candidates, loops on the machine, schedules, the best by predicted time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from treadle.costmodels.latency import at_percentile
from treadle.costmodels.lower import lower
from treadle.costmodels.machines import load_machine
from treadle.costmodels.predict import predict
from treadle.driver.nearest import advice
from treadle.frontends import programs
from treadle.ir.codec import encode
from treadle.ir.deployment import is_neutral
from treadle.ir.diagnostics import ExitCode, TreadleError, closest
from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan, ScheduledLoop
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.program import TileProgram
from treadle.ir.workload import HotLoop
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.errors import MemoryExceeded, RingTooShallow
from treadle.solvers.modulo.solve import Options, Solution, schedule
from treadle.solvers.pipeline import solve as pipeline

QUICK = Limits(deterministic_s=0.02)
"""What a candidate may cost before it is known to be among the best."""

COST_MODEL = "tile cycles of the machine file (costmodels/lower.py)"


class NoProgramFits(TreadleError):
    """No tile sizes of the family fit the machine."""

    code = "TRD510"
    template = "no tile program of `{family}` fits `{machine}` at this shape: {reasons}"
    hint = "choose smaller tiles with --tiles, or give a --shape and let the candidates be searched"
    exit_code = ExitCode.UNMET


class UncoveredLoop(TreadleError):
    """The program library has no program for what the loop needs."""

    code = "TRD511"
    template = "no tile program of `{family}` covers {what}"
    hint = "the kernels of other hot loops are not affected"
    exit_code = ExitCode.UNMET


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """How kernels are scheduled: limits per question to the solver, and how many candidates are kept.

    Searches begin at the `earlier` schedules of the same loops, which are no option and not recorded in a plan.
    """

    limits: Limits = field(default_factory=lambda: Limits(deterministic_s=1.0))
    top: int = 1
    compiled: bool = True
    warps: bool | None = False
    """Schedule over warp groups: a loop without such a schedule is refused when True, says why when None."""
    objective: tuple[str, ...] = pipeline.OBJECTIVE
    language: str = "triton"
    """What kernels are emitted in: portable `triton`, or `gluon`, which runs the schedule over warp groups."""
    modes: bool = False
    """Choose among all tile shapes by the multiprocessor cycles of all the work, with a certificate of the choice."""
    latency_percentile: int | None = None
    """Loads are as late as this percentile of them is; None for the mean of the machine's figures."""
    earlier: Mapping[Loop, Solution] = field(default_factory=dict[Loop, Solution])
    spent_s: dict[str, float] = field(default_factory=dict[str, float], compare=False)
    """Filled with the seconds that each kernel's loops over warp groups took; not recorded in a plan."""
    second_s: dict[str, float] = field(default_factory=dict[str, float], compare=False)
    """Filled with the seconds of the second encoding, which is asked about levels on the solver's word."""

    def recorded(self) -> dict[str, Any]:
        """Return the options as a plan records them."""
        recorded = {"limits": encode(self.limits), "top": self.top, "compiled": self.compiled}
        if self.language != "triton":
            recorded["language"] = self.language
        if self.modes:
            recorded["modes"] = True
        if self.latency_percentile is not None:
            recorded["latency_percentile"] = self.latency_percentile
        return recorded if self.warps is False else {**recorded, "objective": list(self.objective)}


def machine_for(name: str, options: KernelOptions) -> Machine:
    """Return a machine by id or file, its loads as late as the options say; raises as `load_machine` and `latency`."""
    machine = load_machine(name)
    return machine if options.latency_percentile is None else at_percentile(machine, options.latency_percentile)


def objective_levels(text: str) -> tuple[str, ...]:
    """Read the levels of a warp schedule in the order of `--objective`; the interval is always first, named or not.

    Raises:
        InvalidValue: a level is unknown or named twice, or comes before the interval.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in pipeline.LEVELS]
    wrong = ""
    if unknown:
        wrong = f"unknown level `{unknown[0]}`"
    elif len(set(names)) != len(names):
        wrong = "a level is named twice"
    elif "ii" in names[1:]:
        wrong = f"`{names[0]}` comes before `ii`, but other levels are those of schedules at the least interval"
    if wrong:
        hint = closest(unknown[0], pipeline.LEVELS) if unknown else ""
        message = f"objective `{text}`: {wrong}; expected an order of {', '.join(pipeline.LEVELS)}"
        raise InvalidValue(message=message, hint=hint)
    return ("ii", *(name for name in names if name != "ii"))


def plan_program(program: TileProgram, machine: Machine, options: KernelOptions | None = None) -> KernelPlan:
    """Lower, schedule and predict one tile program.

    Raises:
        TreadleError: the machine lacks a unit or a figure, or the program fits no memory.
    """
    options = options or KernelOptions()
    loop = lower(program, machine)
    solved = _scheduled(loop, options)
    siblings = tuple(_sibling(other, machine, options) for other in program.siblings)
    kernel = KernelPlan(program.name, loop, solved.schedule, solved.certificate, program, siblings=siblings)
    return replace(kernel, predictions=predict(program, loop, solved.schedule, machine, siblings))


def _sibling(program: TileProgram, machine: Machine, options: KernelOptions) -> ScheduledLoop:
    loop = lower(program, machine)
    solved = _scheduled(loop, options)
    return ScheduledLoop(loop, solved.schedule, solved.certificate)


def _scheduled(loop: Loop, options: KernelOptions) -> Solution:
    settings = Options(limits=options.limits, cost_model=COST_MODEL)
    return schedule(loop, settings, earlier=options.earlier.get(loop))


def rank_programs(
    candidates: Sequence[TileProgram],
    machine: Machine,
    options: KernelOptions | None = None,
    executor: Executor | None = None,
) -> list[KernelPlan]:
    """Return the best `options.top` kernel plans, fastest predicted first; candidates that do not fit are left out.

    Candidates are compared by quick schedules (least interval, heuristic length); the best are then proven in full.

    Raises:
        NoProgramFits: none fits.
    """
    chosen = options or KernelOptions()
    drafts = draft_programs(candidates, machine, chosen, executor)[: chosen.top]
    best = [draft.program for draft in drafts if draft.program is not None]
    mapped = executor.map if executor else map
    plans = mapped(plan_program, best, [machine] * len(best), [chosen] * len(best))
    return sorted(plans, key=_speed)


def draft_programs(
    candidates: Sequence[TileProgram],
    machine: Machine,
    options: KernelOptions | None = None,
    executor: Executor | None = None,
) -> list[KernelPlan]:
    """Return quick plans of all candidates that fit, fastest predicted first.

    Raises:
        NoProgramFits: none fits.
    """
    mapped = executor.map if executor else map
    quick = [replace(options or KernelOptions(), limits=QUICK)] * len(candidates)
    outcomes = list(mapped(_attempt, candidates, [machine] * len(candidates), quick))
    drafts = [outcome for outcome in outcomes if isinstance(outcome, KernelPlan)]
    if not drafts:
        _refuse(candidates, machine, [outcome for outcome in outcomes if isinstance(outcome, Misfit)])
    return sorted(drafts, key=_speed)


def _speed(plan: KernelPlan) -> tuple[float, int, str]:
    """Fastest predicted first; ties go to the larger interval, which issues less."""
    return plan.prediction("time").value, -plan.schedule.ii_cycles, str(plan.program)


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a candidate does not fit: the code of an error and what it says (errors do not cross processes)."""

    code: str
    message: str


def _attempt(program: TileProgram, machine: Machine, options: KernelOptions) -> KernelPlan | Misfit:
    try:
        return plan_program(program, machine, options)
    except TreadleError as error:
        if not unfit(error):
            raise
        return Misfit(error.code, str(error))


def _refuse(candidates: Sequence[TileProgram], machine: Machine, misfits: Sequence[Misfit]) -> NoReturn:
    """Say why no candidate fits; what no tile size can mend is refused for what it is.

    Raises:
        NoProgramFits: memory has no room for any of them. TreadleError: that of the first, where it is not memory.
    """
    if not {misfit.code for misfit in misfits} & {MemoryExceeded.code, RingTooShallow.code}:
        plan_program(candidates[0], machine, KernelOptions(QUICK))
    reasons = "; ".join(dict.fromkeys(misfit.message for misfit in misfits))
    hint = advice(candidates[0], machine, over_groups=False) if len(candidates) == 1 else ""
    raise NoProgramFits(family=candidates[0].family, machine=machine.id, reasons=reasons, hint=hint)


def unfit(error: TreadleError) -> bool:
    """Whether an error says that a program does not fit a machine, rather than that something is broken."""
    return error.exit_code is ExitCode.UNMET or error.code.startswith("TRD2")


def plan_hot_loop(hot: HotLoop, machine: Machine, options: KernelOptions | None = None) -> list[KernelPlan]:
    """Return the kernel plans of a hot loop, fastest predicted first, carrying its name, phase and calls.

    Raises:
        UncoveredLoop: the library has no program for it. NoProgramFits: none of its programs fits.
    """
    return [_named(plan, hot) for plan in rank_programs(_candidates(hot), machine, options)]


def draft_hot_loop(hot: HotLoop, machine: Machine, options: KernelOptions | None = None) -> list[KernelPlan]:
    """Return quick plans of all of a hot loop's candidates, as `plan_hot_loop` and `draft_programs`; raises as they."""
    return [_named(plan, hot) for plan in draft_programs(_candidates(hot), machine, options)]


def _candidates(hot: HotLoop) -> tuple[TileProgram, ...]:
    return programs.candidates(hot.family, supported_shape(hot.family, hot.shape), {"dtype": hot.dtype})


def _named(plan: KernelPlan, hot: HotLoop) -> KernelPlan:
    return replace(plan, name=hot.name, calls=hot.calls, phase=hot.phase.value)


def supported_shape(family: str, shape: Mapping[str, int]) -> dict[str, int]:
    """Return the shape with the keys the program family takes; raises UncoveredLoop for what it does not cover."""
    known = programs.family(family).shape
    for key, extent in shape.items():
        if key not in known and not is_neutral(key, shape):
            raise UncoveredLoop(family=family, what=f"{key} {extent}")
    return {key: extent for key, extent in shape.items() if key in known}
