"""Reviews parallel plans: legality, memory, replayed time, the enumeration again, and the trainers' files read back.

Codes: TRD423 memory, TRD622 host memory, TRD424 figures, TRD425 stages, TRD426 certificate, TRD427 a better candidate,
TRD428 trainer files. Groups: `parallel_groups`.
"""

from __future__ import annotations

import math
from pathlib import Path

from treadle.codegen.training.files import read_back
from treadle.costmodels.training_bounds import Bound, Quick
from treadle.costmodels.training_breakdown import figures_of
from treadle.costmodels.training_group_costs import holds_longest
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_memory import host_capacity_bytes, stage_capacities
from treadle.costmodels.training_replay import Replay, replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.costmodels.training_tails import best_with_tails
from treadle.ir.diagnostics import Finding
from treadle.ir.plan import Plan, figures, read_bytes
from treadle.ir.training.check import check
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.space import Space
from treadle.verification.core import Review
from treadle.verification.parallel_front import review_front
from treadle.verification.parallel_groups import review_groups

TOLERANCE = 1e-3
"""Relative difference of claimed and replayed times that is let pass."""


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `parallel`."""
    body: ParallelBody = plan.body
    findings = review_decision(plan)
    if findings:
        return Review(1, 0, tuple(findings))
    setting = setting_of(body.model, body.cluster, body.spec)
    count, more = review_enumeration(setting, plan)
    if body.steps:
        more += review_front(body, _Remembering())
        count += sum(step.candidates for step in body.steps)
    texts = {}
    if folder:
        recorded = {artifact.path for artifact in plan.artifacts}
        paths = [path for path in sorted(recorded) if path.startswith("training/") and (folder / path).is_file()]
        texts = {path: read_bytes(folder / path).decode("utf-8", "replace") for path in paths}
    back = read_back(body, texts)
    return Review(3 + len(body.stages) + len(plan.predictions) + count + len(texts), 0, (*more, *back))


def review_decision(plan: Plan) -> list[Finding]:
    """Check what the plan decides and claims about itself: legality, memory, times, stages, alternatives."""
    body: ParallelBody = plan.body
    setting = setting_of(body.model, body.cluster, body.spec)
    findings = check(body.model, body.cluster, body.spec, body.degrees, body.layout)
    if findings:
        return findings
    played = replay(setting, body.degrees, body.layout)
    findings += _memory("plan", setting, body.degrees, played)
    if played.stages != body.stages:
        findings.append(Finding("TRD425", "stages", "figures of the stages differ from the replay"))
    findings += _figures(plan, played)
    for number, item in enumerate(body.alternatives):
        findings += _alternative(f"alternatives[{number}]", setting, body, item.degrees, item.layout, item.step_time_us)
    if body.grouped or body.spec.lengths:
        findings += review_groups(setting, body)
    wanted = 3 if body.grouped else 2
    if not plan.certificates or len(plan.certificates[0].levels) != wanted:
        words = f"a parallel plan has one certificate of {'three levels' if body.grouped else 'two levels'}"
        return [*findings, Finding("TRD426", "certificates", words)]
    if body.grouped:
        level = plan.certificates[0].levels[2]
        findings += _close(f"certificate.{level.name}", level.value, body.grouped[0].step_time_us)
    for level in plan.certificates[0].levels[:2]:
        findings += _close(f"certificate.{level.name}", level.value, played.step_us)
    return findings


def _alternative(
    where: str, setting: Setting, body: ParallelBody, degrees: Degrees, layout: StageLayout, claimed_us: float
) -> list[Finding]:
    findings = check(body.model, body.cluster, body.spec, degrees, layout)
    if findings:
        return findings
    played = replay(setting, degrees, layout)
    return [*_memory(where, setting, degrees, played), *_close(where, claimed_us, played.step_us)]


def _memory(where: str, setting: Setting, degrees: Degrees, played: Replay) -> list[Finding]:
    capacities = stage_capacities(setting, degrees)
    hosts = [
        Finding(
            "TRD622",
            f"{where}: stage {stage.rank}",
            "needs more host memory than there is",
            f"<= {host_capacity_bytes(setting):.0f} B",
            str(stage.host_bytes),
        )
        for stage in played.stages
        if stage.host_bytes > host_capacity_bytes(setting)
    ]
    return hosts + [
        Finding(
            "TRD423",
            f"{where}: stage {stage.rank}",
            "needs more memory than allowed",
            f"<= {capacity:.0f} B",
            str(stage.memory_bytes),
        )
        for stage, capacity in zip(played.stages, capacities, strict=True)
        if stage.memory_bytes > capacity
    ]


def _close(where: str, claimed: float, found: float) -> list[Finding]:
    if math.isclose(claimed, found, rel_tol=TOLERANCE):
        return []
    return [Finding("TRD424", where, "differs from the replay", f"{found:.6g}", f"{claimed:.6g}")]


def _figures(plan: Plan, played: Replay) -> list[Finding]:
    body: ParallelBody = plan.body
    setting = setting_of(body.model, body.cluster, body.spec)
    wanted = {name: value for name, (value, _) in figures_of(setting, body, played).items()}
    claimed = figures(plan)
    findings = [Finding("TRD424", f"predictions.{name}", "is missing") for name in wanted if name not in claimed]
    for name, value in wanted.items():
        if name in claimed:
            findings += _close(f"predictions.{name}", claimed[name].value, value)
    return findings


def review_enumeration(setting: Setting, plan: Plan) -> tuple[int, list[Finding]]:
    """Enumerate all candidates again: none is faster than the first bound, which is the plan's time where it was not
    chosen by its groups; and the bound over all layouts holds for each."""
    closed, wide = plan.certificates[0].levels[:2]
    fastest = closed.value if closed.bound is None else min(closed.bound, closed.value)
    total, least, findings = _enumerated(setting, fastest)
    if closed.evidence.get("candidates") != total:
        found = str(closed.evidence.get("candidates"))
        findings.append(Finding("TRD426", "certificate", "number of candidates", str(total), found))
    for level in (closed, wide):
        bound = level.bound if level.bound is not None else math.inf
        allowed = fastest if level is closed else min(least, fastest)
        if bound > allowed * (1 + 1e-9):
            findings.append(
                Finding(
                    "TRD426", f"certificate.{level.name}", "bound is not derived", f"<= {allowed:.6g}", f"{bound:.6g}"
                )
            )
    return total, findings


class _Remembering:
    """Enumerates problems; times of the last cluster are kept, since memory limits do not move them."""

    def __init__(self) -> None:
        self._quick: Quick | None = None

    def __call__(self, setting: Setting, step_us: float) -> tuple[int, list[Finding]]:
        """Return the number of candidates, and a finding for each that is faster than a step."""
        known = self._quick
        if known is None or known.setting.cluster != setting.cluster:
            known = Quick(setting, LayerTimer(setting))
        self._quick = known.limited(setting)
        total, _, findings = _enumerated(setting, step_us, self._quick)
        return total, findings


def _enumerated(setting: Setting, step_us: float, quick: Quick | None = None) -> tuple[int, float, list[Finding]]:
    """Return the number of candidates, a bound over those not replayed, and findings for what beats the step."""
    quick, space = quick or Quick(setting, LayerTimer(setting)), Space(setting.model, setting.cluster, setting.spec)
    total, least, findings = 0, math.inf, list[Finding]()
    for family in space.families():
        total += space.size(family)
        bound = quick.branch_us(family, space.branches(family)[0][1])
        if bound < step_us:
            bound, wrong = _review_family(setting, space, family, quick, step_us)
            findings += wrong
        least = min(least, bound)
    return total, least, findings


def _review_family(
    setting: Setting, space: Space, family: Degrees, quick: Quick, step_us: float
) -> tuple[float, list[Finding]]:
    """Return what bounds a family, and a finding for each of its members that is faster than the plan."""
    least, findings = math.inf, list[Finding]()
    for choice, leaves in space.branches(family):
        branch = choice.of(family)
        bound = quick.branch_us(branch, leaves)
        if bound >= step_us:
            least = min(least, bound)
            continue
        for leaf in leaves:
            degrees = leaf.of(branch)
            if not quick.may_fit(degrees):
                continue
            bound = quick.bound_us(degrees)
            if bound < step_us:
                options = choices(setting, degrees, quick)
                bound = max(bound, min((option.step_us for option in options), default=math.inf))
                bound, wrong = _review_layouts(setting, degrees, quick, options, bound, step_us)
                findings += wrong
            least = min(least, bound)
    return least, findings


def _review_layouts(
    setting: Setting, degrees: Degrees, quick: Quick, options: list[Bound], bound_us: float, step_us: float
) -> tuple[float, list[Finding]]:
    """Return what bounds the layouts of a candidate below the plan's time, and a finding if one of them is faster.

    An interleaved layout is bounded by its own replay; those of 1F1B together, with the tails of all ranks.
    """
    findings: list[Finding] = []
    for option in options:
        if option.layout is None or option.step_us >= step_us * (1 - 1e-9):
            continue
        layout: StageLayout | None = option.layout
        if degrees.virtual > 1:
            bound_us = step_us
        elif degrees.pipeline > 1:
            sharp = best_with_tails(setting, degrees, quick.timer, option.layout, step_us)
            bound_us, layout = max(bound_us, sharp.step_us), sharp.layout
        if layout is not None:
            findings += _beaten(setting, degrees, layout, step_us)
    return bound_us, findings


def _beaten(setting: Setting, degrees: Degrees, layout: StageLayout, step_us: float) -> list[Finding]:
    played = replay(setting, degrees, layout)
    if played.step_us < step_us * (1 - 1e-9) and holds_longest(setting, degrees, played.stages):
        return [Finding("TRD427", degrees.text(), "is faster", f">= {step_us:.6g}", f"{played.step_us:.6g}")]
    return []
