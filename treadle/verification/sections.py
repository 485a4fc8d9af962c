"""Reviews cuts into sections: order, what is held, memory on chip, times, and the potentials behind the bound.

Codes: TRD380 and TRD381 of `ir.sections`; TRD382 memory on chip, TRD383 time, TRD384 bound.
"""

from __future__ import annotations

from pathlib import Path

from treadle.costmodels.sections import SectionCosts, potential_bound_ns, predictions, total_ns
from treadle.ir.certificate import Level
from treadle.ir.diagnostics import Finding
from treadle.ir.plan import Plan
from treadle.ir.sections.graph import SectionsBody, check
from treadle.verification.core import Review, compare_predictions
from treadle.verification.machine import review_machine


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `sections`."""
    body: SectionsBody = plan.body
    total = review_machine(plan, body.machine)
    if findings := check(body):
        return total + Review(1, 0, tuple(findings))
    costs = SectionCosts(body.graph, body.machine)
    time = total_ns(costs, body.sections)
    if time is None:
        return total + Review(1, 0, (Finding("TRD382", "sections", "a section needs more memory than is on chip"),))
    levels = [level for certificate in plan.certificates for level in certificate.levels]
    if [level.name for level in levels] != ["time"]:
        return total + Review(1, 0, (Finding("TRD383", "certificates", "a cut has one level, its time"),))
    findings = _review_level(costs, levels[0], time)
    findings += compare_predictions("predictions", predictions(body), plan.predictions)
    return total + Review(3 + len(plan.predictions), 0, tuple(findings))


def _review_level(costs: SectionCosts, level: Level, time: int) -> list[Finding]:
    findings: list[Finding] = []
    if level.value != time:
        findings.append(Finding("TRD383", "time", "the time of the sections differs", f"{time} ns", f"{level.value}"))
    potentials = level.evidence.get("potentials")
    if not isinstance(potentials, dict) or not all(isinstance(value, int) for value in potentials.values()):
        return [*findings, Finding("TRD384", "time", "the certificate has no potentials")]
    proven = potential_bound_ns(costs, potentials)
    if level.bound is None or level.bound > proven:
        findings.append(
            Finding("TRD384", "time", "the potentials do not prove the bound", f"<= {proven}", f"{level.bound}")
        )
    return findings
