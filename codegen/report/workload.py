"""What the plan was asked to serve: lengths, rate, service levels."""

from __future__ import annotations

from treadle.codegen.report.sections import Context, Section, filled
from treadle.ir.deployment import DeploymentBody


def section(context: Context) -> Section | None:
    """Return the workload, or nothing for plans without one."""
    body = context.plan.body
    if not isinstance(body, DeploymentBody):
        return None
    return Section("workload", "Workload", filled("workload.html.j2", request=body.request))
