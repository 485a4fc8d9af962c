"""Reviews re-plans: seats, microbatches and transfers, memory and replayed step, the space again, bytes by prices.

Codes: TRD636 memory or figures, TRD637 certificate, TRD638 a faster choice.
"""

from __future__ import annotations

import math
from pathlib import Path

from treadle.codegen.training.replan_files import read_replan_back
from treadle.costmodels.training_bounds import Quick
from treadle.costmodels.training_elastic import (
    checkpoints_of,
    elastic_replay,
    old_setting,
    padded,
    replan_predictions,
    slow_ranks,
)
from treadle.costmodels.training_keeping import Keeping, kept_bound
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_memory import capacity_bytes
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting
from treadle.costmodels.training_tails import best_with_tails
from treadle.ir.certificate import Level, ProofKind
from treadle.ir.diagnostics import Finding
from treadle.ir.plan import Plan, read_bytes
from treadle.ir.training.check_replan import check_replan
from treadle.ir.training.elastic import Recovery, ReplanBody, node_size, seats_left, unit_of
from treadle.ir.training.elastic_space import elastic_candidates, even_counts
from treadle.verification.core import Review, compare_predictions

TOLERANCE = 1e-9


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `replan`."""
    body: ReplanBody = plan.body
    findings = review_replan(plan)
    texts: dict[str, str] = {}
    if folder and not findings:
        paths = [item.path for item in plan.artifacts if item.path.startswith("training/")]
        texts = {
            path: read_bytes(folder / path).decode("utf-8", "replace") for path in paths if (folder / path).is_file()
        }
        findings += read_replan_back(body, texts)
    return Review(3 + len(body.transfers) + len(plan.predictions) + len(texts), 0, tuple(findings))


def review_replan(plan: Plan) -> list[Finding]:
    """Check decisions, figures and certificate of a re-plan."""
    body: ReplanBody = plan.body
    if findings := check_replan(body):
        return findings
    setting = old_setting(body.before)
    slow = slow_ranks(body.before, body.event, body.degrees, body.seats)
    played = elastic_replay(setting, body.degrees, body.layout, body.counts, slow)
    findings = [
        Finding("TRD636", f"stage {stage.rank}", "needs more memory than allowed", "", str(stage.memory_bytes))
        for stage in played.replay.stages
        if stage.memory_bytes > capacity_bytes(setting)
    ]
    if played.replay.stages != body.stages:
        findings.append(Finding("TRD636", "stages", "figures of the stages differ from the replay"))
    limit = body.terms.most_migrated_bytes
    if limit is not None and body.migrated_bytes > limit and (body.event.lost or body.event.slow):
        findings.append(
            Finding("TRD636", "transfers", "more migrated than allowed", str(limit), str(body.migrated_bytes))
        )
    nodes = len(body.seats) * max(1, unit_of(body.before) // node_size(body.before))
    if checkpoints_of(setting, body.terms, played.step_us, nodes) != body.checkpoints:
        findings.append(Finding("TRD636", "checkpoints", "are not the best for these terms"))
    findings += compare_predictions("predictions", replan_predictions(body), plan.predictions)
    if len(plan.certificates) != 1 or len(plan.certificates[0].levels) != 3:
        return [*findings, Finding("TRD637", "certificates", "a re-plan has one certificate of three levels")]
    step, moved, saving = plan.certificates[0].levels
    findings += _values((step, played.step_us), (moved, float(body.migrated_bytes)), (saving, body.checkpoints.wasted))
    return findings + _review_step(setting, body, step) + _review_moved(body, moved)


def _values(*pairs: tuple[Level, float]) -> list[Finding]:
    return [
        Finding("TRD637", f"certificate.{level.name}", "value", f"{value:.9g}", f"{level.value:.9g}")
        for level, value in pairs
        if not math.isclose(level.value, value, rel_tol=TOLERANCE)
    ]


def _review_step(setting: Setting, body: ReplanBody, level: Level) -> list[Finding]:
    """Enumerate the space on all nodes that are left, and on those that are not slow: nothing beats the bound."""
    if level.bound is None or not (body.event.lost or body.event.slow):
        return []
    unit, left = unit_of(body.before), seats_left(body.before, body.event.lost)
    slow = {item.node * node_size(body.before) // unit for item in body.event.slow}
    timer = LayerTimer(setting)
    quicks: dict[int, tuple[Setting, Quick]] = {}
    for gpus in {len(left) * unit, sum(seat not in slow for seat in left) * unit}:
        for degrees in elastic_candidates(body.before, gpus, body.terms.even):
            problem = padded(setting, degrees, even_counts(body.before, degrees))
            problem, quick = quicks.setdefault(problem.spec.global_batch, (problem, Quick(problem, timer)))
            if not quick.may_fit(degrees) or quick.bound_us(degrees) >= level.bound:
                continue
            for option in choices(problem, degrees, quick):
                layout = option.layout
                if option.step_us >= level.bound * (1 - TOLERANCE) or layout is None:
                    continue
                if degrees.virtual == 1 and degrees.pipeline > 1:
                    sharp = best_with_tails(problem, degrees, timer, layout, level.bound)
                    if sharp.step_us >= level.bound * (1 - TOLERANCE) or sharp.layout is None:
                        continue
                    layout = sharp.layout
                found = replay(problem, degrees, layout, timer).step_us
                if found < level.bound * (1 - TOLERANCE):
                    return [Finding("TRD638", degrees.text(), "is faster", f">= {level.bound:.6g}", f"{found:.6g}")]
    return []


def _review_moved(body: ReplanBody, level: Level) -> list[Finding]:
    """Check the bound on migrated bytes: all of it without live copies, otherwise by prices of seats and blocks."""
    if body.recovery is Recovery.CHECKPOINT or not body.migrated_bytes:
        return []
    if level.proof is not ProofKind.LP_DUAL or level.bound is None:
        return [Finding("TRD637", "certificate.migrated_bytes", "has no prices", ProofKind.LP_DUAL.value)]
    keeping = Keeping(body.before, body.degrees, body.layout)
    seats = seats_left(body.before, body.event.lost)
    prices = [level.evidence.get(name) for name in ("seats", "blocks")]
    if not all(isinstance(row, list) and all(isinstance(item, int) for item in row) for row in prices):
        return [Finding("TRD637", "certificate.migrated_bytes", "prices are whole numbers")]
    if len(prices[0] or []) != len(seats):
        slow = {item.node * node_size(body.before) // unit_of(body.before) for item in body.event.slow}
        seats = tuple(seat for seat in seats if seat not in slow)
    kept = kept_bound(keeping, seats, prices[0] or [], prices[1] or [])
    if kept is None:
        return [Finding("TRD637", "certificate.migrated_bytes", "the prices do not cover every pair")]
    bound = float(body.degrees.tensor * (keeping.needed_bytes - kept))
    if level.bound > bound:
        return [Finding("TRD637", "certificate.migrated_bytes", "bound", f"<= {bound:.0f}", f"{level.bound:.0f}")]
    return []
