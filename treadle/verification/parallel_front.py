"""Reviews the front of a parallel plan: every step is the fastest under its limit, and no limit is left out.

Codes: TRD606 a step that is not what its limit asks for, TRD607 steps are missing or too many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby, pairwise

from treadle.costmodels.training_memory import stage_capacities
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.ir.diagnostics import Finding
from treadle.ir.training.check import check
from treadle.ir.training.front import body_of, next_limit, parts_of
from treadle.ir.training.plan import FrontStep, ParallelBody

Faster = Callable[[Setting, float], tuple[int, list[Finding]]]
"""Of a problem and a time: the number of its candidates, and a finding for each that is faster."""


def review_front(body: ParallelBody, faster: Faster) -> list[Finding]:
    """Return what is wrong with the steps; `faster` enumerates a problem."""
    findings = _chains(body)
    if findings:
        return findings
    for number, step in enumerate(body.steps):
        findings += _step(f"steps[{number}]", body, step, faster)
    return findings


def _chains(body: ParallelBody) -> list[Finding]:
    """Every part of the cluster once, limits that follow from one another, and an end where nothing fits."""
    parts = [(count, list(steps)) for count, steps in groupby(body.steps, key=lambda step: step.gpus)]
    wanted = [cluster.gpus for cluster in parts_of(body.cluster)]
    if [count for count, _ in parts] != wanted:
        return [Finding("TRD607", "steps", "parts of the cluster", str(wanted), str([count for count, _ in parts]))]
    findings: list[Finding] = []
    for count, steps in parts:
        limits = [body.spec.search.most_memory, *(next_limit(step.peak_memory_bytes) for step in steps)]
        where = f"steps of {count} GPUs"
        if [step.most_memory for step in steps] != limits[:-1]:
            findings.append(Finding("TRD607", where, "limits do not follow from the peaks before"))
        if any(step.degrees is None for step in steps[:-1]):
            findings.append(Finding("TRD607", where, "go on where nothing fits"))
        if steps[-1].degrees is not None and limits[-1] > 0:
            findings.append(Finding("TRD607", where, "end before nothing fits"))
        if any(early.step_time_us > late.step_time_us for early, late in pairwise(steps) if late.degrees):
            findings.append(Finding("TRD606", where, "a tighter limit gives a faster plan"))
    return findings


def _step(where: str, body: ParallelBody, step: FrontStep, faster: Faster) -> list[Finding]:
    posed = body_of(body, step)
    setting = setting_of(posed.model, posed.cluster, posed.spec)
    findings: list[Finding] = []
    if step.degrees is not None and step.layout is not None:
        findings = check(posed.model, posed.cluster, posed.spec, step.degrees, step.layout)
        if findings:
            return findings
        played = replay(setting, step.degrees, step.layout)
        rooms = stage_capacities(setting, step.degrees)
        if any(stage.memory_bytes > room for stage, room in zip(played.stages, rooms, strict=True)):
            findings.append(Finding("TRD606", where, "needs more memory than its limit"))
        same = math.isclose(played.step_us, step.step_time_us, rel_tol=1e-9)
        if not same or played.peak_bytes != step.peak_memory_bytes:
            found = f"{step.step_time_us:.6g} us, {step.peak_memory_bytes} B"
            expected = f"{played.step_us:.6g} us, {played.peak_bytes} B"
            findings.append(Finding("TRD606", where, "differs from the replay", expected, found))
    total, beaten = faster(setting, step.step_time_us if step.degrees else math.inf)
    if total != step.candidates:
        findings.append(Finding("TRD606", where, "number of candidates", str(total), str(step.candidates)))
    return findings + [Finding("TRD606", where, str(finding)) for finding in beaten[:1]]
