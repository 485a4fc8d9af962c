"""docs/pipelines.md shows what the benchmark found last, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pipelines_page import MISSING, with_figures

ROOT = Path(__file__).parents[2]


def rows() -> list[dict[str, Any]]:
    text = (ROOT / "benchmarks/results/warp_timelines.json").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(text)["rows"]
    return found


def test_figures_are_those_of_the_committed_result() -> None:
    page = (ROOT / "docs/pipelines.md").read_text(encoding="utf-8")
    assert with_figures(page, rows()) == page
    assert page.count("<!-- figures ") == 7


def test_another_result_changes_the_page() -> None:
    page = (ROOT / "docs/pipelines.md").read_text(encoding="utf-8")
    changed = [{**row, "simulated_cycles": 12345} for row in rows()]
    assert "12,345 cycles an iteration" in with_figures(page, changed)
    assert with_figures(page, []).count(MISSING) == 9
