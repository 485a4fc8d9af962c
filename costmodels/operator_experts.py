"""Kernels of a layer whose experts are spread over GPUs (expert parallelism), on one of them.

Rows stay with their GPU from the residual sum after attention to the one after the experts: an all-reduce becomes a
reduce-scatter before and an all-gather after them (Megatron sequence parallelism). Every row is sent to the GPUs of its
experts and their results come back: `top_k` copies over NVLink, and over the network one copy to each other node that
holds any of them (DeepEP, DeepSeek-V3 technical report, arXiv 2412.19437, section 3.2.2), experts taken as uniform.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from treadle.costmodels.operator_kernels import REDUCED, Demand, Kernel, weight_bytes
from treadle.ir.machine import Machine
from treadle.ir.model import GroupedGemm, Layer, OperatorKind
from treadle.ir.operator.plan import Step

ROW_BYTES = 2
"""Bytes of an element that is sent: bfloat16."""

SHARED = "shared"
"""Name that operators of an expert of all rows begin with."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How experts are spread: over `gpus`, `gpus_per_node` to a node; attention is cut over `tensor_parallel`."""

    tensor_parallel: int
    gpus: int
    gpus_per_node: int

    def exchange(self, rows: float, grouped: GroupedGemm) -> Demand:
        """Return what one GPU sends (and receives) of `rows` rows, from or to their experts."""
        width = rows * grouped.k * ROW_BYTES
        node = min(self.gpus, self.gpus_per_node)
        nodes = self.gpus // node
        reached = nodes * (1 - (1 - 1 / nodes) ** grouped.top_k) * (nodes - 1) / nodes
        inside = width * grouped.top_k * (node - 1) / node
        return Demand(0, 0, sent_bytes=inside, network_bytes=width * reached)


def spread_of(machine: Machine, tensor_parallel: int, gpus: int) -> Spread:
    """Return how experts are spread over GPUs of a machine; raises MissingFigure."""
    return Spread(tensor_parallel, gpus, int(machine.value("gpus_per_node")))


def spread_kernels(made: list[Kernel], layer: Layer, step: Step, share: float, spread: Spread) -> list[Kernel]:
    """Return the kernels of a nano-batch with its experts spread.

    Args:
        made: the kernels with experts cut like dense products, rows apart.
        layer: the layer; it has grouped products.
        step: what the forward pass works on.
        share: the nano-batch's part of it.
        spread: where experts are.
    """
    grouped = [op.detail for op in layer.operators if isinstance(op.detail, GroupedGemm)]
    exchange = spread.exchange(step.tokens * share / spread.tensor_parallel, grouped[0])
    first, last = (next(k.name for k in order if k.kind is OperatorKind.GROUPED_GEMM) for order in (made, made[::-1]))
    launched: list[Kernel] = []
    for kernel in made:
        if kernel.name == first:
            launched.append(Kernel("dispatch", exchange, ()))
        launched += _moved(kernel, layer, step, share, spread)
        if kernel.name == last:
            launched.append(Kernel("return", exchange, ()))
    return [*launched, *(_halved(kernel, "gather") for kernel in made if kernel.name == f"{REDUCED[0]}.reduce")]


def _moved(kernel: Kernel, layer: Layer, step: Step, share: float, spread: Spread) -> Iterator[Kernel]:
    """A kernel as it is with experts spread: on own rows, with its own experts' weights, without its all-reduce."""
    demand, ways = kernel.demand, spread.tensor_parallel
    if demand.link_bytes:
        if kernel.name == f"{REDUCED[0]}.reduce":
            yield _halved(kernel, f"{REDUCED[0]}.scatter")
        return
    weights = weight_bytes(layer, kernel.operators, step, share)
    if kernel.kind is OperatorKind.GROUPED_GEMM:
        groups = spread.gpus / ways
        own = weight_bytes(layer, kernel.operators, step, share * groups) / spread.gpus
        yield replace(kernel, demand=replace(demand, memory_bytes=demand.memory_bytes - weights / ways + own))
    elif kernel.name.startswith(SHARED):
        yield replace(kernel, demand=replace(demand, memory_bytes=demand.memory_bytes + weights * (1 - 1 / ways)))
    elif kernel.kind is OperatorKind.ROUTER or kernel.name in ("router", "combine"):
        rows = (demand.memory_bytes - weights) / ways
        yield replace(kernel, demand=replace(demand, flops=demand.flops / ways, memory_bytes=rows + weights))
    else:
        yield kernel


def _halved(kernel: Kernel, name: str) -> Kernel:
    """One half of an all-reduce."""
    return Kernel(name, replace(kernel.demand, link_bytes=kernel.demand.link_bytes / 2), ())
