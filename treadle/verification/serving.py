"""Review of serving plans: candidates re-derived from profiles, legality, memory, rate, latencies and the bound."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from pathlib import Path

from treadle.costmodels.engine_candidates import all_candidates, setting_of
from treadle.ir.codec import decode, file_locator
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.plan import Plan
from treadle.ir.serving.check import check
from treadle.ir.serving.front import check_front
from treadle.ir.serving.plan import ServingPlan
from treadle.ir.serving.pool_program import program_of
from treadle.ir.serving.pools import Objective, PoolsPlan
from treadle.ir.serving.recursion import applies, best_pools
from treadle.ir.serving.tree import Tree, tree_bound
from treadle.verification.core import Review
from treadle.verification.layout import compare


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a serving plan without any solver."""
    body: ServingPlan = plan.body
    findings = [*check(body.pools), *_check_candidates(body), *_check_classes(body)]
    if findings or len(plan.certificates) != 1 or not plan.certificates[0].levels:
        missing = [] if findings else [Finding("TRD499", "certificates", "one certificate with a level")]
        return Review(2, 0, (*findings, *missing))
    level = plan.certificates[0].levels[0]
    try:
        value, bound = value_and_bound(body.pools, level.evidence.get("tree"))
    except TreadleError as error:
        return Review(2, 0, (Finding("TRD499", "certificate", f"the evidence cannot be read: {error}"),))
    if not isfinite(bound):
        return Review(
            2, 0, (Finding("TRD499", "certificate", "nothing proves the bound: the recursion does not apply"),)
        )
    findings += compare(level, value, bound, 1e-8) + check_front(body.pools.problem, body.front)
    findings += _check_predictions(plan, body, value)
    return Review(
        2 + len(body.pools.problem.engines) + 2 + len(plan.predictions) + 2 * len(body.front),
        int(body.replay is not None),
        tuple(findings),
    )


def value_and_bound(pools: PoolsPlan, tree: object) -> tuple[float, float]:
    """Recompute the objective and the bound that the recursion or the stored tree proves."""
    problem = pools.problem
    maximising = problem.objective is Objective.MOST_REQUESTS
    value = float(pools.rate_per_s if maximising else pools.price)
    if tree is not None:
        proven = tree_bound(program_of(problem), decode(Tree, tree, file_locator("certificate")))
        return value, float(proven or 0) * (1 if maximising else -1)
    if not applies(problem):
        return value, float("inf") if maximising else float("-inf")
    frontier = best_pools(problem)
    if maximising:
        return value, float(frontier[-1][0])
    least = next((g for g, (rate, _) in enumerate(frontier) if rate >= problem.rate_per_s), len(frontier))
    return value, float(least)


def _check_candidates(body: ServingPlan) -> list[Finding]:
    """Derive all candidates again from profiles and lengths; they must be the plan's own."""
    derived = all_candidates(body.kinds, body.all_streams, setting_of(body))
    stored = {engine.name: engine for engine in body.pools.problem.engines}
    findings: list[Finding] = []
    if [engine.name for engine in derived] != list(stored):
        names = ", ".join(engine.name for engine in derived)
        return [Finding("TRD498", "candidates", "not those of the profiles", names, ", ".join(stored))]
    for engine in derived:
        other = stored[engine.name]
        if len(engine.seconds) != len(other.seconds):
            return [Finding("TRD498", engine.name, "has times of other classes", str(engine), str(other))]
        same = replace(other, seconds=engine.seconds, ttft_s=engine.ttft_s, tpot_s=engine.tpot_s) == engine
        close = all(
            abs(one - two) <= 1e-7 * max(1e-9, abs(one))
            for one, two in (
                *zip(engine.seconds, other.seconds, strict=True),
                (engine.ttft_s, other.ttft_s),
                (engine.tpot_s, other.tpot_s),
            )
        )
        if not (same and close):
            findings.append(Finding("TRD498", engine.name, "differs from its profile", str(engine), str(other)))
    return findings


def _check_classes(body: ServingPlan) -> list[Finding]:
    """Prompts of every class lie between its limits."""
    findings: list[Finding] = []
    least = 0
    for one, stream in zip(body.pools.problem.classes, body.class_streams, strict=False):
        prompts, most = stream.lengths.prompts, one.prompt_up_to
        if prompts[0] <= least or (most is not None and prompts[-1] > most):
            limits, found = f"over {least} to {most}", f"{prompts[0]} to {prompts[-1]} tokens"
            findings.append(Finding("TRD498", f"class {one.name}", "prompts of another class", limits, found))
        least = most or least
    return findings


def _check_predictions(plan: Plan, body: ServingPlan, value: float) -> list[Finding]:
    used = [e for e, n in zip(body.pools.problem.engines, body.pools.pools.counts, strict=True) if n]
    expected = {
        plan.certificates[0].levels[0].name: value,
        "gpus used": float(body.pools.gpus_used),
        "ttft": max((engine.ttft_s for engine in used), default=0.0),
        "tpot": max((engine.tpot_s for engine in used), default=0.0),
    }
    return [
        Finding("TRD489", prediction.name, "prediction", str(expected.get(prediction.name)), str(prediction.value))
        for prediction in plan.predictions
        if abs(expected.get(prediction.name, float("inf")) - prediction.value) > 1e-8 * max(1.0, abs(prediction.value))
    ]
