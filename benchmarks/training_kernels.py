"""Measure, per GPU type, what the training cost model takes from single kernels: products' tiles and NCCL's curves.

Reads the tables of `aiconfigurator-core` (extra `measured`): bfloat16 products of 512 rows and more, and half-precision
collectives inside a node. The four figures of the products are those of least mean absolute logarithmic error; the
curves are copied. Writes `costmodels/data/training/kernels.toml`. No training run is read.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple, fields
from datetime import date
from pathlib import Path

from benchmarks.common import arguments, finish, guarded, table
from treadle.costmodels.machines import load_machine
from treadle.costmodels.measured import SYSTEMS, Table, load_table
from treadle.costmodels.training_products import ProductFigures, product_parts

TARGET = Path(__file__).parents[1] / "costmodels" / "data" / "training" / "kernels.toml"
LEAST_ROWS, LEAST_SIDE, MOST_SIDE = 512, 128, 16384
SMALLEST_BYTES = 65536
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "alltoall")
START = ProductFigures(0.9, 0.75, 3.0, 4.0)
NAMES = tuple(field.name for field in fields(ProductFigures))
ATTENTION = {
    "a100": (0.33, "FlashAttention: forward 30 to 50 %, backward 25 to 35 % of the peak, arXiv 2307.08691, section 1"),
    "h100": (0.5, "FlashAttention-3, causal, 8K: about 600 forward, 480 backward, arXiv 2407.08608, fig. 5"),
    "h200": (0.5, "as on H100"),
    "b200": (0.5, "no measurement at hand: share as on H100"),
}
"""Share of the peak bfloat16 rate that a fused causal attention reaches, forward and backward together: published."""
Case = tuple[tuple[float, float, float, float], float]
"""((1, rows, inputs, outputs), measured microseconds)."""


def descend(loss: Callable[[Sequence[float]], float], start: Sequence[float], sweeps: int, step: float) -> list[float]:
    """Return the point of least loss found by coordinate descent on logarithms."""
    values, best = list(start), loss(start)
    steps = [step] * len(values)
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
    return values


def cases_of(products: Table) -> list[Case]:
    """Return the measured products that layers of a model look like."""
    columns = (products.columns[name].tolist() for name in ("m", "k", "n", "latency_us"))
    return [
        ((1.0, float(rows), float(inputs), float(outputs)), latency)
        for rows, inputs, outputs, latency in zip(*columns, strict=True)
        if rows >= LEAST_ROWS and all(LEAST_SIDE <= side <= MOST_SIDE for side in (inputs, outputs))
    ]


def error_of(cases: Sequence[Case], figures: ProductFigures, machine: str) -> float:
    """Return the mean absolute logarithmic error of the figures."""
    known = load_machine(machine)
    peak, memory = (known.value(name) / 1e6 for name in ("peak_flops_bfloat16", "memory_bandwidth_bytes_per_s"))
    processors = int(known.value("sm_count"))
    errors: list[float] = []
    for shape, latency in cases:
        moved = 2 * (shape[1] * shape[2] + shape[2] * shape[3] + shape[1] * shape[3])
        time = max(sum(product_parts(figures, processors, peak, memory, shape)), moved / memory)
        errors.append(abs(math.log(time / latency)))
    return statistics.fmean(errors)


def fitted(cases: Sequence[Case], machine: str) -> ProductFigures:
    """Return the figures of least error over the cases."""

    def loss(values: Sequence[float]) -> float:
        return error_of(cases, ProductFigures(*values), machine) if max(values[:2]) <= 1 else math.inf

    return ProductFigures(*(float(f"{value:.3g}") for value in descend(loss, astuple(START), 40, 0.2)))


def curves_of(collectives: Table) -> list[tuple[str, int, list[tuple[int, float]]]]:
    """Return (operation, ranks, [(bytes, microseconds)]) of every measured collective."""
    half = collectives.where(nccl_dtype="half")
    names = ("op_name", "num_gpus", "message_size", "latency_us")
    rows = sorted(zip(*(half.columns[name].tolist() for name in names), strict=True))
    found: list[tuple[str, int, list[tuple[int, float]]]] = []
    for operation in OPERATIONS:
        for ranks in sorted({row[1] for row in rows if row[0] == operation}):
            points = [(2 * row[2], row[3]) for row in rows if row[:2] == (operation, ranks)]
            found.append((operation, ranks, [point for point in points if point[0] >= SMALLEST_BYTES]))
    return found


def section(machine: str, figures: ProductFigures, collectives: Table, products: Table) -> str:
    """Return one GPU type's part of the file."""
    named = ", ".join(f"{name} = {value:g}" for name, value in zip(NAMES, astuple(figures), strict=True))
    source = f"aiconfigurator-core, {products.backend} {products.version} products, NCCL {collectives.version}"
    lines = [f"[{machine}]", f'source = "{source}"', f'date = "{date.today().isoformat()}"']
    lines.append(f"products = {{ {named} }}")
    share, told = ATTENTION[machine]
    lines.append(f'attention = {{ share = {share}, source = "{told}" }}')
    for operation, ranks, points in curves_of(collectives):
        text = ", ".join(f"[{size}, {latency:.4g}]" for size, latency in points)
        lines.append(f"{operation}_{ranks} = [{text}]")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure every GPU type with tables and write the file."""
    chosen = arguments("figures of single kernels for the training cost model")
    parts = ["# Figures of single kernels per GPU type, written by `python -m benchmarks.training_kernels`.\n"]
    parts[0] += "# `products`: tiles of matrix products. Collectives inside a node: [bytes of the whole buffer, us].\n"
    rows: list[dict[str, object]] = []
    for machine in SYSTEMS:
        products = load_table(machine, "gemm").where(gemm_dtype="bfloat16")
        cases = cases_of(products)
        figures = fitted(cases, machine)
        rows.append({"gpu": machine, "products": len(cases), "error": 100 * error_of(cases, figures, machine)})
        rows[-1] |= dict(zip(NAMES, astuple(figures), strict=True))
        parts.append(section(machine, figures, load_table(machine, "nccl"), products))
    TARGET.write_text("\n".join(parts), encoding="utf-8")
    table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    finish("training_kernels", {}, rows, chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
