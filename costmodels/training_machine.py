"""GPU types as the training cost model sees them: vendor figures, figures of single kernels, eight fitted constants.

Vendor figures come from the machine data; tiles of products and curves of collectives inside a node from
`kernels.toml` (measured kernel by kernel); only the constants are fitted to training runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files

from treadle.costmodels.collectives import Links, bus_factor
from treadle.costmodels.machines import load_machine
from treadle.costmodels.training_products import ProductFigures
from treadle.ir.diagnostics import TreadleError, closest
from treadle.ir.training.cluster import ClusterTopology, Curve

_PEAKS = {
    "fp16": "peak_flops_float16",
    "bf16": "peak_flops_bfloat16",
    "fp8": "peak_flops_float8",
    "mxfp8": "peak_flops_float8",
    "nvfp4": "peak_flops_float4",
}


class UnknownTrainingGpu(TreadleError):
    """A GPU type without training constants."""

    code = "TRD150"
    template = "no training constants for the GPU `{gpu}`"
    hint = "fit some with `python -m benchmarks.training_fit`, or name the nearest type"


class UnsupportedPrecision(TreadleError):
    """A precision that the GPU's matrix units do not have."""

    code = "TRD159"
    template = "`{gpu}` has no rate for the precision `{precision}`"
    hint = "use bf16 or fp16, or a GPU type with that format"


@dataclass(frozen=True, slots=True)
class Constants:
    """The fitted constants of one GPU type (`benchmarks/training_fit.py`)."""

    product_efficiency: float
    """Share of the rate they reach alone that matrix products keep inside a step (power, caches, other kernels)."""
    host_skew: float
    """Growth of a layer's host time per doubling of the ranks that meet in its sums: they wait for the slowest host."""
    memory_efficiency: float
    """Share of the memory bandwidth that elementwise kernels reach."""
    host_us_per_kernel: float
    """Host time per kernel; a layer never runs faster than its launches."""
    link_efficiency: float
    """Share of the measured curves (or of the vendor's bandwidth) inside a node."""
    network_efficiency: float
    """Share of the vendor's bandwidth between nodes."""
    collective_latency_us: float
    """Of a collective between nodes; half of it is added to one inside a node, whose ranks arrive apart."""
    step_us: float
    """Fixed part of a step: optimizer launches, data loading, loss scaling."""

    def values(self) -> tuple[float, ...]:
        """Return the constants in declaration order."""
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class TrainingGpu:
    """One GPU type. Rates are per microsecond."""

    id: str
    machine: str
    """Id of its vendor figures."""
    peak_flops_per_us: dict[str, float]
    memory_bytes: float
    memory_bytes_per_us: float
    links_bytes_per_us: float
    network_bytes_per_us: float
    gpus_per_node: int
    constants: Constants
    host_bytes_per_us: float
    """Between the GPU and its host, per direction."""
    multiprocessors: int
    products: ProductFigures
    attention_share: float
    """Share of the peak 16-bit rate that a fused attention reaches, forward and backward."""
    curves: tuple[Curve, ...] = ()

    def peak(self, precision: str) -> float:
        """Return the dense matrix rate in FLOP per microsecond; raises UnsupportedPrecision."""
        if precision not in self.peak_flops_per_us:
            raise UnsupportedPrecision(gpu=self.id, precision=precision, expected=", ".join(self.peak_flops_per_us))
        return self.peak_flops_per_us[precision]


@cache
def _data(name: str) -> dict[str, dict[str, object]]:
    entry = files("treadle.costmodels") / "data" / "training" / f"{name}.toml"
    document: dict[str, dict[str, object]] = tomllib.loads(entry.read_text(encoding="utf-8"))
    return document


def _document() -> dict[str, dict[str, object]]:
    document: dict[str, dict[str, object]] = _data("calibration")["gpu"]  # type: ignore[assignment]  # a table of tables
    return document


def training_gpu_ids() -> tuple[str, ...]:
    """Return the ids of GPU types with training constants."""
    return tuple(_document())


@cache
def training_gpu(name: str) -> TrainingGpu:
    """Return a GPU type by id; raises UnknownTrainingGpu."""
    table = _document()
    if name not in table:
        known = tuple(table)
        raise UnknownTrainingGpu(gpu=name, expected=f"one of {', '.join(known)}", hint=closest(name.lower(), known))
    entry = table[name]
    machine = load_machine(str(entry["machine"]))
    figures = {figure.name: figure.value for figure in machine.figures}
    replaced = entry.get("figures", {})
    assert isinstance(replaced, dict)
    figures |= {key: float(item["value"]) for key, item in replaced.items()}
    constants = entry["constants"]
    assert isinstance(constants, dict)
    return TrainingGpu(
        name,
        machine.id,
        {precision: figures[figure] / 1e6 for precision, figure in _PEAKS.items() if figures.get(figure)},
        figures["memory_capacity_bytes"],
        figures["memory_bandwidth_bytes_per_s"] / 1e6,
        figures["nvlink_bandwidth_bytes_per_s"] / 1e6,
        figures["network_bandwidth_bytes_per_s"] / 1e6,
        int(figures["gpus_per_node"]),
        Constants(**{field.name: float(constants[field.name]) for field in fields(Constants)}),
        figures.get("pcie_bandwidth_bytes_per_s", 0.0) / 1e6,
        int(figures["sm_count"]),
        *_kernels({**_data("kernels")[str(entry.get("kernels", entry["machine"]))], **entry}),
    )


def _kernels(table: Mapping[str, object]) -> tuple[ProductFigures, float, tuple[Curve, ...]]:
    """Return products' figures, attention's share and collectives' curves of a section of `kernels.toml`."""
    products, attention = table["products"], table["attention"]
    assert isinstance(products, dict)
    assert isinstance(attention, dict)
    curves: list[Curve] = []
    for name, points in table.items():
        operation, _, ranks = name.rpartition("_")
        if ranks.isdigit() and isinstance(points, list):
            curves.append(_curve(operation, int(ranks), points))
    figures = ProductFigures(**{field.name: float(products[field.name]) for field in fields(ProductFigures)})
    return figures, float(attention["share"]), tuple(curves)


def _curve(operation: str, ranks: int, points: list[tuple[int, float]]) -> Curve:
    """Return a curve of bus bandwidth from (bytes, microseconds)."""
    factor = bus_factor(operation, ranks) / 1000
    rates = tuple(size * factor / latency for size, latency in points)
    return Curve(operation, ranks, 1, tuple(size for size, _ in points), rates)


def links_of(cluster: ClusterTopology, gpu: TrainingGpu) -> Links:
    """Return the links of a cluster: its own figures, or the GPU type's, times the fitted efficiencies.

    Measured curves of the cluster come first; those of the GPU type hold where the cluster names no link bandwidth.
    """
    fast = cluster.links_gbytes_per_s * 1e3 or gpu.links_bytes_per_us
    slow = cluster.network_gbytes_per_s * 1e3 or gpu.network_bytes_per_us
    constants = gpu.constants
    inside = () if cluster.links_gbytes_per_s else tuple(_slowed(curve, constants) for curve in gpu.curves)
    return Links(
        fast * constants.link_efficiency,
        slow * constants.network_efficiency,
        constants.collective_latency_us,
        (*cluster.curves, *inside),
        constants.collective_latency_us / 2,
        cluster.rails,
        cluster.spine_oversubscription,
    )


def _slowed(curve: Curve, constants: Constants) -> Curve:
    rates = tuple(rate * constants.link_efficiency for rate in curve.busbw_gbytes_per_s)
    return replace(curve, busbw_gbytes_per_s=rates)
