"""How well the training cost model tells time, memory and order of published runs, with the committed constants."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.training_rows import Row, fit_rows, read


def main() -> int:
    """Print and write MAPE per source, and regret and Kendall tau per group."""
    chosen = arguments("measured training runs", "../shared/data/training/measured_training_runs.csv")
    rows, skipped = read(chosen.data)
    fitted = {row.key for row in fit_rows(rows)}
    results = [(row, row.predict()) for row in rows]
    predicted = {row.key: found.step_us / 1e6 for row, found in results}
    accuracy = _accuracy(rows, predicted, fitted)
    table(
        ("source", "rows", "MAPE %", "held out %", "max %", "bias %"),
        [(name, *(f[key] for key in ("rows", "mape", "held_out", "max", "bias"))) for name, f in accuracy.items()],
    )
    memory = _memory(results)
    print(
        f"\nmemory: {memory['rows']} rows, MAPE {memory['mape']:.2f} %, "
        f"called feasible above capacity: {memory['false_fits']}\n"
    )
    decisions = _decisions(rows, predicted)
    table(
        ("groups of", "groups", "regret mean %", "regret max %", "tau", "rule: most DP %", "rule: SC'21 %"),
        [(name, *found.values()) for name, found in decisions.items()],
    )
    print(f"\nleft out: {sum(skipped.values())} rows ({', '.join(f'{why}: {n}' for why, n in skipped.items())})")
    figures = {"accuracy": accuracy, "memory": memory, "decisions": decisions, "left_out": skipped}
    finish("training_runs", figures, [_record(row, found.step_us / 1e6) for row, found in results], chosen.json)
    return 0


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
            "held_out": statistics.fmean(held),
            "max": max(map(abs, errors)),
            "bias": statistics.fmean(errors),
        }
    return found


def _memory(results: Sequence[tuple[Row, Any]]) -> dict[str, Any]:
    pairs = [(row, found.peak_bytes / 2**30) for row, found in results if row.measured_peak_gib]
    errors = [abs(gib - (row.measured_peak_gib or 0)) / (row.measured_peak_gib or 1) for row, gib in pairs]
    capacity = {row.gpu: row.setting().gpu.memory_bytes / 2**30 for row, _ in pairs}
    false_fits = sum(gib < capacity[row.gpu] < (row.measured_peak_gib or 0) for row, gib in pairs)
    return {
        "rows": len(pairs),
        "mape": 100 * statistics.fmean(errors) if errors else 0.0,
        "max": 100 * max(errors, default=0.0),
        "false_fits": false_fits,
        "points": [[row.measured_peak_gib, round(gib, 2)] for row, gib in pairs],
    }


def _decisions(rows: Sequence[Row], predicted: Mapping[str, float]) -> dict[str, dict[str, float]]:
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    by_source: dict[str, list[list[Row]]] = defaultdict(list)
    for group, members in groups.items():
        if len(members) > 1:
            by_source[group[0]].append(members)
    found: dict[str, dict[str, float]] = {}
    for source, grouped in by_source.items():
        ours = [_regret(group, lambda row: (predicted[row.key],)) for group in grouped]
        taus = [tau for group in grouped if (tau := _kendall(group, predicted)) is not None]
        found[source] = {
            "groups": len(grouped),
            "regret_mean": statistics.fmean(ours),
            "regret_max": max(ours),
            "tau": statistics.fmean(taus) if taus else 0.0,
            "rule_data": statistics.fmean(_regret(group, _most_data) for group in grouped),
            "rule_sc21": statistics.fmean(_regret(group, _sc21) for group in grouped),
        }
    return found


def _regret(group: Sequence[Row], score: Callable[[Row], tuple[float, ...]]) -> float:
    best = min(row.measured_s for row in group)
    return 100 * (min(group, key=score).measured_s / best - 1)


def _most_data(row: Row) -> tuple[int, ...]:
    """Largest data parallelism, tensor ranks inside a node before pipeline ranks, largest microbatch that was run."""
    return (-row.degrees.data, row.degrees.pipeline, -row.degrees.micro_batch)


def _sc21(row: Row) -> tuple[int, ...]:
    """SC'21 takeaways: tensor ranks up to the node, pipeline only as far as needed, then data ranks; small
    microbatch."""
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
    sys.exit(main())
