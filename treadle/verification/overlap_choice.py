"""Reviews overlaps decided alone: every choice listed again from model, machine and request, the best and its time."""

from __future__ import annotations

from pathlib import Path

from treadle.costmodels.overlap_presets import choices
from treadle.ir.diagnostics import Finding
from treadle.ir.operator.choice import Choice, ChoiceBody
from treadle.ir.plan import Plan
from treadle.verification.core import Review
from treadle.verification.layout import Claim, reviewed
from treadle.verification.machine import review_machine


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `overlap-choice`. Codes: TRD487 a choice that is not listed, or not the best."""
    body: ChoiceBody = plan.body
    listed = choices(body.model, body.machine, body.request)
    if len(body.chosen) != len(listed.stages):
        return Review(1, 0, (Finding("TRD487", "chosen", "stages", str(len(listed.stages)), str(len(body.chosen))),))
    findings: list[Finding] = []
    best: list[Choice] = []
    for number, (stage, chosen) in enumerate(zip(listed.stages, body.chosen, strict=True)):
        every = list(stage)
        best.append(min(every, key=lambda choice: choice.cost))
        if chosen not in every:
            findings.append(Finding("TRD487", f"stage {number}", "the choice is not one of those there are"))
        elif chosen.cost > best[-1].cost:
            findings.append(Finding("TRD487", f"stage {number}", "a choice is better", str(best[-1]), str(chosen)))

    def claims() -> list[Claim]:
        return [("time", body.time_ns, sum(choice.time_ns for choice in best))]

    without = [prediction for prediction in plan.predictions if prediction.name == "without"]
    if [prediction.value for prediction in without] != [body.without_ns] or body.without_ns != listed.without_ns:
        findings.append(Finding("TRD457", "without", "prediction", str(listed.without_ns), str(body.without_ns)))
    return review_machine(plan, body.machine) + reviewed(plan, findings, claims, others=("without",))
