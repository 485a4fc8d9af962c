"""Error of the kernel time models on measured rows they have not seen: rooflines and table interpolation.

    python -m benchmarks.cost_accuracy --json OUT   evaluate the constants in the machine files
    python -m benchmarks.cost_accuracy --fit        fit them anew, to a random fifth of the rows, and print them

The rows are the vllm tables of aiconfigurator-core (`pip install 'treadle[measured]'`). Roofline: eight constants per
GPU are fitted to a random fifth of the bfloat16 rows (seed 0); the other rows are judged, and float8 products and
those of another framework, to which nothing was fitted. Interpolation: a random fifth of the rows (seed 1) is taken
out of the table and looked up in what is left.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import arguments, finish, table
from benchmarks.cost_fit import estimate_us, fit
from treadle.costmodels.kernel_estimates import CALIBRATED, Constants
from treadle.costmodels.kernel_times import RooflineTimes
from treadle.costmodels.machines import load_machine
from treadle.costmodels.measured import SYSTEMS, Table, decode_grid, gemm_grid, gemm_rows, load_table, prefill_grid
from treadle.ir.machine import Machine

Floats = NDArray[np.float64]

FIT_SEED, HOLE_SEED = 0, 1
FIFTH = 5
LOOKED_UP = 3000
"""Left-out rows that are looked up per family and GPU."""

UNSEEN = "trtllm"
"""Framework none of whose rows a fit sees."""

NAMES = {"gemm": "GEMM", "context_attention": "attention prefill", "generation_attention": "attention decode"}


def bfloat16_rows(machine: Machine, family: str) -> Table:
    """Return the bfloat16 rows of one family."""
    rows = load_table(machine.id, family)
    if family == "gemm":
        return gemm_rows(rows, "bfloat16")
    return rows.where(kv_cache_dtype="bfloat16", attn_dtype="bfloat16")


def split(rows: Table, seed: int) -> tuple[Table, Table]:
    """Return (a random fifth, the rest)."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.take(order[: len(rows) // FIFTH]), rows.take(order[len(rows) // FIFTH :])


def figures_of(estimated: Floats, measured: Floats) -> dict[str, float]:
    """Return median and 90th percentile of the absolute percentage error, the mean, the median ratio, the rows."""
    error = np.abs(estimated / measured - 1) * 100
    return {
        "rows": len(measured),
        "median_percent": round(float(np.median(error)), 2),
        "p90_percent": round(float(np.quantile(error, 0.9)), 2),
        "mean_percent": round(float(np.mean(error)), 2),
        "median_ratio": round(float(np.median(estimated / measured)), 3),
    }


def judge_roofline(machine: Machine, family: str) -> dict[str, float]:
    """Return the roofline's error on the rows that its constants were not fitted to."""
    rest = split(bfloat16_rows(machine, family), FIT_SEED)[1]
    return figures_of(estimate_us(family, Constants.of(machine), machine, rest), rest.columns["latency_us"])


def judge_unseen(machine: Machine) -> dict[str, float]:
    """Return the roofline's error on the bfloat16 products of another framework, to which nothing was fitted."""
    rows = gemm_rows(load_table(machine.id, "gemm", UNSEEN), "bfloat16")
    return figures_of(estimate_us("gemm", Constants.of(machine), machine, rows), rows.columns["latency_us"])


def judge_float8(machine: Machine) -> dict[str, float] | None:
    """Return the roofline's error on float8 products; None where the machine has none."""
    words = load_table(machine.id, "gemm").columns["gemm_dtype"]
    if not (words == "fp8").any():
        return None
    rows = gemm_rows(load_table(machine.id, "gemm"), "float8_e4m3")
    estimated = estimate_us("gemm", Constants.of(machine), machine, rows, "float8_e4m3")
    return figures_of(estimated, rows.columns["latency_us"])


def judge_interpolation(machine: Machine, family: str) -> dict[str, float]:
    """Return the error of looking left-out rows up in the table of the others."""
    left_out, rest = split(bfloat16_rows(machine, family), HOLE_SEED)
    left_out = left_out.take(np.arange(min(LOOKED_UP, len(left_out))))
    times = RooflineTimes(machine)
    if family == "gemm":
        grid = gemm_grid(times, rest)
        ratios = np.array([grid.ratio(point) for point in left_out.points("m", "n", "k")])
        estimated = estimate_us(family, times.constants, machine, left_out)
        return figures_of(ratios * estimated, left_out.columns["latency_us"])
    return _judge_attention(times, family, left_out, rest)


def _judge_attention(times: RooflineTimes, family: str, left_out: Table, rest: Table) -> dict[str, float]:
    """As above; every head dimension and window has a grid of its own."""
    build, length, offset = (prefill_grid, "isl", 0) if family == "context_attention" else (decode_grid, "step", 1)
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    windows = left_out.columns.get("window_size", np.zeros(len(left_out), dtype=int))
    for position, key in enumerate(zip(left_out.columns["head_dim"].tolist(), windows.tolist(), strict=True)):
        groups[key].append(position)
    ratios = np.ones(len(left_out))
    for (head_dim, window), positions in groups.items():
        grid = build(times, rest.where(head_dim=head_dim, window_size=window), head_dim, window)
        points = left_out.take(np.array(positions)).points("batch_size", length, "num_heads", "num_key_value_heads")
        points[:, 1] += offset
        ratios[positions] = [grid.ratio(point) for point in points]
    estimated = estimate_us(family, times.constants, times.machine, left_out)
    return figures_of(ratios * estimated, left_out.columns["latency_us"])


def judge(machine: Machine) -> list[dict[str, Any]]:
    """Return one row of figures per model and family of one GPU."""
    found: list[dict[str, Any]] = []
    for family, name in NAMES.items():
        found.append({"gpu": machine.id, "kernel": name, "model": "roofline", **judge_roofline(machine, family)})
        if family == "gemm":
            found.append({"gpu": machine.id, "kernel": f"GEMM {UNSEEN}", "model": "roofline", **judge_unseen(machine)})
        if family == "gemm" and (float8 := judge_float8(machine)):
            found.append({"gpu": machine.id, "kernel": "GEMM float8", "model": "roofline", **float8})
        figures = judge_interpolation(machine, family)
        found.append({"gpu": machine.id, "kernel": name, "model": "interpolation", **figures})
    return found


def print_fit(machine: Machine) -> None:
    """Fit the constants of one GPU and print them as lines of its machine file."""
    rows = {family: split(bfloat16_rows(machine, family), FIT_SEED)[0] for family in NAMES}
    calibration = fit(machine, rows)
    print(f"# {machine.id}")
    for name in CALIBRATED:
        unit = "us" if name.endswith("_us") else "1"
        value = getattr(calibration, name)
        print(f'{name} = {{ value = {value}, unit = "{unit}", source = "calibration", basis = "derived" }}')


def main() -> None:
    """Evaluate, or fit with `--fit`."""
    chosen = arguments(__doc__.splitlines()[0] if __doc__ else "", fit={"action": "store_true"})
    machines = [load_machine(name) for name in SYSTEMS]
    if chosen.fit:
        for machine in machines:
            print_fit(machine)
        return
    rows = [row for machine in machines for row in judge(machine)]
    header = ("gpu", "kernel", "model", "rows", "median %", "P90 %", "mean %", "median ratio")
    table(header, ([*row.values()] for row in rows))
    figures = {
        f"{row['model']}_{row['kernel'].lower().replace(' ', '_')}_{row['gpu']}_median_percent": row["median_percent"]
        for row in rows
    }
    finish("cost_accuracy", figures, rows, chosen.json)


if __name__ == "__main__":
    main()
