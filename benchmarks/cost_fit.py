"""Fits a machine's calibrated constants to measured rows: Nelder-Mead on the mean absolute log ratio, deterministic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels import kernel_estimates as kernels
from treadle.costmodels.kernel_estimates import Calibration, Constants
from treadle.costmodels.kernel_times import flops_per_us
from treadle.costmodels.measured import Table
from treadle.ir.machine import Machine
from treadle.ir.tile.program import DTYPE_BYTES

Floats = NDArray[np.float64]

FITTED = {
    "gemm": ("gemm_efficiency", "gemm_floor_us", "memory_efficiency"),
    "context_attention": ("attention_efficiency", "attention_instance_us", "attention_floor_us"),
    "generation_attention": ("decode_instance_us", "decode_floor_us"),
}
"""Family -> the constants fitted to its rows; eight together."""

START = Calibration(0.8, 2.5, 0.95, 0.65, 5.0, 9.0, 3.0, 10.0)
"""Where every fit starts."""

LARGEST_FIT = 3000
"""Rows a fit looks at; more change nothing in the third digit."""

_FAR = 1.0
"""Cap of a row's absolute log ratio: kernels that fell back to something slow do not steer the fit."""


def estimate_us(family: str, constants: Constants, machine: Machine, rows: Table, dtype: str = "bfloat16") -> Floats:
    """Return the roofline estimate of every row of a table in microseconds."""
    columns = {name: column for name, column in rows.columns.items() if column.dtype.kind in "iuf"}
    rate = flops_per_us(machine, dtype)
    if family == "gemm":
        return kernels.gemm_us(constants, columns["m"], columns["n"], columns["k"], rate, DTYPE_BYTES[dtype])
    shape = (columns["num_heads"], columns["num_key_value_heads"], columns["head_dim"])
    window = columns.get("window_size", np.zeros(len(rows)))
    batch = columns["batch_size"]
    if family == "context_attention":
        return kernels.attention_prefill_us(constants, batch, columns["isl"], *shape, rate, window=window)
    return kernels.attention_decode_us(constants, batch, columns["step"] + 1, *shape, window=window)


def fit(machine: Machine, rows: dict[str, Table]) -> Calibration:
    """Return the constants that suit the rows of each family best, GEMM first (attention shares its memory rate)."""
    calibration = START
    for family, names in FITTED.items():
        sample = rows[family].take(np.arange(min(len(rows[family]), LARGEST_FIT)))
        measured = sample.columns["latency_us"]
        current = calibration

        def loss(values: Floats) -> float:
            if (values <= 0).any():
                return 10 * _FAR
            chosen = replace(current, **dict(zip(names, values.tolist(), strict=True)))  # noqa: B023 - called at once
            ratio = estimate_us(family, Constants.of(machine, chosen), machine, sample) / measured  # noqa: B023
            return float(np.mean(np.minimum(np.abs(np.log(ratio)), _FAR)))

        start = np.array([getattr(calibration, name) for name in names])
        best = nelder_mead(loss, start, steps=80)
        calibration = replace(calibration, **{n: float(f"{v:.3g}") for n, v in zip(names, best, strict=True)})
    return calibration


def nelder_mead(loss: Callable[[Floats], float], start: Floats, steps: int) -> Floats:
    """Return a local minimum of `loss` (Nelder and Mead 1965: reflect 1, expand 2, contract 1/2, shrink 1/2)."""
    simplex = [start, *(start * (1 + 0.25 * (np.arange(len(start)) == i)) for i in range(len(start)))]
    values = [loss(point) for point in simplex]
    for _ in range(steps):
        order = np.argsort(values, kind="stable")
        simplex, values = [simplex[i] for i in order], [values[i] for i in order]
        centre = np.mean(simplex[:-1], axis=0)
        reflected = 2 * centre - simplex[-1]
        candidate, value = reflected, loss(reflected)
        if value < values[0]:
            expanded = 3 * centre - 2 * simplex[-1]
            further = loss(expanded)
            candidate, value = (expanded, further) if further < value else (candidate, value)
        elif value >= values[-2]:
            candidate = (centre + simplex[-1]) / 2
            value = loss(candidate)
            if value >= values[-1]:
                simplex = [simplex[0], *((point + simplex[0]) / 2 for point in simplex[1:])]
                values = [values[0], *(loss(point) for point in simplex[1:])]
                continue
        simplex[-1], values[-1] = candidate, value
    best: Floats = simplex[int(np.argmin(values))]
    return best
