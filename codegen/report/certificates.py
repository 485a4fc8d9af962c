"""Every certificate of the plan, level by level, with its evidence in words."""

from __future__ import annotations

from treadle.codegen.report.sections import Context, Section, filled
from treadle.codegen.report.words import evidence_in_words
from treadle.ir.certificate import Certificate, Level
from treadle.ir.tile.loop import Loop


def section(context: Context) -> Section | None:
    """Return the table, or nothing for a plan without certificates."""
    certified: list[tuple[str, Certificate, Loop | None]] = [(c.problem, c, None) for c in context.plan.certificates]
    certified += [(kernel.name, kernel.certificate, kernel.loop) for kernel in context.kernels]
    rows = [row for name, certificate, loop in certified for row in _rows(name, certificate, loop)]
    if not rows:
        return None
    models = sorted({certificate.cost_model for _, certificate, _ in certified})
    return Section("certificates", "Certificates", filled("certificates.html.j2", rows=rows, cost_models=models))


def _rows(name: str, certificate: Certificate, loop: Loop | None) -> list[tuple[str, Level, str]]:
    return [
        (name if position == 0 else "", level, evidence_in_words(level, loop))
        for position, level in enumerate(certificate.levels)
    ]
