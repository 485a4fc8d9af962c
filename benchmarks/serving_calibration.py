"""Held-out error of latencies learned from the measured points of aiconfigurator-core 0.12.0, by configuration.

A configuration is everything but the concurrency and the framework's version: all measurements of a held-out
configuration are unseen. Five folds; the figures are over all held-out predictions.
"""

from __future__ import annotations

import csv
import re
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from treadle.costmodels.engine_regression import Kernel, Point, fit

LIKENESS = (0.3, 0.6, 0.5, 0.6, 0.3, 0.8)
"""Correlation kept between different models, systems, frameworks, precisions, modes, versions."""


def main() -> None:
    """Fit four fifths of the configurations, predict the rest, five times."""
    spec = find_spec("aiconfigurator_core")
    origin = Path(spec.origin).parent if spec and spec.origin else Path("aiconfigurator_core")
    chosen = common.arguments(
        __doc__ or "", str(origin / "systems" / "silicon_sample.csv"), folds={"type": int, "default": 5}
    )
    rows = [row for row in csv.DictReader(chosen.data.open()) if positive(row)]
    points = [point_of(row) for row in rows]
    keys = [configuration(row) for row in rows]
    names = sorted(set(keys))
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = {names[index]: position % chosen.folds for position, index in enumerate(order)}
    folds = np.array([fold_of[key] for key in keys])
    figures: dict[str, Any] = {"points": len(rows), "configurations": len(names), "folds": chosen.folds}
    table: list[dict[str, Any]] = []
    for metric, column in (("tpot", "silicon_tpot_ms"), ("ttft", "silicon_ttft_ms")):
        measured = np.array([float(row[column]) for row in rows])
        predicted = np.zeros(len(rows))
        started = time.perf_counter()
        for fold in range(chosen.folds):
            train, held = np.nonzero(folds != fold)[0], np.nonzero(folds == fold)[0]
            model = fit([points[i] for i in train], measured[train].tolist(), Kernel(LIKENESS))
            predicted[held] = model.predict([points[i] for i in held])
        error = np.abs(predicted / measured - 1)
        figures |= {
            f"{metric}_median_error": float(np.median(error)),
            f"{metric}_p90_error": float(np.percentile(error, 90)),
            f"{metric}_seconds": round(time.perf_counter() - started, 1),
        }
        for backend in sorted({row["backend"] for row in rows}):
            mine = np.array([row["backend"] == backend for row in rows])
            table.append(
                {
                    "metric": metric,
                    "framework": backend,
                    "points": int(mine.sum()),
                    "median": float(np.median(error[mine])),
                }
            )
    common.table(list(table[0]), [list(row.values()) for row in table])
    for name, value in figures.items():
        print(f"{name:<24} {value}")
    common.finish("serving_calibration", figures, table, chosen.json)


def positive(row: dict[str, str]) -> bool:
    """Whether both latencies are there."""
    return float(row["silicon_ttft_ms"] or 0) > 0 and float(row["silicon_tpot_ms"] or 0) > 0


def size(row: dict[str, str], column: str) -> float:
    """Return a size column; empty is 1."""
    return float(row[column] or 1) or 1.0


def point_of(row: dict[str, str]) -> Point:
    """Return a row as a point: concurrency per engine, degrees, workers, lengths."""
    found = re.search(r"silicon_concurrency=(\d+)", row["silicon_data_source"])
    concurrency = float(found[1]) if found else size(row, "batch_size")
    prefix = "decode_" if row["mode"] == "disagg" else ""
    tensor = size(row, f"{prefix}tp_size")
    data = size(row, f"{prefix}attention_dp_size")
    workers = size(row, "decode_num_workers")
    before = size(row, "prefill_tp_size") if prefix else tensor
    version = re.sub(r"\D*$", "", row["backend_version"])[:5]
    return Point(
        (row["model_path"], row["system"], row["backend"], row["precision"], row["mode"], version),
        (
            concurrency,
            tensor,
            size(row, f"{prefix}moe_ep_size"),
            data,
            workers,
            before,
            size(row, "prefill_num_workers"),
            size(row, "isl"),
            size(row, "osl"),
            concurrency / workers / data,
        ),
    )


def configuration(row: dict[str, str]) -> tuple[str, ...]:
    """Return what must not be shared between fitted and held-out points."""
    own = ("model_path", "system", "backend", "precision", "mode", "isl", "osl")
    sizes = [name for name in row if name.endswith(("_size", "_workers")) and "batch" not in name]
    return tuple(row[name] for name in (*own, *sizes))


if __name__ == "__main__":
    main()
