"""Warp schedules to Gluon kernels that keep their plan: what the compiler shows goes back to the solver, up to 5 times.

A binary that spills, or needs more registers than planned, tightens the plan's registers; a frame that does not fit
beside the rings tightens its shared memory. Anything else that differs from the plan is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from treadle.codegen.gluon.emit import emit
from treadle.codegen.gluon.errors import EvidenceMismatch, NoSharedMemoryLeft
from treadle.codegen.gluon.evidence import Evidence, examine
from treadle.codegen.gluon.kernel import WarpKernel
from treadle.codegen.triton.compile import KernelBinary, compile_source
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.predict import predict
from treadle.costmodels.warp_review import lower_warp_program
from treadle.frontends.programs.rows import split_rows, splits_rows
from treadle.ir.machine import Machine
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.pipeline.solve import Options, schedule

ROUNDS = 5
"""How often a kernel may come back to the solver."""
REGISTER_STEP = 8
"""Registers by which a plan is tightened at once: what `setmaxnreg` counts in."""
MANY_SPILLED_BYTES = 64
"""Stack bytes of a thread from which two steps are taken at once."""
COST_MODEL = "tile cycles of the machine file, issue and handoffs of warp groups (costmodels/lower_warps.py)"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tightening:
    """What a plan leaves free for the compiler: registers in every group, shared memory of an instance (bytes)."""

    registers: int = 0
    shared_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """One attempt: what was left free, and why it was not kept (nothing where it was)."""

    tightening: Tightening
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fitted:
    """A kernel whose binary keeps its plan, with the attempts before it."""

    kernel: WarpKernel
    source: str
    binary: KernelBinary
    evidence: Evidence
    rounds: tuple[Round, ...]


def tightened(warps: WarpLoop, tightening: Tightening) -> WarpLoop:
    """Return the loop with less room: more registers fixed in every group, more shared memory taken from rings."""
    limits = replace(warps.limits, fixed_registers=warps.limits.fixed_registers + tightening.registers)
    capacities = tuple(
        replace(capacity, fixed_bytes=capacity.fixed_bytes + tightening.shared_bytes)
        if capacity.memory == "shared"
        else capacity
        for capacity in warps.loop.capacities
    )
    return replace(warps, loop=replace(warps.loop, capacities=capacities), limits=limits)


def cut_rows(program: TileProgram, machine: Machine) -> TileProgram:
    """Return the program with its rows over two warp groups where one cannot hold the accumulators."""
    if machine.has("tensor_memory") or not machine.has("warp_specialization") or not splits_rows(program, 2):
        return program
    rows = split_rows(program, 2)
    limits = lower_warps(program, machine).limits
    free = limits.registers_per_group - limits.fixed_registers
    values = [value.registers for value in lower_warps(program, machine).values]
    return rows if sum(values) > free else program


def warp_kernel(
    program: TileProgram, machine: Machine, options: Options, tightening: Tightening = Tightening()
) -> WarpKernel:
    """Schedule a program over warp groups and lower it to a warp program.

    Raises:
        TreadleError: the machine lacks a unit or a figure; no schedule exists or was found; handoffs do not fit.
    """
    warps = tightened(lower_warps(program, machine), tightening)
    solved = schedule(warps, replace(options, cost_model=COST_MODEL))
    made = solved.schedule
    lowered = lower_warp_program(program, machine, warps, made)
    predictions = predict(_one_loop(program), warps.loop, made.schedule, machine)
    return WarpKernel(program.name, program, machine, warps, made, solved.certificate, lowered, predictions)


def _one_loop(program: TileProgram) -> TileProgram:
    """Return the program with its masked loops counted as more trips: warp groups run them as the same steps."""
    trips = program.trips + sum(sibling.trips for sibling in program.siblings)
    return replace(program, before=(), after=(), trips=trips)


def fit(program: TileProgram, machine: Machine, options: Options, tell: Tell, plan_id: str = "") -> Fitted:
    """Schedule, emit, compile and examine until the binary keeps the plan.

    Raises:
        EvidenceMismatch: it does not after `ROUNDS` attempts, or differs in what no register changes.
        NoGluonFrame, NotEmittable, CompilationFailed, MissingExtra; what `warp_kernel` raises.
    """
    program = cut_rows(program, machine)
    tightening, rounds = Tightening(), list[Round]()
    while True:
        kernel = warp_kernel(program, machine, options, tightening)
        outcome = _attempt(kernel, plan_id)
        if isinstance(outcome, Fitted):
            return replace(outcome, rounds=(*rounds, Round(tightening)))
        more, reasons = outcome
        rounds.append(Round(tightening, reasons))
        tell(f"{program.name}: {'; '.join(reasons)}")
        if more is None or len(rounds) == ROUNDS:
            raise EvidenceMismatch(kernel=program.name, rounds=len(rounds), reason="; ".join(reasons))
        tightening = Tightening(tightening.registers + more.registers, tightening.shared_bytes + more.shared_bytes)


def _attempt(kernel: WarpKernel, plan_id: str) -> Fitted | tuple[Tightening | None, tuple[str, ...]]:
    """Return the kernel where its binary keeps the plan, else what to tighten (None: nothing helps) and why."""
    try:
        source = emit(kernel, plan_id)
    except NoSharedMemoryLeft as error:
        return Tightening(shared_bytes=error.missing_bytes), (str(error),)
    binary = compile_source(source, kernel.machine.architecture, kernel.name)[0]
    evidence = examine(kernel, binary)
    if not evidence.mismatches:
        return Fitted(kernel, source, binary, evidence, ())
    if not evidence.short_of_registers:
        return None, evidence.mismatches
    steps = 2 if binary.spill_bytes > MANY_SPILLED_BYTES else 1
    return Tightening(registers=steps * REGISTER_STEP), evidence.mismatches
