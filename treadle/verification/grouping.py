"""Reviews sequence groupings: legality, replayed time of every round, bounds. Codes: TRD645 figures, TRD646 bound."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from treadle.codegen.training.grouping_files import groups_text, parse_groups
from treadle.costmodels.training_group_rounds import RoundPrices
from treadle.costmodels.training_grouping import bounds_us, grouping_predictions, priced_us, rounds_us
from treadle.ir.diagnostics import Finding
from treadle.ir.plan import Plan, read_bytes
from treadle.ir.training.grouping import GroupingBody, check_grouping
from treadle.verification.core import Review, compare_predictions

FILE = "training/groups.csv"
_MOST_PRICES = 64
"""Long sequences whose prices are checked; more would only take longer."""


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `sequence-groups`."""
    body: GroupingBody = plan.body
    findings = review_grouping(plan)
    if folder and not findings and (folder / FILE).is_file():
        findings += _read_back(body, read_bytes(folder / FILE).decode("utf-8", "replace"))
    return Review(len(body.rounds) + len(plan.predictions) + 2, 0, tuple(findings))


def review_grouping(plan: Plan) -> list[Finding]:
    """Check decisions, figures and bound."""
    body: GroupingBody = plan.body
    if findings := check_grouping(body):
        return findings
    findings = compare_predictions("predictions", grouping_predictions(body), plan.predictions)
    levels = [level for certificate in plan.certificates for level in certificate.levels]
    if len(levels) != 1:
        return [*findings, Finding("TRD646", "certificates", "a grouping has one certificate of one level")]
    level, value = levels[0], sum(rounds_us(body))
    if not math.isclose(level.value, value, rel_tol=1e-9):
        findings.append(Finding("TRD645", f"certificate.{level.name}", "value", f"{value:.9g}", f"{level.value:.9g}"))
    evidence = level.evidence
    bound = max(_priced(body, evidence.get("weights")), _by_rounds(body, evidence.get("prices")))
    bound = max(bound, *bounds_us(body.problem).values())
    if level.bound is None or level.bound > max(bound, value if bound >= value * (1 - 1e-9) else bound) * (1 + 1e-9):
        findings.append(Finding("TRD646", f"certificate.{level.name}", "bound", f"<= {bound:.9g}", str(level.bound)))
    return findings


def _priced(body: GroupingBody, weights: object) -> float:
    """Return the bound of the stored weights; 0 for what are no weights."""
    if not isinstance(weights, list) or len(weights) != len(body.problem.sizes):
        return 0.0
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in weights):
        return 0.0
    return priced_us(body.problem, weights)


def _by_rounds(body: GroupingBody, prices: object) -> float:
    """Return the bound of the stored prices of the longest sequences; 0 for what are no prices, or too many."""
    if not isinstance(prices, list) or not 0 < len(prices) <= min(_MOST_PRICES, len(body.problem.lengths)):
        return 0.0
    if not all(isinstance(value, int | float) and 0 <= value < math.inf for value in prices):
        return 0.0
    return RoundPrices(body.problem, len(prices)).bound_us(np.array(prices))


def _read_back(body: GroupingBody, text: str) -> list[Finding]:
    try:
        same = parse_groups(text) == body.rounds
    except (ValueError, KeyError, TypeError):
        same = False
    return [] if same and text == groups_text(body) else [Finding("TRD428", FILE, "says other groups")]
