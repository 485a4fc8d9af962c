"""What any model could reach in choosing plans on vTrain's runs, beside what the committed constants do.

Single node: the published step times of one (hidden size, tensor ranks, microbatch) are one sum, microbatches x (layers
x a + c) + layers x w + f, most of them to the last printed digit. So the 687 rows hold one time of a layer, a, for each
of 32 cells, and a model decides by telling those apart. Tried in place of the model's own, everything else as measured:
the nearest times that never fall when the microbatch or the hidden size grows (fitted to all rows), and a regression (a
Gaussian process on the logarithms) of each cell from the others. And how exactly cells must be told: random errors.

Odd cells: those more than 5 % below the nearest times that never fall, where the softmax gives no reason (one sequence
over 8 ranks does). No model that is slower for more work tells them; the figure without their runs is stated beside.

Several nodes: a regression of each run from the other runs of its group; the model with its median error per number of
tensor ranks taken out, and how much tau that one would have if the errors left had fallen on other runs of as many
tensor ranks (no model that does not know them can have more); and Kendall's tau over pairs of runs whose measured times
differ by more than a share.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from benchmarks.common import arguments, finish, guarded, table
from benchmarks.training_rows import Row, read
from benchmarks.training_runs import decision_figures, grouped

SINGLE, MULTI = "vTrain single node", "vTrain multi node"
DIFFERENCES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
ROUNDS = 2000
"""Of alternating projections; the monotone fit changes by less than 1e-6 in the last ones."""
SPREAD, LENGTHS, NOISES = 0.2, (0.7, 1.0, 1.5, 2.0, 3.0), (0.01, 0.05, 0.1)
"""Of the Gaussian process: standard deviation, lengths in doublings, and noise; the best left-out error decides."""

ERRORS, DRAWS = (0.01, 0.02, 0.03, 0.05, 0.08), 40
ODD, HEADS, FOURS = 0.05, 16, 4
"""vTrain's single-node models have 16 heads; the fused softmax takes heads x sequences by fours."""

Cell = tuple[int, int, int]


def cell_of(row: Row) -> Cell:
    """Return (hidden size, tensor ranks, microbatch)."""
    return row.model.hidden, row.degrees.tensor, row.degrees.micro_batch


def layer_times_ms(rows: Sequence[Row]) -> tuple[dict[Cell, float], list[float]]:
    """Return each cell's time of a layer and microbatch, and the relative residuals of the sums.

    Only runs without pipeline ranks; the update (w, f) depends on hidden size, tensor and data ranks.
    """
    alone = [row for row in rows if row.degrees.pipeline == 1]
    columns: dict[tuple[str, int, int, int], int] = {}
    entries: list[tuple[int, int, float]] = []
    for number, row in enumerate(alone):
        microbatches, layers = row.degrees.microbatches(row.spec.global_batch), row.model.layers
        hidden, tensor, micro = cell_of(row)
        terms = {("a", hidden, tensor, micro): microbatches * layers, ("c", hidden, tensor, micro): microbatches}
        terms |= {("w", hidden, tensor, row.degrees.data): layers, ("f", hidden, tensor, row.degrees.data): 1}
        entries += [(number, columns.setdefault(name, len(columns)), float(value)) for name, value in terms.items()]
    matrix = np.zeros((len(alone), len(columns)))
    for number, column, value in entries:
        matrix[number, column] = value
    measured = np.array([row.measured_s * 1e3 for row in alone])
    scaled = matrix / measured[:, None]
    found = np.linalg.lstsq(scaled, np.ones(len(alone)), rcond=None)[0]
    residuals = np.abs(scaled @ found - 1).tolist()
    return {
        (hidden, tensor, micro): float(found[at])
        for (name, hidden, tensor, micro), at in columns.items()
        if name == "a"
    }, residuals


def with_layers(
    rows: Sequence[Row], measured_ms: Mapping[Cell, float], told_ms: Mapping[Cell, float]
) -> dict[str, float]:
    """Return step times in seconds as measured, but for the layers, which take the told times."""
    found: dict[str, float] = {}
    for row in rows:
        degrees, cell = row.degrees, cell_of(row)
        slots = degrees.microbatches(row.spec.global_batch) + degrees.pipeline - 1
        change = slots * row.model.layers / degrees.pipeline * (told_ms[cell] - measured_ms[cell])
        found[row.key] = row.measured_s + change / 1e3
    return found


def rising(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the nearest sequence that never falls (pool adjacent violators; least squares)."""
    blocks: list[list[float]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append([float(value), float(weight), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            last, before = blocks.pop(), blocks.pop()
            both = before[1] + last[1]
            blocks.append([(before[0] * before[1] + last[0] * last[1]) / both, both, before[2] + last[2]])
    return np.concatenate([np.full(int(count), value) for value, _, count in blocks])


def monotone(times: Mapping[Cell, float], weights: Mapping[Cell, int], axes: Sequence[int]) -> dict[Cell, float]:
    """Return the nearest times (in logarithms) that never fall along these axes of a cell: Dykstra's projections."""
    cells = sorted(times)
    now, weight = np.log([times[cell] for cell in cells]), np.array([float(weights[cell]) for cell in cells])
    chains: list[list[list[int]]] = []
    for axis in axes:
        lines: dict[tuple[int, ...], list[int]] = {}
        for number, cell in enumerate(cells):
            lines.setdefault(cell[:axis] + cell[axis + 1 :], []).append(number)
        chains.append([sorted(line, key=lambda number: cells[number][axis]) for line in lines.values()])
    owed = [np.zeros(len(cells)) for _ in axes]
    for _ in range(ROUNDS if len(axes) > 1 else 1):
        for debt, lines_of in zip(owed, chains, strict=True):
            before = now + debt
            after = before.copy()
            for line in lines_of:
                after[line] = rising(before[line], weight[line])
            debt[:], now = before - after, after
    return dict(zip(cells, np.exp(now).tolist(), strict=True))


def left_out(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return each value as told from the others by a Gaussian process with a linear mean (the best of a few)."""
    best: tuple[float, np.ndarray] | None = None
    for length in LENGTHS:
        for noise in NOISES:
            told = np.array([_told(points, values, at, length, noise) for at in range(len(values))])
            error = float(np.abs(told - values).mean())
            if best is None or error < best[0]:
                best = (error, told)
    assert best is not None
    return best[1]


def _told(points: np.ndarray, values: np.ndarray, at: int, length: float, noise: float) -> float:
    others = np.arange(len(values)) != at
    here, there = points[[at]], points[others]
    basis, mine = np.c_[np.ones(len(there)), there], np.c_[np.ones(1), here]
    inverse = np.linalg.inv(_kernel(there, there, length) + noise**2 * np.eye(len(there)))
    slopes = np.linalg.lstsq(basis.T @ inverse @ basis, basis.T @ inverse @ values[others], rcond=None)[0]
    rest = values[others] - basis @ slopes
    return float((mine @ slopes + _kernel(here, there, length) @ inverse @ rest)[0])


def _kernel(left: np.ndarray, right: np.ndarray, length: float) -> np.ndarray:
    square = ((left[:, None] - right[None]) ** 2).sum(-1)
    return np.asarray(SPREAD**2 * np.exp(-square / (2 * length**2)))


def single_node(rows: Sequence[Row], predicted: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return error, regret and tau of the model, and of other times of a layer in its place."""
    times, _ = layer_times_ms(rows)
    counts = {cell: sum(cell_of(row) == cell for row in rows) for cell in times}
    cells = sorted(times)
    told = left_out(np.log2(np.array(cells, dtype=float)), np.log([times[cell] for cell in cells]))
    tables = {
        "nearest that never falls with the microbatch": monotone(times, counts, (2,)),
        "nor with the hidden size": monotone(times, counts, (0, 2)),
        "each cell from the others": dict(zip(cells, np.exp(told).tolist(), strict=True)),
    }
    odd = odd_cells(times, counts)
    kept = [row for row in rows if cell_of(row) not in odd]
    answers = {name: with_layers(rows, times, found) for name, found in tables.items()}
    return {
        "committed constants": _figures(rows, predicted),
        f"the same, without {len(rows) - len(kept)} runs of {len(odd)} odd cells": _figures(kept, predicted),
        **{name: _figures(rows, answer) for name, answer in answers.items()},
    }


def odd_cells(times: Mapping[Cell, float], weights: Mapping[Cell, int]) -> frozenset[Cell]:
    """Return the cells that are faster than less work is, where the softmax gives no reason for it."""
    plain = {cell: time for cell, time in times.items() if HEADS // cell[1] % FOURS == 0}
    nearest = monotone(plain, weights, (0, 2))
    return frozenset(cell for cell, time in plain.items() if time < (1 - ODD) * nearest[cell])


def by_exactness(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Return error, regret and tau when every cell's time is told with a random error: means over the draws."""
    times, _ = layer_times_ms(rows)
    found: list[dict[str, float]] = []
    for share in ERRORS:
        draws: list[dict[str, float]] = []
        for seed in range(DRAWS):
            chance = np.random.default_rng(seed)
            told = {cell: time * float(np.exp(share * chance.standard_normal())) for cell, time in times.items()}
            draws.append(_figures(rows, with_layers(rows, times, told)))
        means = {name: statistics.fmean(item[name] for item in draws) for name in draws[0]}
        found.append({"deviation_percent": 100 * share, **means})
    return found


def several_nodes(rows: Sequence[Row], predicted: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return error, regret and tau of the model, and of each run told from the others of its group."""
    told: dict[str, float] = {}
    for members in grouped(rows).values():
        splits = [(row.degrees.tensor, row.degrees.pipeline, row.degrees.micro_batch) for row in members]
        found = left_out(np.log2(np.array(splits, dtype=float)), np.log([row.measured_s for row in members]))
        told |= {row.key: float(value) for row, value in zip(members, np.exp(found), strict=True)}
    known = without_bias(rows, predicted)
    whole = [row for row in rows if row.degrees.tensor >= row.cluster.groups[0].gpus_per_node]
    return {
        "committed constants": _figures(rows, predicted),
        f"the same, {len(whole)} runs whose tensor ranks fill nodes": _figures(whole, predicted),
        "each run from the others": _figures(rows, told),
        "the model, median error per tensor ranks taken out": _figures(rows, known),
        "that one, the errors left dealt anew": dealt_anew(rows, known),
    }


def without_bias(rows: Sequence[Row], predicted: Mapping[str, float]) -> dict[str, float]:
    """Return the told times times the median of measured over told among the group's runs of as many tensor ranks."""
    ratios: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows:
        ratios[row.group, row.degrees.tensor].append(row.measured_s / predicted[row.key])
    return {row.key: predicted[row.key] * statistics.median(ratios[row.group, row.degrees.tensor]) for row in rows}


def dealt_anew(rows: Sequence[Row], told: Mapping[str, float]) -> dict[str, float]:
    """Return error, regret and tau where each run's error is that of another with as many tensor ranks: means."""
    alike: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        alike[row.group, row.degrees.tensor].append(row)
    found: list[dict[str, float]] = []
    for seed in range(DRAWS):
        chance, dealt = random.Random(seed), list[Row]()
        for members in alike.values():
            errors = [math.log(row.measured_s / told[row.key]) for row in members]
            chance.shuffle(errors)
            pairs = zip(members, errors, strict=True)
            dealt += [replace(row, measured_s=told[row.key] * math.exp(error)) for row, error in pairs]
        found.append(_figures(dealt, told))
    return {name: statistics.fmean(item[name] for item in found) for name in found[0]}


def _figures(rows: Sequence[Row], predicted: Mapping[str, float]) -> dict[str, float]:
    errors = [abs(predicted[row.key] / row.measured_s - 1) for row in rows]
    (figures,) = decision_figures(rows, predicted).values()
    chosen = {name: figures[name] for name in ("regret_mean", "regret_max", "tau")}
    return {"mape": 100 * statistics.fmean(errors), **chosen}


def tau_by_difference(rows: Sequence[Row], predicted: Mapping[str, float]) -> list[dict[str, float]]:
    """Return Kendall's tau over pairs whose measured times differ by more than a share: the mean over groups."""
    found: list[dict[str, float]] = []
    for least in DIFFERENCES:
        taus, pairs = [], 0
        for members in grouped(rows).values():
            apart = [
                (a, b)
                for a, b in combinations(members, 2)
                if max(a.measured_s, b.measured_s) > (1 + least) * min(a.measured_s, b.measured_s)
            ]
            signs = [np.sign((a.measured_s - b.measured_s) * (predicted[a.key] - predicted[b.key])) for a, b in apart]
            pairs += len(apart)
            taus += [float(np.mean(signs))] if signs else []
        found.append({"differ_percent": 100 * least, "pairs": pairs, "tau": statistics.fmean(taus) if taus else 0.0})
    return found


def main() -> int:
    """Print and write both comparisons and tau by difference."""
    chosen = arguments("what any model could reach", "../shared/data/training/measured_training_runs.csv")
    everything, _ = read(chosen.data)
    figures: dict[str, Any] = {}
    compare: dict[str, Callable[..., dict[str, dict[str, float]]]] = {SINGLE: single_node, MULTI: several_nodes}
    for source, compared in compare.items():
        rows = [row for row in everything if row.source == source]
        predicted = {row.key: row.predict().step_us / 1e6 for row in rows}
        told, taus = compared(rows, predicted), tau_by_difference(rows, predicted)
        figures[source] = {"rows": len(rows), "reach": told, "tau_by_difference": taus}
        if source == SINGLE:
            times, residuals = layer_times_ms(rows)
            half, most = 100 * statistics.median(residuals), 100 * max(residuals)
            counts = {cell: sum(cell_of(row) == cell for row in rows) for cell in times}
            odd = sorted(odd_cells(times, counts))
            figures[source] |= {"cells": len(times), "residual_median_percent": half, "residual_max_percent": most}
            figures[source] |= {"odd_cells": [list(cell) for cell in odd]}
            print(f"{len(rows)} rows, {len(times)} cells; half the sums hold to {half:.2g} %, all to {most:.2g} %")
            print(f"odd cells (hidden size, tensor ranks, microbatch): {', '.join(map(str, odd))}\n")
            needed = figures[source]["by_exactness"] = by_exactness(rows)
            header = ("cells told with a deviation of %", "MAPE %", "regret mean %", "max %", "tau")
            table(header, [tuple(item.values()) for item in needed])
            print()
        table(
            (source, "MAPE %", "regret mean %", "max %", "tau"), [(name, *item.values()) for name, item in told.items()]
        )
        print()
        table(("pairs that differ by more than %", "pairs", "tau"), [tuple(item.values()) for item in taus])
        print()
    finish("training_reach", figures, [], chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
