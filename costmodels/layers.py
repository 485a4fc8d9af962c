"""Rooflines of operators, layers and forward passes: FLOPs, bytes, arithmetic intensity, seconds on a machine.

An operator takes at least max(FLOPs / peak rate, bytes / memory bandwidth) (Williams, Waterman, Patterson, CACM 52(4),
2009). With the machine's peak figures this is a lower bound of what any kernel can reach; operators run one by one,
so a layer's time is the sum. Sharding is the caller's: pass the shapes one GPU sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.model import Layer, ModelGraph, Operator, OperatorKind, Step
from treadle.ir.symbolic import evaluate

_TENSOR_KINDS = frozenset({OperatorKind.GEMM, OperatorKind.GROUPED_GEMM, OperatorKind.ATTENTION})
"""Kinds that run on tensor cores; the rest runs in float32 on vector units."""

_PEAK_OF = {
    "float8_e4m3": "float8",
    "float8_e5m2": "float8",
    "mxfp8": "float8",
    "nvfp4": "float4",
    "float32": "tfloat32",
}
"""Dtypes whose peak rate has another name in machine files; int4 and mxfp4 weights are widened before the product."""


class UnsupportedDtype(TreadleError):
    """A machine without a rate for a dtype, nor for the one it could be widened to."""

    code = "TRD221"
    template = "machine `{machine}` has no rate for {dtype}"
    hint = "choose a dtype the machine multiplies: {known}"


@dataclass(frozen=True, slots=True)
class Rates:
    """What a roofline needs of a machine: operations per second by unit, and bytes per second."""

    tensor_flops: dict[str, float]
    """Peak FLOP/s of tensor cores by dtype, as machine files name them (`bfloat16`, `float8`, ...)."""
    vector_flops: float
    memory_bytes: float
    machine: str

    def tensor(self, dtype: str, wider: str) -> float:
        """Return the peak rate of a dtype, or of `wider` where operands have to be widened; raises UnsupportedDtype."""
        for name in (dtype, wider):
            rate = self.tensor_flops.get(_PEAK_OF.get(name, name))
            if rate:
                return rate
        raise UnsupportedDtype(machine=self.machine, dtype=dtype, known=", ".join(self.tensor_flops))


def rates(machine: Machine, sustained: bool = False) -> Rates:
    """Return the machine's rates: peaks of the vendor, or what calibrated kernels sustain.

    Raises:
        MissingFigure: no bandwidth, float32 rate or, when `sustained`, no efficiency.
    """
    prefix = "peak_flops_"
    share = machine.value("gemm_efficiency") if sustained else 1.0
    tensor = {
        figure.name.removeprefix(prefix): figure.value * share
        for figure in machine.figures
        if figure.name.startswith(prefix)
    }
    bandwidth = "memory_bandwidth_sustained_bytes_per_s" if sustained else "memory_bandwidth_bytes_per_s"
    return Rates(tensor, machine.value("peak_flops_float32"), machine.value(bandwidth), machine.id)


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs, least bytes, and the seconds that compute and memory need at least."""

    flops: float
    bytes: float
    compute_s: float
    memory_s: float
    seconds: float

    @property
    def intensity(self) -> float:
        """FLOPs per byte; 0 where nothing moves."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def bound(self) -> str:
        """`compute` or `memory`, whichever needs longer."""
        return "compute" if self.compute_s > self.memory_s else "memory"

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.compute_s + other.compute_s,
            self.memory_s + other.memory_s,
            self.seconds + other.seconds,
        )

    def times(self, count: float) -> Cost:
        """Return the cost of `count` such calls one after the other."""
        return Cost(
            self.flops * count, self.bytes * count, self.compute_s * count, self.memory_s * count, self.seconds * count
        )


NOTHING = Cost(0.0, 0.0, 0.0, 0.0, 0.0)


def operator_cost(operator: Operator, step: Step, machine_rates: Rates, dtype: str = "bfloat16") -> Cost:
    """Return the roofline of one call of an operator.

    Args:
        operator: of a model graph.
        step: a value for every dimension.
        machine_rates: of `rates`.
        dtype: of activations; products with narrower weights run at the weights' rate where the machine has one.

    Raises:
        UnsupportedDtype.
    """
    values = step.values()
    flops = float(evaluate(operator.flops, **values))
    moved = float(evaluate(operator.bytes, **values))
    rate = machine_rates.vector_flops
    if operator.kind in _TENSOR_KINDS:
        narrow = dtype if operator.kind is OperatorKind.ATTENTION else operator.weight_dtype
        rate = machine_rates.tensor(narrow, dtype)
    compute_s, memory_s = flops / rate, moved / machine_rates.memory_bytes
    return Cost(flops, moved, compute_s, memory_s, max(compute_s, memory_s))


def layer_costs(layer: Layer, step: Step, machine_rates: Rates, dtype: str = "bfloat16") -> dict[str, Cost]:
    """Return the roofline of every operator of a layer that the step's phase runs, by name."""
    return {
        operator.name: operator_cost(operator, step, machine_rates, dtype) for operator in layer.in_phase(step.phase)
    }


def layer_cost(layer: Layer, step: Step, machine_rates: Rates, dtype: str = "bfloat16") -> Cost:
    """Return the roofline of a layer, operators one after the other."""
    return sum(layer_costs(layer, step, machine_rates, dtype).values(), NOTHING)


def forward_costs(model: ModelGraph, step: Step, machine_rates: Rates) -> Iterator[tuple[Layer, int, Cost]]:
    """Yield every layer type of a forward pass with its count and the roofline of one such layer."""
    for layer, count in model.forward():
        yield layer, count, layer_cost(layer, step, machine_rates, model.dtype)


def forward_cost(model: ModelGraph, step: Step, machine: Machine, sustained: bool = False) -> Cost:
    """Return the roofline of a forward pass on one GPU; raises MissingFigure, UnsupportedDtype."""
    costs = forward_costs(model, step, rates(machine, sustained))
    return sum((cost.times(count) for _, count, cost in costs), NOTHING)


def ridge_tokens(operator: Operator, machine_rates: Rates, dtype: str = "bfloat16", most: int = 1 << 20) -> int | None:
    """Return the least decode batch from which an operator is bound by compute; None when no batch up to `most` is."""

    def compute_bound(batch: int) -> bool:
        return operator_cost(operator, Step(batch, 1, 1), machine_rates, dtype).bound == "compute"

    if not compute_bound(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = ceil((low + high) / 2)
        low, high = (low, middle) if compute_bound(middle) else (middle, high)
    return high
