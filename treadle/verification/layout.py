"""Reviews of offline placements: legality, values and bounds, all recomputed without a solver."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import isfinite
from pathlib import Path

from treadle.ir.certificate import Level
from treadle.ir.codec import decode, file_locator
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.layout import adapters, batch, buffers, expert_bounds, expert_traffic, experts, tiers
from treadle.ir.plan import Plan
from treadle.ir.serving.tree import Tree, tree_bound
from treadle.verification.core import Review

Claim = tuple[str, float, float]
"""Level name, value and bound as recomputed."""


def review_buffers(plan: Plan, folder: Path | None) -> Review:
    """Review buffer offsets: overlap, range, height, live peak."""
    body: buffers.BuffersPlan = plan.body
    return reviewed(
        plan, buffers.check(body), lambda: [("height", body.height_bytes, buffers.peak_live(body.problem)[0])]
    )


def review_experts(plan: Plan, folder: Path | None) -> Review:
    """Review expert slots: replicas, groups, GPU loads, bounds."""
    body: experts.ExpertsPlan = plan.body

    def claims() -> list[Claim]:
        found: list[Claim] = []
        for layer, slots in enumerate(body.slots):
            value = float(max(experts.gpu_loads(body.problem, layer, slots)))
            found.append((f"layer {layer} peak", value, min(_experts_bound(plan, layer), value)))
            if body.problem.sources:
                crossing = float(expert_traffic.cross_traffic(body.problem, layer, slots))
                least = float(expert_traffic.traffic_bound(body.problem, layer))
                found.append((f"layer {layer} traffic", crossing, min(least, crossing)))
        return found

    return reviewed(plan, experts.check(body), claims)


def _experts_bound(plan: Plan, layer: int) -> float:
    """Return the bound that is a formula, or the certificate's own where a search confirms it."""
    formula = expert_bounds.bound_of(plan.body.problem, layer).value
    claimed = plan.certificates[0][f"layer {layer} peak"].bound
    if claimed is None or claimed <= formula or not isfinite(claimed):
        return float(formula)
    confirmed = expert_bounds.refuted(plan.body.problem, layer, Fraction(claimed))
    return claimed if confirmed else float(formula)


def review_adapters(plan: Plan, folder: Path | None) -> Review:
    """Review adapter homes: slots, memory, peak load, moves."""
    body: adapters.AdaptersPlan = plan.body

    def claims() -> list[Claim]:
        value = float(max(adapters.relative_loads(body)))
        return [
            ("peak load", value, min(float(adapters.load_bound(body.problem)[0]), value)),
            ("moves", body.moves, adapters.least_moves(body.problem, value)),
        ]

    return reviewed(plan, adapters.check(body), claims)


def review_tiers(plan: Plan, folder: Path | None) -> Review:
    """Review tiers: choices, capacities, reading time, and the bound of the stored tree in exact arithmetic."""
    body: tiers.TiersPlan = plan.body

    def claims() -> list[Claim]:
        value = float(body.step_time_s * 1_000_000)
        evidence = plan.certificates[0]["reading time"].evidence
        tree = decode(Tree, evidence.get("tree"), file_locator("certificate"))
        proven = tree_bound(tiers.program_of(body.problem), tree)
        return [("reading time", value, 0.0 if proven is None else float(-proven))]

    return reviewed(plan, tiers.check(body), claims)


def review_batch(plan: Plan, folder: Path | None) -> Review:
    """Review a batch order: permutation, computed and distinct blocks, grouped savings."""
    body: batch.BatchPlan = plan.body

    def claims() -> list[Claim]:
        return [
            ("computed blocks", batch.computed_blocks(body.problem, body.order), batch.distinct_blocks(body.problem)),
            ("grouped savings", batch.grouped_savings(body), batch.best_grouping(body.problem)[0]),
        ]

    return reviewed(plan, batch.check(body), claims)


def reviewed(
    plan: Plan, legality: list[Finding], claims: Callable[[], list[Claim]], others: tuple[str, ...] = ()
) -> Review:
    """Compare the levels of the certificate with the claims; an illegal plan has no figures to compare.

    `others` are predictions that are no levels, which the caller reviews.
    """
    if legality:
        return Review(1, 0, tuple(legality))
    if len(plan.certificates) != 1:
        return Review(1, 0, (Finding("TRD456", "certificates", "one certificate", "1", str(len(plan.certificates))),))
    try:
        recomputed = claims()
    except (TreadleError, KeyError) as error:
        return Review(1, 0, (Finding("TRD456", "certificate", f"the evidence cannot be read: {error}"),))
    levels = plan.certificates[0].levels
    findings: list[Finding] = []
    if [level.name for level in levels] != [name for name, _, _ in recomputed]:
        expected = ", ".join(name for name, _, _ in recomputed)
        findings.append(Finding("TRD456", "certificate", "levels", expected, ", ".join(level.name for level in levels)))
    for level, (_, value, bound) in zip(levels, recomputed, strict=False):
        findings += compare(level, value, bound)
    findings += _review_predictions(plan, {name: value for name, value, _ in recomputed}, others)
    return Review(1 + 2 * len(recomputed), 0, tuple(findings))


def compare(level: Level, value: float, bound: float, tolerance: float = 1e-9) -> list[Finding]:
    """Return findings where a value differs from the recomputed one, or a bound claims more than is proven."""
    findings: list[Finding] = []
    slack = Fraction(tolerance) * max(Fraction(1), abs(Fraction(value)))
    if abs(Fraction(level.value) - Fraction(value)) > slack:
        findings.append(Finding("TRD457", level.name, "value", str(value), str(level.value)))
    if level.bound is not None:
        excess = Fraction(level.bound) - Fraction(bound)
        if (-excess if level.maximize else excess) > slack:
            findings.append(
                Finding("TRD458", level.name, "the bound claims more than is proven", str(bound), str(level.bound))
            )
    return findings


def _review_predictions(plan: Plan, values: dict[str, float], others: tuple[str, ...]) -> list[Finding]:
    return [
        Finding("TRD457", prediction.name, "prediction", str(values.get(prediction.name)), str(prediction.value))
        for prediction in plan.predictions
        if prediction.name not in others
        and (
            prediction.name not in values
            or abs(values[prediction.name] - prediction.value) > 1e-9 * max(1.0, abs(prediction.value))
        )
    ]
