"""Whether any engine holds the model and its longest request: refusals with what would be needed."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.costmodels.engine import kv_capacity_tokens
from treadle.ir.machine import Machine
from treadle.ir.model import GroupedGemm, ModelGraph
from treadle.ir.serving.errors import LongRequests, TooFewGpus
from treadle.ir.serving.pools import GpuPool, Shape
from treadle.ir.workload import Request

NODE_GPUS = 8
"""GPUs of a node where the nodes given are smaller: what a larger engine would be built of."""


def shapes_of(model: ModelGraph, per_node: int) -> list[Shape]:
    """Return tensor degrees that divide the heads: within a node, and over two nodes for models beyond one."""
    experts = any(isinstance(o.detail, GroupedGemm) for layer, _ in model.forward() for o in layer.operators)
    heads = [detail.heads for _, _, detail, _ in model.attentions()]
    shapes: list[Shape] = []
    degree = 1
    while degree <= 2 * per_node:
        divides = all(count % degree == 0 for count in heads)
        if divides and (degree <= per_node or degree % per_node == 0):
            shapes.append(Shape(degree, 1, 1, degree if experts else 1))
        degree *= 2
    return shapes


def refuse_what_no_engine_holds(
    model: ModelGraph, offers: Sequence[tuple[Machine, GpuPool]], requests: Sequence[Request]
) -> None:
    """Raise where no engine on the GPUs holds the model and its longest request.

    Raises:
        TooFewGpus: a larger engine would.
        LongRequests: even an engine over two nodes does not.
    """
    lengths = [request.prompt_tokens + request.output_tokens + 1 for request in requests]
    longest = max(lengths)
    sizes = [
        (shape.tensor, kv_capacity_tokens(model, machine, shape), machine.id, shape.tensor <= pool.total)
        for machine, pool in offers
        for shape in shapes_of(model, max(NODE_GPUS, *pool.nodes))
    ]
    if any(tokens >= longest and there for _, tokens, _, there in sizes):
        return
    total = sum(pool.total for _, pool in offers)
    if enough := [gpus for gpus, tokens, _, _ in sizes if tokens >= longest]:
        alone = any(tokens and there for _, tokens, _, there in sizes)
        what = f"the model and its longest request ({longest:,} tokens)" if alone else "the model"
        raise TooFewGpus(found=total, need=min(enough), what=what)
    gpus, most, gpu, _ = max(sizes, key=lambda size: size[1])
    if not most:
        hint = "engines are planned over two nodes at most: give a smaller weight dtype, or larger GPUs"
        raise TooFewGpus(found=total, need=f"more than {gpus}", what="the model", hint=hint)
    number = lengths.index(longest) + 1
    raise LongRequests(number=number, tokens=f"{longest:,}", most=f"{most:,}", engine=f"{gpus} x {gpu}")


def beyond_context(model: ModelGraph, requests: Sequence[Request]) -> str:
    """Return a warning about requests longer than the context that the model declares; empty where there are none."""
    beyond = sum(one.prompt_tokens + one.output_tokens > model.context_tokens for one in requests)
    if not model.context_tokens or not beyond:
        return ""
    counted = f"{beyond:,} of {len(requests):,} requests are longer than the model's context"
    return f"warning: {counted} of {model.context_tokens:,} tokens: engines refuse them unless told otherwise"
