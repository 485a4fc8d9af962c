"""Links to the parts of a bundle: plan folders of their own, each with its report."""

from __future__ import annotations

from treadle.codegen.report.sections import Context, Section, filled


def section(context: Context) -> Section | None:
    """Return the links, or nothing for a plan without parts."""
    if not context.plan.parts:
        return None
    return Section("parts", "Serving and placement", filled("parts.html.j2", parts=context.plan.parts))
