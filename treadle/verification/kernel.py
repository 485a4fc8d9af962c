"""Reviews kernels: the loop lowered again, the schedule, claims, predictions, the emitted source, the binary."""

from __future__ import annotations

from pathlib import Path

from treadle.codegen.gluon.emit import emit as emit_gluon
from treadle.codegen.gluon.kernel import warp_kernel
from treadle.codegen.triton.emit import emit
from treadle.costmodels.cubin import read_resources
from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.predict import predict
from treadle.costmodels.warp_nest import run_kernel
from treadle.frontends import programs
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan, parse_json, read_bytes, read_text
from treadle.ir.tile.claims import recheck
from treadle.ir.tile.kernel import Compiled, KernelBody, KernelPlan, ScheduledLoop, WarpPlan
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.schedule import check
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import check_warps
from treadle.verification.core import Review, compare_predictions
from treadle.verification.differences import Difference, first_difference
from treadle.verification.kernel_modes import review_modes
from treadle.verification.machine import review_machine


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `kernel`."""
    body: KernelBody = plan.body
    total = review_machine(plan, body.machine)
    for kernel in body.kernels:
        total += review_kernel(kernel, body.machine, plan.id, folder)
    return total


def review_kernel(kernel: KernelPlan, machine: Machine | None, plan_id: str, folder: Path | None) -> Review:
    """Review one kernel; the folder is None when its files are not at hand."""
    scheduled = (ScheduledLoop(kernel.loop, kernel.schedule, kernel.certificate), *kernel.siblings)
    findings: list[Finding] = []
    rederived = on_solver_word = 0
    for part in scheduled:
        if illegal := check(part.loop, part.schedule):
            return Review(rederived + 1, 0, tuple(_within(kernel.name, finding) for finding in illegal))
        claims = recheck(part.loop, part.schedule, part.certificate)
        findings += claims.findings
        rederived += 1 + claims.rederived
        on_solver_word += claims.on_solver_word
    if machine is not None and kernel.program is not None:
        found, count = _review_costs(kernel, kernel.program, machine)
        findings += found
        rederived += count
    for more in (_review_all_groups(kernel, machine), review_modes(kernel, machine)):
        findings += more.findings
        rederived += more.rederived
        on_solver_word += more.on_solver_word
    if folder is not None and machine is not None and not findings:
        findings += _review_source(kernel, machine, plan_id, folder)
        for compiled in kernel.compiled:
            findings += _review_binary(compiled, machine, folder)
        rederived += bool(kernel.source) + 4 * len(kernel.compiled)
    located = tuple(_within(kernel.name, finding) for finding in findings)
    return Review(rederived, on_solver_word, located)


def _within(name: str, finding: Finding) -> Finding:
    where = f"kernel {name}: {finding.where}"
    return Finding(finding.code, where, finding.message, finding.expected, finding.found, finding.severity)


def _review_all_groups(kernel: KernelPlan, machine: Machine | None) -> Review:
    """Review the loops of a kernel over warp groups one by one, then together; the figures are simulated again."""
    program = kernel.program
    plans = ((program, kernel.groups), *zip(program.siblings if program else (), kernel.siblings, strict=True))
    total = Review(0, 0, ())
    for own, part in plans:
        plan = part.groups if isinstance(part, ScheduledLoop) else part
        if plan is not None:
            total += _review_groups(plan, own, machine)
    if total.findings or kernel.groups is None or machine is None:
        return total
    run = run_kernel(kernel, machine)
    differences = compare_predictions(kernel.name, run.simulated, kernel.simulated)
    return total + Review(run.rederived, 0, (*run.findings, *differences))


def _review_groups(plan: WarpPlan, program: TileProgram | None, machine: Machine | None) -> Review:
    """Lower a loop with warps again, check schedule and claims."""
    where = plan.warps.loop.name
    if program is None or machine is None:
        return Review(1, 0, (Finding("TRD493", where, "a loop without a program has no warp groups"),))
    try:
        expected = plan.room.taken_from(lower_warps(program, machine))
        if expected != plan.warps:
            first = first_difference(expected, plan.warps)
            return Review(1, 0, (_not_derived("warps", where, first),))
    except TreadleError as error:
        return Review(1, 0, (Finding("TRD493", where, f"the program cannot be lowered to warps: {error}"),))
    if illegal := check_warps(plan.warps, plan.schedule):
        return Review(2, 0, tuple(illegal))
    claims = recheck_warps(plan.warps, plan.schedule, plan.certificate)
    return Review(2 + claims.rederived, claims.on_solver_word, tuple(claims.findings))


def _review_costs(kernel: KernelPlan, program: TileProgram, machine: Machine) -> tuple[list[Finding], int]:
    """Build the program, lower it and predict again; each step only when the one before gives what the plan has."""
    if findings := _review_program(program):
        return findings, 1
    try:
        for own, loop in zip(
            (program, *program.siblings), (kernel.loop, *(s.loop for s in kernel.siblings)), strict=True
        ):
            expected_loop = lower(own, machine)
            if expected_loop != loop:
                return [_not_derived("loop", own.name, first_difference(expected_loop, loop))], 2
        expected = predict(program, kernel.loop, kernel.schedule, machine, kernel.siblings)
    except TreadleError as error:
        return [Finding("TRD493", program.name, f"the program cannot be lowered: {error}")], 2
    return compare_predictions(program.name, expected, kernel.predictions), 2 + len(expected)


def _not_derived(what: str, where: str, first: Difference) -> Finding:
    """A loop, bare or over warps, is not what the program gives on the machine."""
    return Finding(
        "TRD493",
        f"{where}: {what}.{first.place}",
        "not what the machine makes of the program",
        first.expected,
        first.found,
    )


def _review_program(program: TileProgram) -> list[Finding]:
    """Build a program of the library again from its family, shape, tile sizes and options."""
    if program.family not in programs.FAMILIES:
        return []
    try:
        again = programs.build(program.family, program.shape, program.tile_sizes, program.options)
    except TreadleError as error:
        return [Finding("TRD493", program.name, f"the library has no such program: {error}")]
    if again != program:
        first = first_difference(again, program)
        where = f"{program.name}.{first.place}"
        return [Finding("TRD493", where, "the program is not the library's", first.expected, first.found)]
    return []


def _review_source(kernel: KernelPlan, machine: Machine, plan_id: str, folder: Path) -> list[Finding]:
    """Print the source again."""
    own = kernel.program is None or kernel.program.family not in programs.FAMILIES
    if own and not kernel.source:
        return []
    try:
        source = read_text(folder / kernel.source)
        printed = emit_gluon(warp_kernel(kernel, machine), plan_id) if kernel.language == "gluon" else None
        expected = emit(kernel, machine, plan_id) if printed is None else printed
    except TreadleError as error:
        return [Finding("TRD496", kernel.source, f"the source cannot be compared: {error}")]
    if source != expected:
        return [Finding("TRD496", kernel.source, "the source is not the one the plan gives")]
    return []


def _review_binary(compiled: Compiled, machine: Machine, folder: Path) -> list[Finding]:
    """Read the binary's resources again; what a launch adds in shared memory stands beside it."""
    try:
        resources = read_resources(read_bytes(folder / compiled.binary), compiled.binary)[0]
        sidecar = (folder / compiled.binary).with_suffix(".json")
        launch = parse_json(read_text(sidecar), str(sidecar))
    except TreadleError as error:
        return [Finding("TRD495", compiled.binary, str(error))]
    findings: list[Finding] = []
    for what, expected, found in (
        ("registers", resources.registers, compiled.registers),
        ("spill bytes", resources.local_bytes, compiled.spill_bytes),
        ("shared memory", launch.get("dynamic_shared_bytes"), compiled.smem_bytes),
        ("a compiler", launch.get("compiler"), compiled.compiler),
        ("a target", machine.architecture, compiled.target),
    ):
        if expected != found:
            findings.append(
                Finding("TRD495", compiled.binary, f"the binary has other {what}", str(expected), str(found))
            )
    if compiled.smem_bytes > machine.value("shared_capacity_bytes"):
        findings.append(
            Finding("TRD495", compiled.binary, "more shared memory than fits", "", str(compiled.smem_bytes))
        )
    return findings
