"""How well the training cost model tells time, memory and order of published runs, with the committed constants.

Any file with the columns of `treadle/frontends/training_runs.py` is read. Decisions: in each group of runs of one
model, batch and number of GPUs, the regret of taking the configuration with the least predicted time, beside two rules:
the largest data parallelism with tensor ranks inside the node, and the takeaways of SC'21 (arXiv 2104.04473, section
5): tensor ranks up to the node, pipeline only as far as memory needs, then data ranks.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from benchmarks.common import arguments, finish, guarded, table
from benchmarks.training_rows import LeftOut, Row, fit_rows, read, reasons_of
from treadle.costmodels.training_memory import layer_saved_bytes
from treadle.costmodels.training_replay import Replay
from treadle.ir.training.model import dense_layer
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Recompute, TrainingSpec

_PAPER_MODELS = ((6144, 64), (12288, 96), (20480, 128), (25600, 160))
"""(hidden, heads) of arXiv 2205.05198, table 3: 22B, 175B, 530B, 1T; 2,048 tokens, 8 tensor ranks."""
_SHOWN = 12


def main() -> int:
    """Print and write MAPE per source, memory, and regret and Kendall tau per group."""
    chosen = arguments("measured training runs", "../shared/data/training/measured_training_runs.csv")
    rows, left = read(chosen.data)
    fitted = {row.key for row in fit_rows(rows)}
    results = [(row, row.predict()) for row in rows]
    predicted = {row.key: found.step_us / 1e6 for row, found in results}
    figures = {
        "accuracy": _accuracy(rows, predicted, fitted),
        "memory": _memory(results),
        "activations_closed_form_error_percent": _closed_form_error(),
        "decisions": decision_figures(rows, predicted),
        "left_out": reasons_of(left),
    }
    _show(figures)
    _show_left(left)
    groups = _by_group(rows, predicted)
    records = [_record(row, found.step_us / 1e6) for row, found in results]
    records += [asdict(item) for item in left]
    finish("training_runs", {**figures, "groups": groups}, records, chosen.json)
    return 0


def _show_left(left: Sequence[LeftOut]) -> None:
    """Print which runs are left out and why; lines of the same reason together."""
    if not left:
        return
    print(f"\nleft out: {len(left)} rows")
    by_reason: dict[str, list[int]] = defaultdict(list)
    for item in left:
        by_reason[f"{item.code} {item.reason}"].append(item.line)
    for reason, lines in by_reason.items():
        print(f"  {reason}: lines {', '.join(map(str, lines[:_SHOWN]))}{', ...' if len(lines) > _SHOWN else ''}")


def _show(figures: Mapping[str, Any]) -> None:
    columns = ("rows", "mape", "held_out", "max", "bias")
    found = [(name, *(entry[key] for key in columns)) for name, entry in figures["accuracy"].items()]
    table(("source", "rows", "MAPE %", "not fitted %", "max %", "bias %"), found)
    memory = figures["memory"]
    if memory["rows"]:
        wrong = f"called feasible above capacity: {memory['false_fits']}"
        print(f"\nmemory: {memory['rows']} rows, MAPE {memory['mape']:.2f} %, max {memory['max']:.2f} %, {wrong}")
    print(f"runs called too large for their GPU: {memory['ran_but_called_too_large']}")
    print(f"activations against the closed form: {figures['activations_closed_form_error_percent']:.2g} %")
    if figures["decisions"]:
        print()
        header = (
            "groups of",
            "groups",
            "regret mean %",
            "max %",
            "tau",
            "rule: most data %",
            "max %",
            "SC'21 %",
            "max %",
        )
        table(header, [(name, *entry.values()) for name, entry in figures["decisions"].items()])


def _error(row: Row, predicted: Mapping[str, float]) -> float:
    return 100 * (predicted[row.key] - row.measured_s) / row.measured_s


def _accuracy(rows: Sequence[Row], predicted: Mapping[str, float], fitted: set[str]) -> dict[str, dict[str, Any]]:
    by_source: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_source[f"{row.source} ({row.gpu})"].append(row)
    found: dict[str, dict[str, Any]] = {}
    for name, members in by_source.items():
        errors = [_error(row, predicted) for row in members]
        held = [abs(_error(row, predicted)) for row in members if row.key not in fitted]
        found[name] = {
            "rows": len(members),
            "mape": statistics.fmean(map(abs, errors)),
            "held_out": statistics.fmean(held) if held else None,
            "max": max(map(abs, errors)),
            "bias": statistics.fmean(errors),
        }
    return found


def _memory(results: Sequence[tuple[Row, Replay]]) -> dict[str, Any]:
    """Return the error of the peaks, how often a plan measured above capacity is called feasible, and the reverse."""
    pairs = [(row, found.peak_bytes / 2**30) for row, found in results if row.measured_peak_gib]
    errors = [abs(gib - (row.measured_peak_gib or 0)) / (row.measured_peak_gib or 1) for row, gib in pairs]
    capacity = {row.gpu: row.setting().gpu.memory_bytes / 2**30 for row, _ in pairs}
    false_fits = sum(gib <= capacity[row.gpu] < (row.measured_peak_gib or 0) for row, gib in pairs)
    refused = sum(found.peak_bytes > row.setting().gpu.memory_bytes for row, found in results)
    return {
        "rows": len(pairs),
        "mape": 100 * statistics.fmean(errors) if errors else 0.0,
        "max": 100 * max(errors, default=0.0),
        "false_fits": false_fits,
        "ran_but_called_too_large": refused,
        "points": [[row.measured_peak_gib, round(gib, 2)] for row, gib in pairs],
    }


def _closed_form_error() -> float:
    """Return the largest deviation in percent of a layer's activations from Korthikanti's table 2."""
    worst = 0.0
    for hidden, heads in _PAPER_MODELS:
        kind = dense_layer("block", hidden, heads, heads, 4 * hidden, gated=False, bias=True, dropout=True)
        for tensor, sequence, mode, bytes_per_element in _closed_forms(hidden, heads):
            spec = TrainingSpec(1, 2048, "fp16", fused_attention=False, sequence_parallel=sequence)
            found = layer_saved_bytes(kind, spec, Degrees(1, tensor, 1, 1, 1), hidden, mode)
            worst = max(worst, abs(found / (2048 * hidden * bytes_per_element) - 1))
    return 100 * worst


def _closed_forms(hidden: int, heads: int) -> tuple[tuple[int, bool, Recompute, float], ...]:
    scores = 5 * heads * 2048 / hidden
    return (
        (1, False, Recompute.NONE, 34 + scores),
        (8, False, Recompute.NONE, 10 + 24 / 8 + scores / 8),
        (8, True, Recompute.NONE, (34 + scores) / 8),
        (8, False, Recompute.SELECTIVE, 10 + 24 / 8),
        (8, True, Recompute.SELECTIVE, 34 / 8),
        (8, False, Recompute.FULL, 2),
    )


def grouped(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """Return the runs of one problem together, where there are several."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    return {group: members for group, members in groups.items() if len(members) > 1}


def _by_group(rows: Sequence[Row], predicted: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "group": list(group),
            "runs": len(members),
            "regret": _regret(members, lambda row: (predicted[row.key],)),
            "tau": _kendall(members, predicted),
        }
        for group, members in grouped(rows).items()
    ]


def decision_figures(rows: Sequence[Row], predicted: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return, per source, regret and tau of the predicted times (seconds by row key), and the regret of the rules."""
    by_source: dict[str, list[list[Row]]] = defaultdict(list)
    for group, runs in grouped(rows).items():
        by_source[group[0]].append(runs)
    found: dict[str, dict[str, float]] = {}
    for source, members in by_source.items():
        ours = [_regret(group, lambda row: (predicted[row.key],)) for group in members]
        taus = [tau for group in members if (tau := _kendall(group, predicted)) is not None]
        data, sc21 = ([_regret(group, rule) for group in members] for rule in (_most_data, _sc21))
        found[source] = {
            "groups": len(members),
            "regret_mean": statistics.fmean(ours),
            "regret_max": max(ours),
            "tau": statistics.fmean(taus) if taus else 0.0,
            "rule_data": statistics.fmean(data),
            "rule_data_max": max(data),
            "rule_sc21": statistics.fmean(sc21),
            "rule_sc21_max": max(sc21),
        }
    return found


def _regret(group: Sequence[Row], score: Callable[[Row], tuple[float, ...]]) -> float:
    best = min(row.measured_s for row in group)
    return 100 * (min(group, key=score).measured_s / best - 1)


def _most_data(row: Row) -> tuple[int, ...]:
    """Largest data parallelism, tensor ranks inside a node before pipeline ranks, largest microbatch that was run."""
    return (-row.degrees.data, row.degrees.pipeline, -row.degrees.micro_batch)


def _sc21(row: Row) -> tuple[int, ...]:
    """Tensor ranks up to the node, pipeline only as far as needed, then data ranks; small microbatch."""
    return (-min(row.degrees.tensor, 8), row.degrees.pipeline, -row.degrees.data, row.degrees.micro_batch)


def _kendall(group: Sequence[Row], predicted: Mapping[str, float]) -> float | None:
    pairs = [(a, b) for a, b in combinations(group, 2) if a.measured_s != b.measured_s]
    if not pairs:
        return None
    signs = [(a.measured_s - b.measured_s) * (predicted[a.key] - predicted[b.key]) for a, b in pairs]
    return (sum(sign > 0 for sign in signs) - sum(sign < 0 for sign in signs)) / len(pairs)


def _record(row: Row, predicted: float) -> dict[str, Any]:
    return {
        "source": row.source,
        "model": row.model.name,
        "gpus": row.cluster.gpus,
        "degrees": row.degrees.text(),
        "measured_s": row.measured_s,
        "predicted_s": round(predicted, 6),
    }


if __name__ == "__main__":
    sys.exit(guarded(main))
