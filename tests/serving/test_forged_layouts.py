"""Forged placements: what the checker says of every changed plan is what a plain recomputation says."""

from __future__ import annotations

from pathlib import Path

from benchmarks.plan_verification import forge, layout_plans


def test_two_hundred_forged_placements_are_told_from_right_ones(tmp_path: Path) -> None:
    counts = {"forged": 0, "wrong": 0, "rejected": 0, "disagreements": 0}
    kinds: set[str] = set()
    for name, plan in layout_plans(tmp_path, 1):
        kinds.add(plan.kind)
        counts = {key: counts[key] + value for key, value in forge(name, plan, 60).items()}
    assert kinds == {"experts", "adapters", "tiers", "batch-order", "buffers"}
    assert counts["wrong"] >= 200
    assert counts["disagreements"] == 0
