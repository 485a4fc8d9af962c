"""Fit the eight constants per GPU type of the training cost model and write `calibration.toml`.

Rows: the fifth of each source with the smallest digests (`training_rows.fit_rows`). Loss: mean over the sources of a
GPU type,
weighted by the square root of their rows, of the mean absolute percentage error, plus a weak pull to the start.
Search: coordinate descent on logarithms.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish
from benchmarks.training_rows import Row, fit_rows, read
from treadle.costmodels.training_machine import Constants, links_of, training_gpu
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_step import Setting, setting_of

TARGET = Path(__file__).parents[1] / "costmodels" / "data" / "training" / "calibration.toml"
PULL = 0.002
NAMES = tuple(field.name for field in fields(Constants))
NEUTRAL = Constants(0.7, 10.0, 0.75, 20.0, 0.8, 0.8, 20.0, 3000.0)
"""Start of fits that must not know the committed constants."""
SHARES = ("product_efficiency", "memory_efficiency", "link_efficiency", "network_efficiency")
"""Constants that are shares of a vendor figure: at most 1."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Outcome for one GPU type."""

    constants: Constants
    loss: float
    rows: int


def with_constants(setting: Setting, constants: Constants) -> Setting:
    """Return the setting with other constants."""
    gpu = replace(setting.gpu, constants=constants)
    return replace(setting, gpu=gpu, links=links_of(setting.cluster, gpu))


def loss_of(rows: Sequence[Row], settings: Sequence[Setting], constants: Constants) -> float:
    """Return the mean over sources of the mean absolute percentage error."""
    errors: dict[str, list[float]] = defaultdict(list)
    for row, setting in zip(rows, settings, strict=True):
        predicted = replay(with_constants(setting, constants), row.degrees, row.layout).step_us / 1e6
        errors[row.source].append(abs(predicted - row.measured_s) / row.measured_s)
    weights = {source: min(3.0, math.sqrt(len(found) / 3)) for source, found in errors.items()}
    total: float = sum(weights[source] * sum(found) / len(found) for source, found in errors.items())
    return total / sum(weights.values())


def fit(rows: Sequence[Row], start: Constants, sweeps: int = 25) -> Fit:
    """Return the constants of least loss found from `start`."""
    settings = [setting_of(row.model, row.cluster, row.spec) for row in rows]
    origin = start.values()

    def loss(values: Sequence[float]) -> float:
        if any(value > 1 for name, value in zip(NAMES, values, strict=True) if name in SHARES):
            return math.inf
        pull = sum(math.log(value / first) ** 2 for value, first in zip(values, origin, strict=True))
        return loss_of(rows, settings, Constants(*values)) + PULL * pull

    values, best = list(origin), loss(origin)
    steps = [0.25] * len(values)
    for _ in range(sweeps):
        for position in range(len(values)):
            for sign in (1, -1):
                trial = list(values)
                trial[position] *= math.exp(sign * steps[position])
                if (found := loss(trial)) < best - 1e-6:
                    values, best, steps[position] = trial, found, steps[position] * 1.4
                    break
            else:
                steps[position] *= 0.5
        if max(steps) < 0.01:
            break
    return Fit(Constants(*values), loss_of(rows, settings, Constants(*values)), len(rows))


def updated(text: str, gpu: str, result: Fit, sources: Sequence[str]) -> str:
    """Return the calibration file's text with one GPU's constants replaced."""
    lines = text.splitlines()
    start = lines.index(f"[gpu.{gpu}]")
    inside = range(start + 1, next((i for i in range(start + 1, len(lines)) if lines[i].startswith("[")), len(lines)))
    written = ", ".join(f"{name} = {value:.4g}" for name, value in zip(NAMES, result.constants.values(), strict=True))
    for number in inside:
        if lines[number].startswith("constants"):
            lines[number] = f"constants = {{ {written} }}"
        elif lines[number].startswith("source"):
            lines[number] = f'source = "fitted on {result.rows} runs of {", ".join(sources)}"'
        elif lines[number].startswith("date"):
            lines[number] = f'date = "{date.today().isoformat()}"'
    return "\n".join(lines) + "\n"


def leave_out(everything: Sequence[Row], rows: Sequence[Row], gpu: str, sweeps: int) -> list[dict[str, Any]]:
    """Return, per source of a GPU type, the error on all its rows of constants fitted on the other sources only."""
    start = training_gpu(gpu).constants
    found: list[dict[str, Any]] = []
    for source in sorted({row.source for row in rows if row.gpu == gpu}):
        result = fit([row for row in rows if row.gpu == gpu and row.source != source], NEUTRAL, sweeps)
        held = [row for row in everything if row.gpu == gpu and row.source == source]
        settings = [row.setting() for row in held]
        record = {
            "source": source,
            "rows": len(held),
            "mape_left_out": 100 * loss_of(held, settings, result.constants),
            "mape_fitted": 100 * loss_of(held, settings, start),
        }
        print(f"{source}: {record['mape_left_out']:.2f} % left out, {record['mape_fitted']:.2f} % with its fifth")
        found.append(record)
    return found


def main() -> int:
    """Fit every GPU type that has rows, or those named with `--gpu`."""
    chosen = arguments(
        "fit the training constants",
        "../shared/data/training/measured_training_runs.csv",
        gpu={"nargs": "*", "default": []},
        sweeps={"type": int, "default": 40},
        leave_out={"action": "store_true", "help": "only report: fit without each source in turn, and time it"},
    )
    everything = read(chosen.data)[0]
    rows = fit_rows(everything)
    if chosen.leave_out:
        left = [leave_out(everything, rows, gpu, chosen.sweeps) for gpu in chosen.gpu or ["a100"]]
        finish("training_leave_out", {}, [row for found in left for row in found], chosen.json)
        return 0
    text = TARGET.read_text(encoding="utf-8")
    for gpu in chosen.gpu or sorted({row.gpu for row in rows}):
        members = [row for row in rows if row.gpu == gpu]
        result = fit(members, training_gpu(gpu).constants, chosen.sweeps)
        print(f"{gpu}: {result.rows} rows, loss {result.loss:.4f}, {result.constants}")
        text = updated(text, gpu, result, sorted({row.source for row in members}))
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
