"""GPU types as the training cost model sees them: vendor figures of the machine data, and eight fitted constants."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

from treadle.costmodels.collectives import Links
from treadle.costmodels.machines import load_machine
from treadle.ir.diagnostics import TreadleError, closest
from treadle.ir.training.cluster import ClusterTopology

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
    """Share of the peak rate that large matrix products reach."""
    product_overhead_us: float
    """Filling and draining of one product."""
    memory_efficiency: float
    """Share of the memory bandwidth that elementwise kernels reach."""
    host_us_per_kernel: float
    """Host time per kernel; a layer never runs faster than its launches."""
    link_efficiency: float
    network_efficiency: float
    collective_latency_us: float
    step_us: float
    """Fixed part of a step: optimizer launches, data loading, loss scaling."""

    def values(self) -> tuple[float, ...]:
        """Return the constants in declaration order."""
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class TrainingGpu:
    """One GPU type. Rates are per microsecond."""

    id: str
    peak_flops_per_us: dict[str, float]
    memory_bytes: float
    memory_bytes_per_us: float
    links_bytes_per_us: float
    network_bytes_per_us: float
    gpus_per_node: int
    constants: Constants

    def peak(self, precision: str) -> float:
        """Return the dense matrix rate in FLOP per microsecond; raises UnsupportedPrecision."""
        if precision not in self.peak_flops_per_us:
            raise UnsupportedPrecision(gpu=self.id, precision=precision, expected=", ".join(self.peak_flops_per_us))
        return self.peak_flops_per_us[precision]


@cache
def _document() -> dict[str, dict[str, object]]:
    entry = files("treadle.costmodels") / "data" / "training" / "calibration.toml"
    document: dict[str, dict[str, object]] = tomllib.loads(entry.read_text(encoding="utf-8"))["gpu"]
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
        {precision: figures[figure] / 1e6 for precision, figure in _PEAKS.items() if figures.get(figure)},
        figures["memory_capacity_bytes"],
        figures["memory_bandwidth_bytes_per_s"] / 1e6,
        figures["nvlink_bandwidth_bytes_per_s"] / 1e6,
        figures["network_bandwidth_bytes_per_s"] / 1e6,
        int(figures["gpus_per_node"]),
        Constants(**{field.name: float(constants[field.name]) for field in fields(Constants)}),
    )


def links_of(cluster: ClusterTopology, gpu: TrainingGpu) -> Links:
    """Return the links of a cluster: its own figures, or the GPU type's, times the fitted efficiencies."""
    fast = cluster.links_gbytes_per_s * 1e3 or gpu.links_bytes_per_us
    slow = cluster.network_gbytes_per_s * 1e3 or gpu.network_bytes_per_us
    constants = gpu.constants
    return Links(
        fast * constants.link_efficiency,
        slow * constants.network_efficiency,
        constants.collective_latency_us,
        cluster.curves,
    )
