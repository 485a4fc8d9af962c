"""Reviews overlap plans: the loop rebuilt from model, machine and step, the schedule, its claims, the timeline.

Codes: TRD48x of `ir.operator`; TRD486 the loop, TRD487 alternatives, TRD488 the timeline, the module and the options.
"""

from __future__ import annotations

from pathlib import Path

from treadle.codegen.operator_module import engine_options, operator_module
from treadle.codegen.operator_timeline import operator_timeline
from treadle.costmodels.operator_loop import layer_loop, predictions
from treadle.ir.diagnostics import Finding
from treadle.ir.operator.claims import recheck
from treadle.ir.operator.plan import OverlapBody
from treadle.ir.operator.schedule import check
from treadle.ir.plan import Plan, read_text
from treadle.verification.core import Review, compare_predictions
from treadle.verification.machine import review_machine


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `overlap`."""
    body: OverlapBody = plan.body
    total = review_machine(plan, body.machine)
    if findings := [*_review_loop(body), *check(body.loop, body.schedule)]:
        return total + Review(2, 0, tuple(findings))
    if len(plan.certificates) != 1:
        return total + Review(2, 0, (Finding("TRD483", "certificates", "an overlap plan has one certificate"),))
    claims = recheck(body.loop, body.schedule, plan.certificates[0])
    findings = [*claims.findings, *_review_alternatives(body)]
    findings += compare_predictions("predictions", predictions(body), plan.predictions)
    expected = {
        "timeline.json": lambda: operator_timeline(body.loop, body.schedule),
        "overlap.py": lambda: operator_module(body),
        "engine_options.json": lambda: engine_options(body),
    }
    written = [artifact.path for artifact in plan.artifacts if artifact.path in expected] if folder else []
    for path in written:
        file = (folder or Path()) / path
        if file.is_file() and read_text(file) != expected[path]():
            findings.append(Finding("TRD488", path, "the file is not that of the schedule"))
    count = 3 + claims.rederived + len(plan.predictions) + len(written)
    return total + Review(count, claims.on_solver_word, tuple(findings))


def _review_loop(body: OverlapBody) -> list[Finding]:
    expected = layer_loop(
        body.model, body.machine, body.tensor_parallel, body.step, body.nano_batches, body.sequence_parallel,
        body.expert_parallel,
    )  # fmt: skip
    if expected == body.loop:
        return []
    wrong = [op.name for op in body.loop.operators if op not in expected.operators]
    where = f"loop {body.loop.name}" + (f", operator {wrong[0]}" if wrong else "")
    return [Finding("TRD486", where, "the loop is not that of model, machine and step")]


def _review_alternatives(body: OverlapBody) -> list[Finding]:
    """The plan is the best of what was tried, and among it."""
    own = body.label
    findings: list[Finding] = []
    if body.alternatives.get(own) != body.schedule.period_ns:
        found = str(body.alternatives.get(own))
        findings.append(Finding("TRD487", f"alternatives.{own}", "differs", str(body.schedule.period_ns), found))
    findings += [
        Finding("TRD487", f"alternatives.{sizes}", "is better than the plan", f">= {body.schedule.period_ns}", str(ns))
        for sizes, ns in body.alternatives.items()
        if ns < body.schedule.period_ns
    ]
    return findings
