"""Rows of a run as a table, as statistics of the predictions, and as a plot."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any

from treadle.driver.gpu.timing import spearman

Row = dict[str, Any]


def statistics_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Return how many rows are what, the error of the predictions, and the rank correlation within each group.

    A group is the candidates of one case (`group`), which differ in tiles or schedule.
    """
    measured = [row for row in rows if row["state"] == "measured"]
    errors = [abs(row["prediction_error"]) for row in measured]
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in measured:
        groups[row["group"]].append(row)
    ranks = {
        name: spearman([row["predicted_us"] for row in own], [row["times_us"]["treadle"] for row in own])
        for name, own in groups.items()
    }
    known = {name: rank for name, rank in ranks.items() if rank is not None}
    states = [row["state"] for row in rows]
    return {
        "rows": len(rows),
        **{state.replace(" ", "_"): states.count(state) for state in sorted(set(states))},
        "prediction_mape": statistics.mean(errors) if errors else None,
        "prediction_median_error": statistics.median(errors) if errors else None,
        "rank_correlation": statistics.mean(known.values()) if known else None,
        "rank_correlation_of": known,
        "goals_met": sum(row.get("goal_met") is True for row in rows),
        "goals_measured": sum(row.get("goal_met") is not None for row in rows),
    }


def judge(rows: Sequence[Row], bandwidth_gb_per_s: float | None) -> None:
    """Say for each row with a goal whether it is met (`goal_met`); rows that were not measured have none.

    Goals are {"tflops": least}, {"speedup": {contender: least}}, {"bandwidth": least share of the measured one}.
    """
    for row in rows:
        goal = row.get("goal") or {}
        if row["state"] != "measured" or not goal:
            continue
        verdicts: list[bool] = []
        if "tflops" in goal:
            verdicts.append(row["tflops"] >= goal["tflops"])
        for name, least in goal.get("speedup", {}).items():
            if name in row["speedup"]:
                verdicts.append(row["speedup"][name] >= least)
        if "bandwidth" in goal and bandwidth_gb_per_s:
            row["bandwidth_share"] = row["gb_per_s"] / bandwidth_gb_per_s
            verdicts.append(row["bandwidth_share"] >= goal["bandwidth"])
        row["goal_met"] = all(verdicts) if verdicts else None


def text_table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned table."""
    header = ("case", "tiles", "us", "TFLOP/s", "GB/s", "against", "predicted us", "error", "goal")
    lines = [header, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    printed = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    return "\n".join([printed[0], "  ".join("-" * width for width in widths), *printed[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    tiles = "x".join(str(size) for size in row.get("tile_sizes", {}).values())
    if row["state"] != "measured":
        reason = row.get("reason") or row.get("refused") or row.get("check", {}).get("reason", "")
        return row["case"], tiles, row["state"], "", "", str(reason)[:60], f"{row.get('predicted_us', 0):.1f}", "", ""
    against = "  ".join(f"{name} {ratio:.2f}x" for name, ratio in row["speedup"].items())
    verdict = {True: "met", False: "missed", None: ""}[row.get("goal_met")]
    return (
        row["case"],
        tiles,
        f"{row['times_us']['treadle']:.1f}",
        f"{row['tflops']:.0f}" if row["flops"] else "",
        f"{row['gb_per_s']:.0f}",
        against,
        f"{row['predicted_us']:.1f}",
        f"{row['prediction_error']:+.0%}",
        verdict,
    )


BAR, GAP, LEFT, WIDTH = 14, 10, 250, 980


def plot(rows: Sequence[Row], title: str) -> str:
    """Return an SVG: for every measured row the time of each contender as a bar, in units of the kernel's own."""
    measured = [row for row in rows if row["state"] == "measured"]
    longest = max([1.0, *(max(row["speedup"].values(), default=1.0) for row in measured)])
    scale = (WIDTH - LEFT - 150) / longest
    parts: list[str] = []
    y = 46
    for row in measured:
        parts.append(_text(LEFT - 10, y + BAR - 3, row["case"], "end"))
        for name, ratio in (("treadle", 1.0), *row["speedup"].items()):
            colour = "#2b6cb0" if name == "treadle" else "#a0aec0"
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{ratio * scale:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            time_us = row["times_us"][name]
            parts.append(_text(LEFT + ratio * scale + 6, y + BAR - 4, f"{name} {time_us:.0f} us", "start"))
            y += BAR
        y += GAP
    head = _text(12, 24, f"{title}: time beside treadle's (shorter is faster)", "start")
    body = "\n".join([head, *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="#1a202c">{escape(text)}</text>'
