"""Model graphs of published configurations: parameters against published counts, bytes, and the time to lower.

python -m benchmarks.model_graphs [--data FOLDER] [--json OUT]

Without `--data`, the table of published models that the tests use. With it, every `*.json` of a folder that is a
`config.json`, its total taken from `published.json` there (file name -> parameters) where that has one.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from tests.models.published import PUBLISHED
from treadle.frontends.hf import parse_model
from treadle.ir.diagnostics import TreadleError
from treadle.ir.model import ModelGraph

Row = dict[str, Any]

TABLE = "tests/models/published.py"


def measure(name: str, text: str, total: float, predictors: bool = False, copies: int = 0) -> Row:
    """Lower one configuration; returns the row of the table, or the refusal.

    Args:
        name: of the model.
        text: of its `config.json`.
        total: published parameters, 0 when not known.
        predictors: whether the total counts layers of multi-token prediction.
        copies: copies of embedding and head that the total counts.
    """
    started = time.perf_counter()
    try:
        graph = parse_model(text, name)
    except TreadleError as error:
        return {"model": name, "refused": str(error)}
    seconds = time.perf_counter() - started
    counted = graph.parameters(predictors) + copies * graph.vocab_size * graph.hidden_size
    row = _figures(name, graph) | {"lower_ms": 1000 * seconds}
    if total:
        row |= {"published": total, "error_percent": 100 * (counted / total - 1)}
    return row


def _figures(name: str, graph: ModelGraph) -> Row:
    return {
        "model": name,
        "family": graph.family,
        "parameters": graph.parameters(),
        "active": graph.active_parameters(),
        "weight_gb": graph.stored_bytes() / 1e9,
        "kv_bytes_per_token": graph.kv_bytes_per_token(),
    }


def from_table() -> Iterator[Row]:
    """Yield a row for every model of the published table."""
    for model in PUBLISHED:
        yield measure(model.name, json.dumps(model.config), model.total, model.predictors, model.copies)


def from_folder(folder: Path) -> Iterator[Row]:
    """Yield a row for every configuration of a folder."""
    known = folder / "published.json"
    totals: dict[str, float] = json.loads(known.read_text()) if known.exists() else {}
    for file in sorted(folder.glob("*.json")):
        text = file.read_text(encoding="utf-8")
        if file != known and '"model_type"' in text:
            yield measure(file.stem, text, totals.get(file.name, 0))


def main() -> None:
    """Print the table and the figures."""
    chosen = arguments("parameters, bytes and lowering time of model graphs", TABLE)
    rows = list(from_folder(chosen.data) if chosen.data.is_dir() else from_table())
    read = [row for row in rows if "refused" not in row]
    columns = (
        "model",
        "family",
        "parameters",
        "error_percent",
        "active",
        "weight_gb",
        "kv_bytes_per_token",
        "lower_ms",
    )
    table(columns, [[row.get(column, "") for column in columns] for row in read])
    for row in rows:
        if "refused" in row:
            print(f"refused  {row['model']}: {row['refused']}")
    errors = [abs(row["error_percent"]) for row in read if "error_percent" in row]
    times = [row["lower_ms"] for row in read]
    figures = {
        "models": len(rows),
        "read": len(read),
        "families": len({row["family"] for row in read}),
        "with_published_count": len(errors),
        "worst_error_percent": max(errors, default=0.0),
        "exact_within_10_ppm": sum(error <= 1e-3 for error in errors),
        "median_lower_ms": statistics.median(times) if times else 0.0,
        "slowest_lower_ms": max(times, default=0.0),
    }
    print("\n".join(f"{name}: {value:.4g}" for name, value in figures.items()))
    finish("model_graphs", figures, rows, chosen.json)


if __name__ == "__main__":
    main()
