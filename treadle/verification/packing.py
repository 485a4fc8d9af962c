"""Reviews packings: the placement's legality, the replay of the migration, every value and bound."""

from __future__ import annotations

from pathlib import Path

from treadle.costmodels import migration
from treadle.costmodels.packing_claims import recheck
from treadle.ir.cluster import reassignment
from treadle.ir.cluster.packing import PackingBody
from treadle.ir.cluster.placement import check
from treadle.ir.cluster.reassignment import ReassignmentBody
from treadle.ir.diagnostics import Finding
from treadle.ir.plan import Plan
from treadle.verification.core import Review


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `packing`."""
    body: PackingBody = plan.body
    legality = check(body.cluster, body.placement)
    if any(finding.code == "TRD460" for finding in legality):
        return Review(1, 0, tuple(legality))
    steps = migration.check(body.cluster, body.placement, body.migration)
    total = Review(2 + len(body.migration.waves), 0, (*legality, *steps))
    if not plan.certificates:
        return total + Review(0, 0, (Finding("TRD475", "certificates", "a packing has a certificate"),))
    claims = recheck(body.cluster, body.placement, body.objective, plan.certificates[0])
    return total + Review(claims.rederived, claims.on_solver_word, claims.findings)


def review_reassignment(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `reassignment`: legality, the cost, the bound."""
    body: ReassignmentBody = plan.body
    findings = reassignment.check(body.instance, body.assignment)
    if any(finding.code == "TRD460" for finding in findings) or len(plan.certificates) != 1:
        return Review(1, 0, tuple(findings) or (Finding("TRD475", "certificates", "a reassignment has one"),))
    level = plan.certificates[0].levels[0]
    value, bound = reassignment.cost(body.instance, body.assignment), reassignment.volume_bound(body.instance)
    if level.value != value:
        findings.append(Finding("TRD475", level.name, "the value is another", str(value), str(level.value)))
    if level.bound is not None and level.bound > bound:
        findings.append(Finding("TRD476", level.name, "the volumes prove less", str(bound), str(level.bound)))
    return Review(3, 0, tuple(findings))
