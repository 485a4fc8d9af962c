"""What verification found."""

from __future__ import annotations

from treadle.codegen.report.sections import Context, Section, filled


def section(context: Context) -> Section | None:
    """Return the outcome of the verification, or nothing when there was none."""
    if context.review is None:
        return None
    return Section("verification", "Verification", filled("checks.html.j2", review=context.review))
