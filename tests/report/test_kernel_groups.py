"""The part of a report about warp groups: who runs what, how good that is, what it takes simulated."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from tests.report.sample import HOSTILE, KERNEL, LOOP, SCHEDULE
from treadle.codegen.report.kernel_groups import block, group_rows
from treadle.codegen.report.words import evidence_in_words
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.plan import Prediction
from treadle.ir.tile.kernel import ScheduledLoop, WarpPlan
from treadle.ir.tile.warps import Issue, WarpLimits, WarpLoop, WarpSchedule

ISSUES = tuple(Issue(op.name, 30, "load" if op.name == "load" else "") for op in LOOP.operations)
WARPS = WarpLoop(LOOP, ISSUES, (), (), WarpLimits(4, 248, 512))
GROUPS = {op.name: 0 if op.name == "load" else 1 for op in LOOP.operations}
LEVEL = Level("ii", "cycles", 512, 512, Status.OPTIMAL, ProofKind.RESOURCE, {"unit": "tensor_core"})
PLAN = WarpPlan(WARPS, WarpSchedule(SCHEDULE, GROUPS, (24, 96)), Certificate("pipeline/flash", "test", (LEVEL,)))
MASKED = replace(LOOP, name="masked")
SIBLING = ScheduledLoop(
    MASKED, SCHEDULE, PLAN.certificate, replace(PLAN, warps=replace(WARPS, loop=MASKED)), homes=(0, 2)
)
KERNEL_OVER_GROUPS = replace(KERNEL, groups=PLAN, simulated=(Prediction("steady_cycles", 515.25, "cycle"),))


def test_groups_levels_and_figures_are_shown() -> None:
    text = str(block(KERNEL_OVER_GROUPS, "t0-"))
    ElementTree.fromstring(f"<div>{text.replace(' open>', '>')}</div>")
    for words in ("512 cycles an iteration", "group 1", "steady cycles", "515.2", "demand on the resource recounted"):
        assert words in text, words
    assert HOSTILE not in text


def test_further_loops_name_the_groups_of_the_kernel() -> None:
    rows = group_rows(PLAN, (SIBLING,))
    assert [(row.loop, row.name, row.registers) for row in rows] == [
        ("", "load", 24),
        ("", "group 1", 96),
        ("masked", "load", 24),
        ("masked", "group 2", 96),
    ]


def test_without_groups_the_reason_is_told() -> None:
    assert block(KERNEL, "t0-") == ""
    assert "&lt;script&gt;" in block(replace(KERNEL, groupless=HOSTILE), "t0-")


def test_proof_logs_are_weighed_not_printed() -> None:
    evidence = {"interval": 512, "refuted": 2119, "logs": ["x" * 3000]}
    level = Level("length", "cycles", 2120, 2120, Status.OPTIMAL, ProofKind.PROOF_LOG, evidence)
    assert evidence_in_words(level) == "2,119 is refuted by a proof of 2.93 KiB (compressed)"
    intervals = {"refuted": [510, 511], "logs": [["x" * 1024], ["y" * 1000, "z" * 24]], "exact": [True, False]}
    level = Level("ii", "cycles", 512, 512, Status.OPTIMAL, ProofKind.PROOF_LOG, intervals)
    assert evidence_in_words(level) == "510, 511 are refuted by proofs of 2 KiB (compressed)"
