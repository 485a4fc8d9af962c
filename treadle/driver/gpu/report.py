"""Rows of a run as a table, as statistics of the predictions, and as a plot."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
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


PREDICTIONS = (("prediction_mape", "most", 0.15), ("rank_correlation", "least", 0.8))
"""Goals of the predictions: mean absolute error of all, rank correlation over the candidates of a case."""


def lines_of(rows: Sequence[Row], figures: Mapping[str, Any]) -> list[Row]:
    """Return what is promised, line by line: figure, goal, value, and `met`, `missed` or `not measured`.

    A line has one or more problems; of each the fastest kernel counts, whatever its language and tiles. Speedups of
    products are judged by their geometric mean, everything else by the worst problem.
    """
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.get("line"):
            grouped[row["line"]].append(row)
    found: list[Row] = []
    for line, own in grouped.items():
        problems = dict.fromkeys(row["problem"] for row in own)
        fastest = [_fastest([row for row in own if row["problem"] == problem]) for problem in problems]
        for figure, least in _figures_of(own[0]["goal"]):
            values = [_value(row, figure) for row in fastest]
            mean = own[0]["family"].startswith("gemm") and len(problems) > 1
            found.append(_line(line, figure, "least", least, _combined(values, mean=mean)))
    return [*found, *(_line("predictions", name, kind, goal, figures.get(name)) for name, kind, goal in PREDICTIONS)]


def _figures_of(goal: Mapping[str, Any]) -> list[tuple[str, float]]:
    own = [(name, goal[name]) for name in ("tflops", "bandwidth") if name in goal]
    return [*own, *((f"speedup over {name}", least) for name, least in goal.get("speedup", {}).items())]


def _fastest(rows: Sequence[Row]) -> Row | None:
    measured = [row for row in rows if row["state"] == "measured"]
    return min(measured, key=lambda row: row["times_us"]["treadle"], default=None)


def _value(row: Row | None, figure: str) -> float | None:
    if row is None:
        return None
    if figure == "bandwidth":
        return row.get("bandwidth_share")
    if figure == "tflops":
        return float(row["tflops"])
    found: float | None = row["speedup"].get(figure.removeprefix("speedup over "))
    return found


def _combined(values: Sequence[float | None], *, mean: bool) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return statistics.geometric_mean(known) if mean else min(known)


def _line(line: str, figure: str, kind: str, goal: float, value: float | None) -> Row:
    met = value is not None and (value >= goal if kind == "least" else value <= goal)
    verdict = "not measured" if value is None else "met" if met else "missed"
    return {"line": line, "figure": figure, "kind": kind, "goal": goal, "value": value, "verdict": verdict}


def lines_table(lines: Sequence[Row]) -> str:
    """Return the promised lines as an aligned table."""
    cells = [("line", "figure", "goal", "value", ""), *(
        (line["line"], line["figure"], f"{'>=' if line['kind'] == 'least' else '<='} {line['goal']:g}",
         "" if line["value"] is None else f"{line['value']:.3g}", line["verdict"]) for line in lines
    )]  # fmt: skip
    return _aligned(cells)


def text_table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned table."""
    header = ("case", "tiles", "us", "TFLOP/s", "GB/s", "against", "predicted us", "error", "goal")
    lines = [header, *(_cells(row) for row in rows)]
    return _aligned(lines)


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
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
