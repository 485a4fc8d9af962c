"""Warp schedules to Gluon kernels that keep their plan: what the compiler shows goes back to the solver, up to 5 times.

A plan's registers become what its binary uses. A binary that spills tightens the schedule's registers; a frame that
does not fit beside the rings tightens its shared memory. Anything else that differs
from the plan is refused with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from treadle.codegen.gluon.emit import emit, has_frame, register_budgets
from treadle.codegen.gluon.errors import EvidenceMismatch, NoGluonFrame, NoSharedMemoryLeft, NotEmittable
from treadle.codegen.gluon.evidence import Evidence, GroupEvidence, examine
from treadle.codegen.gluon.kernel import TENSOR_ROWS, WarpKernel, warp_kernel
from treadle.codegen.triton.compile import KernelBinary, compile_sources
from treadle.codegen.triton.errors import CompilationFailed
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.warp_facts import facts_of
from treadle.driver.kernels import COST_MODEL, KernelOptions, plan_program
from treadle.frontends import programs
from treadle.frontends.programs.rows import ROW_PARTS, splits_rows
from treadle.ir.diagnostics import Finding
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import Compiled, KernelPlan, Room, WarpPlan
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpLoop
from treadle.ir.warp.check import check_warp_program
from treadle.ir.warp.lower import NoRoomForHandoffs
from treadle.ir.warp.registers import registers_in_order
from treadle.solvers.pipeline.alike import schedule_alike
from treadle.solvers.pipeline.errors import NoWarpSchedule
from treadle.solvers.pipeline.ranked import others
from treadle.solvers.pipeline.solve import Options, Solution, schedule

ROUNDS = 5
"""How often a kernel may come back to the solver."""
OTHERS = 2
"""Other schedules of the same interval that are tried where one cannot be emitted, or more than registers differs."""
BUDGETS = 3
"""How often one schedule gets registers by what its last binary used."""
REGISTER_STEP = 8
"""Registers by which a plan is tightened at least: what `setmaxnreg` counts in."""
SPILL_STEPS = ((256, 4), (64, 2), (1, 1))
"""Stack bytes of a thread from which so many steps are taken at once."""
LEAST_COLUMNS = 32
"""Columns of a tile that are not halved any further."""
DECODES = ("attention_decode", "attention_paged")
"""Families whose rows are the query heads of a key-value head, which are fewer than a product's rows."""
GROUP_ROWS = 64
"""Rows that one warp group multiplies at once (`wgmma`, PTX ISA)."""
SLOWER = 32
"""Where registers cannot be fewer, intervals grow by this part."""
ROWS_OF_BLOCK_M = (
    "gemm", "gemm_fp8", "swiglu", "grouped_gemm", "rms_norm_gemm", "kmeans_assign", "attention_fwd", "attention_varlen",
)  # fmt: skip
"""Families whose products have rows of `block_m`."""
KEYS_AS_ROWS = ("attention_bwd",)
"""Families whose rows are keys: `block_n` is cut for groups, each with a sub-tile, half an interval apart."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The same source compiled by another Triton."""

    python: str
    binary: KernelBinary | None
    """None where this Triton cannot compile the source."""
    evidence: Evidence | None
    """Beside a plan whose registers are those that this Triton's binary uses."""
    refused: str = ""
    """Why this Triton's binary is not to be used."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A kernel whose binary keeps its plan: its source, the binary, and what it shows."""

    kernel: KernelPlan
    source: str
    binary: KernelBinary
    evidence: Evidence
    beside: tuple[KernelBinary, ...] = ()
    """Further functions of the module, as the one that merges pieces."""
    elsewhere: tuple[Elsewhere, ...] = ()


@dataclass(frozen=True, slots=True)
class Refit:
    """Why a binary does not keep its plan, what to leave free (None: nothing helps), and registers by group.

    `error` is raised where no other schedule helps.
    """

    reasons: tuple[str, ...]
    more: Room | None = None
    budget: tuple[int, ...] = ()
    error: NotEmittable | None = None


def for_groups(program: TileProgram, machine: Machine) -> TileProgram:
    """Return the program with its rows over two warp groups, where one group cannot hold its values in registers."""
    if not machine.has("warp_specialization"):
        return program
    program = _whole_products(program, machine)
    while not machine.has("tensor_memory") and ROW_PARTS not in program.options:
        cut = program if _fits_one_group(program, machine) else over_groups(program)
        if cut == program:
            break
        program = cut
    return program


def over_groups(program: TileProgram) -> TileProgram:
    """Return the program with its rows over two warp groups (or, where they cannot be, narrower); itself if neither."""
    products = [operation for operation in program.operations if operation.depth]
    if len(products) > 1 and not program.invariants and program.tile_sizes.get("block_n", 0) > LEAST_COLUMNS:
        # What is combined after the loop must be made by one group: narrower tiles instead of split rows.
        sizes = {**program.tile_sizes, "block_n": program.tile_sizes["block_n"] // 2}
        return programs.build(program.family, program.shape, sizes, program.options)
    if splits_rows(program, 2, GROUP_ROWS):
        options = {**program.options, ROW_PARTS: 2}
        return programs.build(program.family, program.shape, program.tile_sizes, options)
    sizes = program.tile_sizes
    rows = "block_n" if program.family in KEYS_AS_ROWS else "block_m"
    if sizes.get("sub_tiles") == 1 and sizes.get(rows, 0) >= 2 * GROUP_ROWS:
        return programs.build(program.family, program.shape, {**sizes, "sub_tiles": 2}, program.options)
    return program


def _whole_products(program: TileProgram, machine: Machine) -> TileProgram:
    """Return a decode with as many rows as an asynchronous product has, pages looked up where they are copied.

    A product behind a norm is one loop: the second one would wait for the first.
    """
    if program.family == "rms_norm_gemm" and program.siblings:
        options = {**program.options, "form": "one_loop"}
        return programs.build(program.family, program.shape, program.tile_sizes, options)
    if program.family not in DECODES:
        return _whole_lanes(program, machine)
    rows = TENSOR_ROWS if machine.has("tensor_memory") else GROUP_ROWS
    sizes = {**program.tile_sizes, "block_m": max(rows, program.tile_sizes["block_m"])}
    options = {**program.options, "lookup": "copy"} if "lookup" in program.options else program.options
    if sizes == program.tile_sizes and options == program.options:
        return program
    return programs.build(program.family, program.shape, sizes, options)


def _whole_lanes(program: TileProgram, machine: Machine) -> TileProgram:
    """Return the program with products of as many rows as tensor memory has lanes, where there is that memory.

    Rows beyond a tensor's are zeros, which cost what a smaller product would: it fills no fewer lanes.
    """
    rows = min((operation.result.shape[0] for operation in program.operations if operation.depth), default=TENSOR_ROWS)
    if not machine.has("tensor_memory") or rows >= TENSOR_ROWS or program.family not in ROWS_OF_BLOCK_M:
        return program
    sizes = {**program.tile_sizes, "block_m": program.tile_sizes["block_m"] * TENSOR_ROWS // rows}
    return programs.build(program.family, program.shape, sizes, program.options)


def _fits_one_group(program: TileProgram, machine: Machine) -> bool:
    """Whether the largest values together (results of products live side by side) fit one group's registers."""
    warps = lower_warps(program, machine)
    products = {operation.name for operation in program.operations if operation.depth}
    needed = sum(value.registers for value in warps.values if value.name in products)
    return needed <= warps.limits.registers_per_group - warps.limits.fixed_registers


def fit_kernels(
    kernels: Sequence[KernelPlan], machine: Machine, options: KernelOptions, plan_id: str, tell: Tell
) -> tuple[tuple[KernelPlan, ...], dict[str, bytes]]:
    """Emit kernels in Gluon; with `options.compiled` as binaries that keep their plans, else as sources alone.

    Returns: the kernels with their sources and compiled records, and the files by path relative to the plan folder.

    Raises: as `fit`.
    """
    planned: list[KernelPlan] = []
    files: dict[str, bytes] = {}
    for kernel in kernels:
        if options.compiled:
            finished, added = _filed(fit(kernel, machine, options, tell, plan_id))
        else:
            finished, added = _printed(_prepared(kernel, machine, options), machine, plan_id)
        planned.append(finished)
        files |= added
    return tuple(planned), files


def file_fitted(
    kernel: KernelPlan, machine: Machine, plan_id: str, *, compiled: bool
) -> tuple[KernelPlan, dict[str, bytes]]:
    """Return a kernel that was fitted before, under its present name, with its files: the schedule stays as it is.

    Raises:
        EvidenceMismatch: its binary does not keep the plan: another compiler than that of the fit.
        NotEmittable, CompilationFailed, MissingExtra.
    """
    if not compiled:
        return _printed(replace(kernel, compiled=()), machine, plan_id)
    outcome = _attempt(replace(kernel, source="", compiled=()), machine, plan_id)
    if isinstance(outcome, Refit):
        raise outcome.error or EvidenceMismatch(kernel=kernel.name, rounds=1, reason="; ".join(outcome.reasons))
    return _filed(outcome)


def _printed(kernel: KernelPlan, machine: Machine, plan_id: str) -> tuple[KernelPlan, dict[str, bytes]]:
    """Return a kernel with its source alone."""
    path = f"kernels/{kernel.name}.py"
    kernel = replace(kernel, source=path)
    return kernel, {path: emit(warp_kernel(kernel, machine), plan_id).encode()}


def _filed(fitted: Fitted) -> tuple[KernelPlan, dict[str, bytes]]:
    """Return a fitted kernel with the paths of its source and binaries, and the files by path."""
    name = fitted.kernel.name
    path = f"kernels/{name}.py"
    files = {path: fitted.source.encode()}
    records: list[Compiled] = []
    for binary in (fitted.binary, *fitted.beside):
        stem = f"kernels/{name}.{binary.kernel}.{binary.target}"
        files |= {f"{stem}.{binary.suffix}": binary.data, f"{stem}.json": binary.sidecar().encode()}
        records.append(binary.record(f"{stem}.{binary.suffix}"))
    return replace(fitted.kernel, source=path, compiled=tuple(records)), files


def fit(
    kernel: KernelPlan,
    machine: Machine,
    options: KernelOptions,
    tell: Tell,
    plan_id: str = "",
    pythons: Sequence[str] = (sys.executable,),
) -> Fitted:
    """Schedule over warp groups, emit, compile and examine until the binary keeps the plan.

    Args:
        pythons: whose Tritons compile; the first one's binary decides. Where only that of another one does not keep the
            plan, one more round is tried; without one as short, `Fitted.elsewhere` says where the plan is not kept.

    Raises:
        EvidenceMismatch: it does not after `ROUNDS` attempts, or differs in what no register changes.
        NoGluonFrame, NotEmittable, CompilationFailed, MissingExtra.
        TreadleError: there is no schedule over warp groups.
    """
    kernel = _prepared(kernel, machine, options)
    room, least_ii, attempts, rounds, budgets = Room(), 0, list[str](), 0, 0
    groups = _groups(kernel, machine, options, room)
    waiting: list[WarpPlan] | None = None
    fallback: Fitted | None = None
    while True:
        outcome = _attempt(replace(kernel, groups=groups, attempts=tuple(attempts)), machine, plan_id, pythons)
        if isinstance(outcome, Fitted):
            refit = _refit_elsewhere(outcome, machine)
            if refit is None or fallback is not None:
                return outcome if refit is None and _as_short(outcome, fallback) else fallback or outcome
            fallback, outcome = outcome, refit
        elif fallback is not None and not outcome.budget:
            return fallback
        reasons = "; ".join(outcome.reasons)
        attempts.append(f"{room.registers} registers, {room.shared_bytes} bytes left free: {reasons}")
        if outcome.budget and outcome.budget != groups.budget and budgets < BUDGETS:
            tell(f"{kernel.name}: registers as compiled, {outcome.budget}: {reasons}")
            groups, budgets = replace(groups, budget=outcome.budget), budgets + 1
            continue
        rounds, budgets = rounds + 1, 0
        if outcome.more is None and rounds < ROUNDS:
            waiting = _others(kernel, groups, options) if waiting is None else waiting
            if waiting:
                tell(f"{kernel.name}: another schedule of the same interval: {reasons}")
                groups = waiting.pop(0)
                continue
        if outcome.more is None or rounds == ROUNDS:
            raise outcome.error or EvidenceMismatch(kernel=kernel.name, rounds=rounds, reason=reasons)
        tell(f"{kernel.name}: back to the solver: {reasons}")
        more, waiting = outcome.more, None
        if more.registers and _alike(kernel):
            # Its registers are the fewest there are: what ptxas needs beside them, a longer interval may leave.
            least_ii, more = groups.schedule.schedule.ii_cycles * (SLOWER + 1) // SLOWER, replace(more, registers=0)
        room = Room(room.registers + more.registers, room.shared_bytes + more.shared_bytes)
        groups = _groups(kernel, machine, options, room, least_ii)


def _as_short(fitted: Fitted, first: Fitted | None) -> bool:
    """Whether an interval is hardly longer than that of the first schedule whose binary kept the plan."""
    kept, found = (f.kernel.groups.schedule.schedule.ii_cycles if f and f.kernel.groups else 0 for f in (first, fitted))
    return not kept or found * SLOWER <= kept * (SLOWER + 1)


def _others(kernel: KernelPlan, groups: WarpPlan, options: KernelOptions) -> list[WarpPlan]:
    """Return other schedules at the interval of one that cannot be emitted, cheapest assignment first."""
    if _alike(kernel):
        return []
    settings = Options(options.limits, options.objective, COST_MODEL)
    best = Solution(groups.schedule, groups.certificate)
    found = others(groups.warps, best, OTHERS, settings)
    return [WarpPlan(groups.warps, other.schedule, other.certificate, groups.room) for other in found]


def _prepared(kernel: KernelPlan, machine: Machine, options: KernelOptions) -> KernelPlan:
    """Return the kernel of the program for warp groups, in Gluon."""
    if kernel.program is None or not has_frame(kernel.program.family, machine):
        family = kernel.program.family if kernel.program else "loop"
        raise NoGluonFrame(family=family, kernel=kernel.name, architecture=machine.architecture)
    program = for_groups(kernel.program, machine)
    if program != kernel.program:
        kernel = _planned_anew(kernel, program, machine, options)
    try:
        groups = _groups(kernel, machine, options, Room())
    except NoWarpSchedule:
        cut = over_groups(program)
        splits = ROW_PARTS in cut.options and ROW_PARTS not in program.options
        if machine.has("tensor_memory") or not splits:
            raise
        kernel = _planned_anew(kernel, cut, machine, options)
        groups = _groups(kernel, machine, options, Room())
    return replace(kernel, groups=groups, groupless="", language="gluon")


def _planned_anew(kernel: KernelPlan, program: TileProgram, machine: Machine, options: KernelOptions) -> KernelPlan:
    planned = plan_program(program, machine, options)
    return replace(planned, name=kernel.name, calls=kernel.calls, phase=kernel.phase)


def _alike(kernel: KernelPlan) -> bool:
    """Whether groups do the same for sub-tiles of their own."""
    program = kernel.program
    return program is not None and program.family in KEYS_AS_ROWS and program.tile_sizes["sub_tiles"] > 1


def _groups(kernel: KernelPlan, machine: Machine, options: KernelOptions, room: Room, least_ii: int = 0) -> WarpPlan:
    """Return the schedule over warp groups that leaves room; the one at hand where that is it.

    That of a program whose groups are alike begins no iteration sooner than every `least_ii` cycles.
    """
    if kernel.groups is not None and kernel.groups.room == room and not least_ii:
        return kernel.groups
    assert kernel.program is not None
    warps: WarpLoop = room.taken_from(lower_warps(kernel.program, machine))
    wanted = Options(options.limits, options.objective, COST_MODEL)
    alike = schedule_alike(warps, wanted, least_ii=least_ii) if _alike(kernel) else None
    solved = alike or schedule(warps, wanted)
    return WarpPlan(warps, solved.schedule, solved.certificate, room)


def _attempt(
    kernel: KernelPlan, machine: Machine, plan_id: str, pythons: Sequence[str] = (sys.executable,)
) -> Fitted | Refit:
    """Return the kernel where its binary keeps the plan, else what would help, and why it does not."""
    try:
        lowered = warp_kernel(kernel, machine)
        short = _short_in_order(lowered)
        if short > 0:
            reason = f"in the order of its instructions a group's values need {short} more registers"
            return Refit((reason,), Room(registers=-(-short // REGISTER_STEP) * REGISTER_STEP))
        lowered = checked(lowered)
        source = emit(lowered, plan_id)
    except NotEmittable as error:
        return Refit((str(error),), error=error)
    except NoSharedMemoryLeft as error:
        return Refit((str(error),), Room(shared_bytes=error.missing_bytes))
    except NoRoomForHandoffs as error:
        missing = int(str(error.fields["needed"])) - int(str(error.fields["free"]))
        return Refit((str(error),), Room(shared_bytes=missing) if error.fields["memory"] == "shared" else None)
    first, *more = pythons
    binary, *beside = compile_sources({kernel.name: source}, machine.architecture, python=first)[kernel.name]
    evidence = examine(lowered, binary)
    if evidence.mismatches:
        return _refit(lowered, evidence)
    elsewhere: list[Elsewhere] = []
    for python in more:
        elsewhere.append(_compiled_elsewhere(lowered, source, python))
    return Fitted(kernel, source, binary, evidence, tuple(beside), tuple(elsewhere))


def _refit_elsewhere(fitted: Fitted, machine: Machine) -> Refit | None:
    """Return why another Triton's binary does not keep the plan, and what would help; None where all keep it."""
    for found in fitted.elsewhere:
        if found.refused:
            lowered = warp_kernel(fitted.kernel, machine)
            refit = _refit(lowered, found.evidence) if found.evidence is not None else Refit(())
            return replace(refit, reasons=(found.refused,), budget=())
    return None


def _refit(kernel: WarpKernel, evidence: Evidence) -> Refit:
    """Return why a binary does not keep its plan, and what of registers would help."""
    if not evidence.short_of_registers:
        return Refit(evidence.mismatches)
    more = Room(registers=_missing_registers(kernel, evidence))
    return Refit(evidence.mismatches, more, compiled_budget(kernel, evidence))


def _compiled_elsewhere(kernel: WarpKernel, source: str, python: str) -> Elsewhere:
    """Return what another Triton makes of a source, set against the plan that a fit with this one would give it.

    What `setmaxnreg` grants does not depend on the registers that were seen, so the text is the same.
    """
    name, architecture = kernel.name, kernel.machine.architecture
    try:
        binary = compile_sources({name: source}, architecture, python=python)[name][0]
    except CompilationFailed as error:
        return Elsewhere(python, None, None, f"{error.code}: {error}")
    evidence = examine(kernel, binary)
    budget = compiled_budget(kernel, evidence) if evidence.mismatches and evidence.short_of_registers else ()
    own = replace(kernel, budget=budget or kernel.budget)
    if budget and register_budgets(own) == register_budgets(kernel):
        evidence = examine(own, binary)
    reasons = "; ".join(evidence.mismatches)
    return Elsewhere(python, binary, evidence, f"{binary.compiler}: {reasons}" if reasons else "")


def _short_in_order(kernel: WarpKernel) -> int:
    """Return by how many registers a group's values exceed its schedule's in the order in which they are printed."""
    program = kernel.warp_program
    needed = zip(program.groups, registers_in_order(program, kernel.warps), strict=True)
    return max((most - group.registers for group, most in needed if group.name not in kernel.warps.roles), default=0)


def checked(kernel: WarpKernel) -> WarpKernel:
    """Return the kernel; raises NotEmittable where its warp program is not legal."""
    findings = program_findings(kernel)
    if findings:
        raise NotEmittable(kernel=kernel.name, reason=f"its warp program is not legal: {findings[0]}")
    return kernel


def program_findings(kernel: WarpKernel) -> list[Finding]:
    """Return why the warp program that is printed is not legal.

    Loops shorter than what overlaps do not count: kernels pad them with empty iterations.
    """
    facts = facts_of(kernel.program, kernel.machine, kernel.warps, kernel.made)
    findings = check_warp_program(kernel.warp_program, kernel.warps, kernel.made, facts)
    least = max(group.stages for group in kernel.warp_program.groups) - 1
    short = tuple(f", {trips} iterations" for trips in range(least))
    return [finding for finding in findings if not any(words in str(finding) for words in short)]


def compiled_budget(kernel: WarpKernel, evidence: Evidence) -> tuple[int, ...]:
    """Return registers for every group by what the compiler used; groups that only copy get more where they spill.

    Nothing is returned where only groups that compute spill: they share all registers of the multiprocessor already.
    """
    planned = kernel.registers
    short = [at for at, group in enumerate(evidence.groups) if not group.computes and _runs_short(group)]
    if evidence.spill_bytes and not short:
        return ()
    budget = [
        group.registers_used if group.computes else planned[at] + (REGISTER_STEP if at in short else 0)
        for at, group in enumerate(evidence.groups)
    ]
    return tuple(budget) if sum(budget) <= kernel.warps.limits.registers_of_file else ()


def _runs_short(group: GroupEvidence) -> bool:
    """Whether a group that only copies names nearly all of its registers, and spills."""
    return group.local > 0 and group.registers_used + REGISTER_STEP // 2 >= group.registers_planned


def _missing_registers(kernel: WarpKernel, evidence: Evidence) -> int:
    """Return by how many registers a plan is tightened: after spills so many that the schedule has to change."""
    if evidence.spill_bytes:
        steps = next(steps for least, steps in SPILL_STEPS if evidence.spill_bytes >= least)
        limits, planned = kernel.warps.limits, kernel.made.registers
        computing = [registers for registers in planned if registers > limits.role_registers]
        others = sum(planned) - sum(computing)
        most = min(limits.registers_per_group, (limits.registers_of_file - others) // max(1, len(computing)))
        slack = max(0, most - max(computing, default=most))
        return -(-slack // REGISTER_STEP) * REGISTER_STEP + REGISTER_STEP * steps
    beyond = max((group.registers_used - group.registers_planned for group in evidence.groups), default=0)
    return max(REGISTER_STEP, (beyond - 1) // REGISTER_STEP * REGISTER_STEP)
