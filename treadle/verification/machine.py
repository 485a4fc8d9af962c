"""Reviews the machine inside a plan: it must be the recorded input, and the shipped one where it carries its name."""

from __future__ import annotations

from treadle.costmodels.latency import at_percentile_of
from treadle.costmodels.machines import load_machine, machine_ids
from treadle.ir.codec import encode
from treadle.ir.diagnostics import Finding, Severity
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan, digest
from treadle.ir.version import VERSION
from treadle.verification.core import Review


def review_machine(plan: Plan, machine: Machine | None) -> Review:
    """Compare the plan's machine with its input record and, by id, with the file that comes with treadle.

    A difference from the shipped file is an error for a plan of this version, and a warning for one of another:
    machine files improve. Loads may be as late as a percentile says that the file has.
    """
    if machine is None:
        return Review(0, 0, ())
    findings: list[Finding] = []
    recorded = {item.path: item.sha256 for item in plan.inputs if item.role == "machine"}
    if recorded.get(machine.id) != digest(encode(machine)):
        findings.append(Finding("TRD497", f"machine {machine.id}", "the machine is not the recorded input"))
    if machine.id in machine_ids() and at_percentile_of(load_machine(machine.id), machine) != machine:
        same = plan.versions.get("treadle") == VERSION
        findings.append(
            Finding(
                "TRD497",
                f"machine {machine.id}",
                f"the machine differs from the shipped file: {_first_difference(machine)}",
                severity=Severity.ERROR if same else Severity.WARNING,
            )
        )
    return Review(1, 0, tuple(findings))


def _first_difference(machine: Machine) -> str:
    expected = at_percentile_of(load_machine(machine.id), machine)
    shipped = {figure.name: figure for figure in expected.figures}
    for figure in machine.figures:
        if shipped.get(figure.name) != figure:
            return f"figure `{figure.name}` is {figure.value:g} {figure.unit}"
    return "names, traits or a missing figure"
