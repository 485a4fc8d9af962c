"""Reviews kernels: the loop lowered again, the schedule, claims, predictions, the emitted source, the binary."""

from __future__ import annotations

from pathlib import Path

from treadle.codegen.triton.emit import emit
from treadle.costmodels.cubin import read_resources
from treadle.costmodels.lower import lower
from treadle.costmodels.predict import predict
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.errors import UnreadableFile
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan, parse_json, read_bytes, read_text
from treadle.ir.tile.claims import recheck
from treadle.ir.tile.kernel import Compiled, KernelBody, KernelPlan
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.schedule import check
from treadle.verification.core import Review


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `kernel`."""
    body: KernelBody = plan.body
    total = Review(0, 0, ())
    for kernel in body.kernels:
        total += review_kernel(kernel, body.machine, plan.id, folder)
    return total


def review_kernel(kernel: KernelPlan, machine: Machine | None, plan_id: str, folder: Path | None) -> Review:
    """Review one kernel; the folder is None when its files are not at hand."""
    claims = recheck(kernel.loop, kernel.schedule, kernel.certificate)
    findings = [*check(kernel.loop, kernel.schedule), *claims.findings]
    rederived = 1 + claims.rederived
    if machine is not None and kernel.program is not None:
        found, count = _review_costs(kernel, kernel.program, machine)
        findings += found
        rederived += count
        for compiled in kernel.compiled:
            findings += _review_files(kernel, compiled, machine, plan_id, folder)
            rederived += 4 if folder else 0
    located = tuple(_within(kernel.name, finding) for finding in findings)
    return Review(rederived, claims.on_solver_word, located)


def _within(name: str, finding: Finding) -> Finding:
    where = f"kernel {name}: {finding.where}"
    return Finding(finding.code, where, finding.message, finding.expected, finding.found, finding.severity)


def _review_costs(kernel: KernelPlan, program: TileProgram, machine: Machine) -> tuple[list[Finding], int]:
    """Lower the program again and recompute the predictions."""
    try:
        loop = lower(program, machine)
        expected = {p.name: p for p in predict(program, loop, kernel.schedule, machine)}
    except TreadleError as error:
        return [Finding("TRD415", program.name, f"the program cannot be lowered: {error}")], 1
    findings: list[Finding] = []
    if loop != kernel.loop:
        findings.append(Finding("TRD415", program.name, "the loop is not the one the machine makes of the program"))
    found = {prediction.name: prediction for prediction in kernel.predictions}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            shown = (str(expected.get(name)), str(found.get(name)))
            findings.append(Finding("TRD416", f"{program.name}.{name}", "the prediction is another", *shown))
    return findings, 1 + len(expected)


def _review_files(
    kernel: KernelPlan, compiled: Compiled, machine: Machine, plan_id: str, folder: Path | None
) -> list[Finding]:
    """Print the source again and read the binary's resources again."""
    if folder is None:
        return []
    try:
        source = read_text(folder / compiled.source)
        resources = read_resources(read_bytes(folder / compiled.binary), compiled.binary)[0]
        sidecar = (folder / compiled.binary).with_suffix(".json")
        launch = parse_json(read_text(sidecar), str(sidecar)).get("dynamic_shared_bytes")
    except UnreadableFile as error:
        return [Finding("TRD492", compiled.source, str(error))]
    except TreadleError as error:
        return [Finding("TRD417", compiled.binary, str(error))]
    findings: list[Finding] = []
    if source != emit(kernel, machine, plan_id):
        findings.append(Finding("TRD418", compiled.source, "the source is not the one the plan gives"))
    capacity = int(machine.value("shared_capacity_bytes"))
    for what, expected, found, wrong in (
        ("registers", resources.registers, compiled.registers, resources.registers != compiled.registers),
        ("spill bytes", resources.local_bytes, compiled.spill_bytes, resources.local_bytes != compiled.spill_bytes),
        ("shared memory", launch, compiled.smem_bytes, launch != compiled.smem_bytes),
        ("shared memory than fits", capacity, compiled.smem_bytes, compiled.smem_bytes > capacity),
    ):
        if wrong:
            findings.append(
                Finding("TRD417", compiled.binary, f"the binary has other {what}", str(expected), str(found))
            )
    return findings
