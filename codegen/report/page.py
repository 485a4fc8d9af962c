"""The page: head, share of proofs, sections, all in one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath

from markupsafe import Markup

from treadle.codegen.report.sections import Context, ReviewFigures, filled, sections
from treadle.codegen.report.words import CHECKED
from treadle.ir.certificate import ProofKind
from treadle.ir.plan import Plan


def render(plan: Plan, sources: Mapping[str, str], review: ReviewFigures | None = None) -> str:
    """Return the report of a plan as HTML; same plan, sources and review, same text.

    Args:
        plan: sealed.
        sources: generated sources by kernel name.
        review: what verification said of the plan; None when it was not verified.
    """
    context = Context(plan, sources, review)
    return filled(
        "page.html.j2",
        plan=plan,
        title=_title(context),
        facts=_facts(context),
        shares=_shares(context),
        sections=[(part.anchor, part.title, Markup(part.html)) for part in sections(context)],
        style=Markup(filled("style.css.j2")),
        script=Markup(filled("script.js.j2")),
    )


def _title(context: Context) -> str:
    machine = f" on {context.machine.name}" if context.machine else ""
    model = getattr(context.plan.body, "model", None)
    if isinstance(model, str):
        return f"Serving {model}"
    if model is not None:
        return f"{PurePath(str(model.name)).name}{machine}"
    names = [kernel.name for kernel in context.kernels]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{', '.join(names[:2])}{more}{machine}" if names else f"{context.plan.kind} plan"


def _facts(context: Context) -> list[tuple[str, str]]:
    plan, machine = context.plan, context.machine
    facts = [("plan", plan.id), ("kind", plan.kind)]
    if machine is not None:
        facts.append(("machine", f"{machine.id} ({machine.architecture})"))
    return [*facts, *plan.versions.items()]


def _shares(context: Context) -> list[tuple[str, str, int, float]]:
    """Return (kind of proof, what verify does, levels, share), the most convincing kind first."""
    certificates = [*context.plan.certificates, *(kernel.certificate for kernel in context.kernels)]
    counts = Counter(level.proof for certificate in certificates for level in certificate.levels)
    total = sum(counts.values())
    return [(kind.value, CHECKED[kind], counts[kind], counts[kind] / total) for kind in ProofKind if counts[kind]]
