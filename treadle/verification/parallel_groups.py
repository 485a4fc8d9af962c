"""Reviews the groups of a parallel plan for mixed lengths: every compared plan's groups, and that the best was taken.

Codes: TRD657 the longest sequence has no room, TRD658 groups or their step differ from the replay.
"""

from __future__ import annotations

import math

from treadle.costmodels.training_group_costs import grouped_step_us, grouping_problem, holds_longest
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting
from treadle.ir.diagnostics import Finding
from treadle.ir.training.grouping import GroupingBody, check_grouping
from treadle.ir.training.plan import GroupedPlan, ParallelBody


def review_groups(setting: Setting, body: ParallelBody) -> list[Finding]:
    """Return what is wrong with the plans that were compared with their sequences grouped."""
    compared = [(body.degrees, body.layout), *((item.degrees, item.layout) for item in body.alternatives)]
    if [(item.degrees, item.layout) for item in body.grouped] != compared:
        return [Finding("TRD658", "grouped", "not the plan and its alternatives, in this order")]
    findings: list[Finding] = []
    for number, plan in enumerate(body.grouped):
        findings += _grouped(f"grouped[{number}]", setting, plan)
    if body.grouped and min(plan.step_time_us for plan in body.grouped) < body.grouped[0].step_time_us:
        findings.append(Finding("TRD658", "grouped[0]", "another plan is faster with its sequences grouped"))
    return findings


def _grouped(where: str, setting: Setting, plan: GroupedPlan) -> list[Finding]:
    played = replay(setting, plan.degrees, plan.layout)
    if not holds_longest(setting, plan.degrees, played.stages):
        longest = f"{max(setting.spec.lengths)} tokens"
        return [Finding("TRD657", where, "no group of ranks holds the longest sequence", "", longest)]
    problem = grouping_problem(setting, plan.degrees, plan.layout, played.stages, setting.spec.lengths)
    body = GroupingBody(problem, plan.rounds)
    if findings := check_grouping(body):
        return findings
    step = grouped_step_us(body, plan.degrees, played)
    if math.isclose(step, plan.step_time_us, rel_tol=1e-9):
        return []
    return [Finding("TRD658", where, "step with groups", f"{step:.9g}", f"{plan.step_time_us:.9g}")]
