"""Fit the eight constants per GPU type of the training cost model and write `calibration.toml`.

Rows: the fifth of each source with the smallest digests (`training_rows.fit_rows`). Loss: mean over the sources of a
GPU type, weighted by the square root of their rows, of the mean absolute percentage error, plus a weak pull to the
start. The A100, which has most runs, starts from neutral constants, the others from those of the A100, with their own
sustained over boost clock as the share of the product rate (A100: 0.88, fitted 0.89); a type without runs takes the
constants of the H100, with that share. Search: coordinate descent on logarithms.
"""

from __future__ import annotations

import math
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, guarded, table
from benchmarks.training_kernels import descend
from benchmarks.training_rows import Row, fit_rows, read
from benchmarks.training_runs import decision_figures
from treadle.costmodels.machines import load_machine
from treadle.costmodels.training_machine import Constants, links_of, training_gpu, training_gpu_ids
from treadle.costmodels.training_setting import Setting
from treadle.frontends.training_runs import NothingToFit

TARGET = Path(__file__).parents[1] / "costmodels" / "data" / "training" / "calibration.toml"
PULL = 0.002
FIRST, LENDER = "a100", "h100"
NAMES = tuple(field.name for field in fields(Constants))
NEUTRAL = Constants(0.8, 0.1, 0.75, 30.0, 0.8, 0.8, 30.0, 1000.0)
"""Start of fits that know no run."""
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
        predicted = row.predict(with_constants(setting, constants)).step_us / 1e6
        errors[row.source].append(abs(predicted - row.measured_s) / row.measured_s)
    weights = {source: min(3.0, math.sqrt(len(found) / 3)) for source, found in errors.items()}
    total: float = sum(weights[source] * sum(found) / len(found) for source, found in errors.items())
    return total / sum(weights.values())


def fit(rows: Sequence[Row], start: Constants, sweeps: int = 25) -> Fit:
    """Return the constants of least loss found from `start`."""
    rows = [row.narrowed() for row in rows]
    settings = [row.setting() for row in rows]
    origin = start.values()

    def loss(values: Sequence[float]) -> float:
        if any(value > 1 for name, value in zip(NAMES, values, strict=True) if name in SHARES):
            return math.inf
        pull = sum(math.log(value / first) ** 2 for value, first in zip(values, origin, strict=True))
        return loss_of(rows, settings, Constants(*values)) + PULL * pull

    found = Constants(*descend(loss, origin, sweeps, 0.25))
    return Fit(found, loss_of(rows, settings, found), len(rows))


def updated(text: str, gpu: str, constants: Constants, source: str) -> str:
    """Return the calibration file's text with one GPU's constants replaced."""
    lines = text.splitlines()
    start = lines.index(f"[gpu.{gpu}]")
    inside = range(start + 1, next((i for i in range(start + 1, len(lines)) if lines[i].startswith("[")), len(lines)))
    written = ", ".join(f"{name} = {value:.4g}" for name, value in zip(NAMES, constants.values(), strict=True))
    for number in inside:
        if lines[number].startswith("constants"):
            lines[number] = f"constants = {{ {written} }}"
        elif lines[number].startswith("source"):
            lines[number] = f'source = "{source}"'
        elif lines[number].startswith("date"):
            lines[number] = f'date = "{date.today().isoformat()}"'
    return "\n".join(lines) + "\n"


def leave_out(everything: Sequence[Row], rows: Sequence[Row], gpu: str, sweeps: int) -> list[dict[str, Any]]:
    """Return, per source of a GPU type, the error on all its rows of constants fitted on the other sources only."""
    committed = training_gpu(gpu).constants
    found: list[dict[str, Any]] = []
    for source in sorted({row.source for row in rows if row.gpu == gpu}):
        result = fit([row for row in rows if row.gpu == gpu and row.source != source], NEUTRAL, sweeps)
        held = [row for row in everything if row.gpu == gpu and row.source == source]
        settings = [row.setting() for row in held]
        record = {
            "source": source,
            "rows": len(held),
            "mape_left_out": 100 * loss_of(held, settings, result.constants),
            "mape_fitted": 100 * loss_of(held, settings, committed),
        }
        print(f"{source}: {record['mape_left_out']:.2f} % left out, {record['mape_fitted']:.2f} % with its fifth")
        found.append(record)
    return found


def drawn(rows: Sequence[Row], seed: int) -> list[Row]:
    """Return a random fifth of each source."""
    by_source: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_source[row.source].append(row)
    chance = random.Random(seed)
    return [row for members in by_source.values() for row in chance.sample(members, len(members) // 5)]


def draw(rows: Sequence[Row], seed: int, sweeps: int) -> dict[str, Any]:
    """Return, per source, the error of constants fitted on a random fifth on the other rows, and what they decide."""
    chosen = drawn(rows, seed)
    keys, constants = {row.key for row in chosen}, fit(chosen, NEUTRAL, sweeps).constants
    predicted = {row.key: row.predict(with_constants(row.setting(), constants)).step_us / 1e6 for row in rows}
    errors: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.key not in keys:
            errors[row.source].append(abs(predicted[row.key] / row.measured_s - 1))
    record: dict[str, Any] = {"seed": seed, "constants": list(constants.values())}
    record |= {f"{source}: mape": 100 * sum(found) / len(found) for source, found in errors.items()}
    for source, figures in decision_figures(rows, predicted).items():
        record |= {f"{source}: {name}": figures[name] for name in ("regret_mean", "regret_max", "tau")}
    return record


def draws(rows: Sequence[Row], count: int, sweeps: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the mean, least and largest of every figure over random fifths, and the draws."""
    found = [draw(rows, seed, sweeps) for seed in range(count)]
    names = [name for name in found[0] if ":" in name]
    spread = {name: [item[name] for item in found] for name in names}
    lines = [(name, sum(values) / len(values), min(values), max(values)) for name, values in spread.items()]
    table((f"{count} random fifths", "mean", "least", "most"), lines)
    return {name: {"mean": mean, "least": least, "most": most} for name, mean, least, most in lines}, found


def main() -> int:
    """Fit every GPU type that has rows, or those named with `--gpu`."""
    chosen = arguments(
        "fit the training constants",
        "../shared/data/training/measured_training_runs.csv",
        gpu={"nargs": "*", "default": []},
        sweeps={"type": int, "default": 40},
        draws={"type": int, "default": 0, "help": "only report: fit on so many random fifths, and time the rest"},
        leave_out={"action": "store_true", "help": "only report: fit without each source in turn, and time it"},
    )
    everything = read(chosen.data)[0]
    rows = fit_rows(everything)
    types = {row.gpu for row in rows}
    if unknown := [gpu for gpu in chosen.gpu if gpu not in types]:
        raise NothingToFit(gpu=unknown[0], file=chosen.data, expected=f"one of {', '.join(sorted(types))}")
    if chosen.draws:
        wanted = chosen.gpu[0] if chosen.gpu else FIRST
        members = [row for row in everything if row.gpu == wanted]
        finish("training_draws", *draws(members, chosen.draws, chosen.sweeps), chosen.json)
        return 0
    if chosen.leave_out:
        left = [leave_out(everything, rows, gpu, chosen.sweeps) for gpu in chosen.gpu or [FIRST]]
        finish("training_leave_out", {}, [row for found in left for row in found], chosen.json)
        return 0
    TARGET.write_text(fitted(rows, chosen.gpu, chosen.sweeps), encoding="utf-8")
    return 0


def fitted(rows: Sequence[Row], wanted: Sequence[str], sweeps: int) -> str:
    """Return the calibration file's text with the GPU types that were asked for (all of them: none named) fitted."""
    text, known = TARGET.read_text(encoding="utf-8"), {FIRST: training_gpu(FIRST).constants}
    types = {row.gpu for row in rows}
    for gpu in sorted(types, key=lambda gpu: (gpu != FIRST, gpu)):
        if wanted and gpu not in wanted:
            continue
        members = [row for row in rows if row.gpu == gpu]
        result = fit(members, NEUTRAL if gpu == FIRST else at_clock(known[FIRST], gpu), sweeps)
        known[gpu] = result.constants
        print(f"{gpu}: {result.rows} rows, loss {result.loss:.4f}, {result.constants}")
        sources = ", ".join(sorted({row.source for row in members}))
        text = updated(text, gpu, result.constants, f"fitted on {result.rows} runs of {sources}")
    for gpu in training_gpu_ids():
        lender = next((one for one in known if training_gpu(one).machine == training_gpu(gpu).machine), LENDER)
        if gpu not in types and lender in known:
            lent = known[lender] if lender != LENDER else at_clock(known[lender], gpu)
            text = updated(text, gpu, lent, f"no run to fit on: constants of {lender}")
    return text


def at_clock(constants: Constants, gpu: str) -> Constants:
    """Return constants with the share of the product rate that a GPU's sustained clock leaves."""
    figures = {figure.name: figure.value for figure in load_machine(training_gpu(gpu).machine).figures}
    clocks = figures.get("clock_sustained_ghz"), figures.get("clock_boost_ghz")
    share = clocks[0] / clocks[1] if clocks[0] and clocks[1] else constants.product_efficiency
    return replace(constants, product_efficiency=min(1.0, share))


if __name__ == "__main__":
    sys.exit(guarded(main))
