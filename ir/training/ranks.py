"""Where ranks stand: strides of every dimension in a rank order, and the shapes that groups have on the topology.

Ranks are numbered through the dimensions of the order, innermost first; a domain (node or rack) has that many ranks in
a row. Experts have a grid of their own over the same ranks: expert-tensor ranks take the place of tensor ranks, expert
ranks stand where the order says `ep`, their copies where it says `dp`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Order


@dataclass(frozen=True, slots=True)
class Shapes:
    """How many ranks of each kind of group stand in one domain, and whether neighbouring stages do not."""

    tensor: int
    context: int
    replicas: int
    """Of the data and context ranks that share a stage's dense parameters."""
    expert: int
    copies: int
    """Of the ranks that hold the same experts."""
    hop_crosses: bool
    ends: int
    """Of the first and the last stage's ranks that share a tied embedding: 1 or 2."""


def inside_of(ranks: int, stride: int, domain: int) -> int:
    """Return how many of `ranks` ranks `stride` apart stand in a domain; a divisor of `ranks`."""
    inside = min(ranks, max(1, domain // stride))
    while ranks % inside:
        inside -= 1
    return inside


def dense_sizes(degrees: Degrees) -> dict[str, int]:
    """Return the size of every dimension outside the experts."""
    return {"tp": degrees.tensor, "cp": degrees.context, "ep": 1, "dp": degrees.data, "pp": degrees.pipeline}


def expert_sizes(degrees: Degrees) -> dict[str, int]:
    """Return the size of every dimension of the experts' grid."""
    ranks = degrees.data * degrees.context * degrees.tensor
    copies = max(1, ranks // (degrees.expert * degrees.expert_tensor))
    return {"tp": degrees.expert_tensor, "cp": 1, "ep": degrees.expert, "dp": copies, "pp": degrees.pipeline}


def stride_of(order: Order, sizes: dict[str, int], name: str) -> int:
    """Return the distance of neighbours along a dimension."""
    stride = 1
    for before in order.dimensions:
        if before == name:
            break
        stride *= sizes[before]
    return stride


def group_inside(order: Order, sizes: dict[str, int], names: Iterable[str], domain: int) -> int:
    """Return how many ranks of the group along some dimensions stand in a domain."""
    wanted = {name for name in names if sizes[name] > 1}
    used = [name for name in order.dimensions if sizes[name] > 1]
    places = [place for place, name in enumerate(used) if name in wanted]
    if not places:
        return 1
    if places[-1] - places[0] + 1 == len(places):
        return inside_of(prod(sizes[name] for name in wanted), stride_of(order, sizes, used[places[0]]), domain)
    return prod(inside_of(sizes[name], stride_of(order, sizes, name), domain) for name in wanted)


@lru_cache(maxsize=65536)
def _shapes(
    order: Order, data: int, tensor: int, context: int, pipeline: int, expert: int, expert_tensor: int, domain: int
) -> Shapes:
    degrees = Degrees(data, tensor, context, pipeline, 1, 1, expert, expert_tensor)
    dense, routed = dense_sizes(degrees), expert_sizes(degrees)
    stride = stride_of(order, dense, "pp")
    return Shapes(
        group_inside(order, dense, ("tp",), domain),
        group_inside(order, dense, ("cp",), domain),
        group_inside(order, dense, ("cp", "dp"), domain),
        group_inside(order, routed, ("tp", "ep"), domain),
        group_inside(order, routed, ("dp",), domain),
        pipeline > 1 and degrees.gpus > domain and stride * pipeline > domain,
        inside_of(2, stride, domain) if pipeline > 1 else 2,
    )


def shapes(degrees: Degrees, domain: int) -> Shapes:
    """Return the shapes of all groups in domains of `domain` GPUs."""
    sizes = degrees.data, degrees.tensor, degrees.context, degrees.pipeline, degrees.expert, degrees.expert_tensor
    return _shapes(degrees.order, *sizes, domain)


def same_stages(degrees: Degrees) -> bool:
    """Whether the dense grid and the experts' grid cut the ranks into the same pipeline stages."""
    order, dense, routed = degrees.order, dense_sizes(degrees), expert_sizes(degrees)
    return stride_of(order, dense, "pp") == stride_of(order, routed, "pp")


def position_of(degrees: Degrees, rank: int) -> dict[str, int]:
    """Return the coordinates (tp, cp, dp, pp) of a global rank."""
    sizes, found = dense_sizes(degrees), dict[str, int]()
    for name in degrees.order.dimensions:
        rank, found[name] = divmod(rank, sizes[name])
    found.pop("ep")
    return found
