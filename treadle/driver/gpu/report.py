"""Rows of a run as a table, as statistics of the predictions, and as a plot."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from treadle.driver.gpu.timing import spearman

Row = dict[str, Any]


def statistics_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Return how many rows are what, the error of the predictions, and the rank correlation within each group.

    A group is the candidates of one case (`group`), which differ in tiles or schedule.
    """
    measured = [row for row in rows if row["state"] == "measured"]
    errors = [abs(row["prediction_error"]) for row in measured]
    cycles = [abs(row["cycles_error"]) for row in measured if "cycles_error" in row]
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
        **{_key(state): states.count(state) for state in sorted(set(states))},
        "prediction_mape": statistics.mean(errors) if errors else None,
        "cycles_mape": statistics.mean(cycles) if cycles else None,
        "prediction_median_error": statistics.median(errors) if errors else None,
        "rank_correlation": statistics.mean(known.values()) if known else None,
        "rank_correlation_of": known,
        "goals_met": sum(row.get("goal_met") is True for row in rows),
        "goals_measured": sum(row.get("goal_met") is not None for row in rows),
    }


def _key(state: str) -> str:
    """A state as the key of a figure: `not measured (budget)` is `not_measured_budget`."""
    return re.sub(r"\W+", "_", state).strip("_")


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


PREDICTIONS = (("cycles_mape", "most", 0.15), ("rank_correlation", "least", 0.8))
"""Goals of the predictions: mean absolute error of the cycles of all, rank correlation over candidates of a case."""


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


HEADING = {
    "driver": "driver_version", "CUDA": "cuda", "cuDNN": "cudnn", "torch": "torch", "triton": "triton",
    "clock at most MHz": "clocks.max.sm", "power W": "power.limit",
}  # fmt: skip
"""What is said of the environment of a run, by its key there."""


def heading(record: Mapping[str, Any]) -> str:
    """Return where and when a run was: GPU, driver, clocks, versions, seed, and how long it took."""
    found = record.get("environment", {})
    words = [str(found.get("gpu", "no GPU"))]
    for name, key in HEADING.items():
        if found.get(key):
            words.append(f"{name} {found[key]}")
    words += [f"seed {record['seed']}"] if "seed" in record else []
    words += [f"{name} {spent:.0f} s" for name, spent in record.get("spent_s", {}).items()]
    if record.get("bandwidth_gb_per_s"):
        words.append(f"memory reads {record['bandwidth_gb_per_s']:,.0f} GB/s")
    if record.get("rehearsed"):
        words.append("REHEARSED: times of the host, no figures")
    return ", ".join([*words, *([found["date"]] if "date" in found else [])])


def text_table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned table."""
    header = ("case", "tiles", "us", "TFLOP/s", "GB/s", "MHz", "kcycles", "predicted", "error", "goal", "against")
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
    predicted = f"{row['predicted_cycles'] / 1e3:,.0f}" if row.get("predicted_cycles") else ""
    if row["state"] != "measured":
        reason = reason_of(row)
        return row["case"], tiles, "", "", "", "", "", predicted, "", row["state"], _cut(reason)
    against = [f"{name} {ratio:.2f}x" for name, ratio in row["speedup"].items()]
    if row.get("bandwidth_share"):
        against.append(f"{row['bandwidth_share']:.0%} of memory bandwidth")
    verdict = {True: "met", False: "missed", None: ""}[row.get("goal_met")]
    error = row.get("cycles_error", row["prediction_error"])
    return (
        row["case"],
        tiles,
        f"{row['times_us']['treadle']:,.1f}",
        f"{row['tflops']:,.0f}" if row["flops"] else "",
        f"{row['gb_per_s']:,.0f}",
        f"{row['clock_mhz']:.0f}" if row.get("clock_mhz") else "",
        f"{row['measured_cycles'] / 1e3:,.0f}" if row.get("measured_cycles") else "",
        predicted,
        f"{error:+.0%}",
        verdict,
        "  ".join(against),
    )


def reason_of(row: Row) -> str:
    """Return why a row has no time, or what is wrong with its results; empty where all is well."""
    checks = (row.get("check") or {}, row.get("sample") or {})
    found = row.get("reason") or row.get("refused") or next((one["reason"] for one in checks if one.get("reason")), "")
    return str(found)


def _cut(text: str, most: int = 90) -> str:
    return text if len(text) <= most else f"{text[: most - 3].rstrip()}..."
