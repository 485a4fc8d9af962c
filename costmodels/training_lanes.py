"""Forward and backward of a layer as kernels on one GPU: what a training step overlaps, of two microbatches at once.

A product's backward is two of the same FLOP and bytes (gradient of its input, gradient of its weights); attention's is
five products where forward has two (FlashAttention-2, arXiv 2307.08691, section 3.1); what only moves memory moves 3/2
as much (it reads a saved tensor and a gradient, and writes one). The gradient that leaves the layer's two
column-parallel inputs is summed over the tensor-parallel group where forward has a norm (Megatron-LM, arXiv 1909.08053,
the operator f).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from treadle.costmodels.operator_kernels import Demand, Kernel
from treadle.ir.model import OperatorKind

ATTENTION_BACKWARD = 2.5
MEMORY_BACKWARD = 1.5

PRODUCTS = (OperatorKind.GEMM, OperatorKind.GROUPED_GEMM, OperatorKind.ROUTER)

FORWARD, BACKWARD = "forward", "backward"
"""Names of the lanes."""


def backward_kernels(forward: list[Kernel], reduced_bytes: float, mirrored: bool = False) -> list[Kernel]:
    """Return the kernels of the backward pass in launch order.

    Args:
        forward: kernels of the forward pass.
        reduced_bytes: buffer of an all-reduce at a norm; 0 without tensor parallelism.
        mirrored: every transfer of forward goes back the other way (scatter and gather, dispatch and return).
    """
    return [kernel for one in reversed(forward) for kernel in _of(one, reduced_bytes, mirrored)]


def _of(kernel: Kernel, reduced_bytes: float, mirrored: bool) -> Iterator[Kernel]:
    demand = kernel.demand
    if demand.collective:
        if mirrored:
            yield kernel
        return
    if kernel.kind is OperatorKind.ATTENTION:
        scaled = Demand(demand.flops * ATTENTION_BACKWARD, demand.memory_bytes * ATTENTION_BACKWARD)
        yield replace(kernel, demand=scaled)
    elif kernel.kind in PRODUCTS:
        yield replace(kernel, name=f"{kernel.name}.input", demand=demand)
        yield replace(kernel, name=f"{kernel.name}.weight", demand=demand)
    else:
        if kernel.kind is OperatorKind.NORM and reduced_bytes:
            yield Kernel(f"{kernel.name}.reduce", Demand(0, 0, reduced_bytes), ())
        yield replace(kernel, demand=Demand(demand.flops, demand.memory_bytes * MEMORY_BACKWARD))
