"""Which groups of ranks stay on their leaf switches, and which cross the spine of an oversubscribed fabric.

On a rail-optimized fabric GPU i of every node is on leaf switch i, so ranks of one local index reach each other without
the spine (NVIDIA DGX SuperPOD reference architecture, H100; "Rail-only", arXiv 2307.12169). A leaf joins `leaf_nodes`
nodes: a unit of the SuperPOD has 32, a pod of Llama 3's cluster 384 behind a spine of 7 to 1 (arXiv 2407.21783, 3.3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.plan import Degrees
from treadle.ir.training.ranks import dense_sizes, expert_sizes, group_inside, inside_of, stride_of
from treadle.ir.training.spec import Order

Sizes = dict[str, int]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a group's neighbours in other domains are."""

    leaf: int
    """Domains of the group on the same leaf switches; 0: all of them."""
    aligned: bool
    """Whether neighbours in other domains stand on the same rail."""


@dataclass(frozen=True, slots=True)
class Crossings:
    """The reach of every kind of group (`ranks.Shapes`), and the share of the stages' hops that crosses the spine."""

    tensor: Reach
    context: Reach
    replicas: Reach
    expert: Reach
    copies: Reach
    ends: Reach
    hop: float


def crossings(degrees: Degrees, cluster: ClusterTopology) -> Crossings | None:
    """Return what crosses the spine; None where the spine takes all that the leaves send."""
    if cluster.spine_oversubscription == 1:
        return None
    sizes = degrees.data, degrees.tensor, degrees.context, degrees.pipeline, degrees.expert, degrees.expert_tensor
    return _crossings(degrees.order, *sizes, cluster.domain, cluster.rail_count, cluster.leaf_gpus)


@lru_cache(maxsize=65536)
def _crossings(
    order: Order,
    data: int,
    tensor: int,
    context: int,
    pipeline: int,
    expert: int,
    expert_tensor: int,
    domain: int,
    rails: int,
    leaf: int,
) -> Crossings:
    degrees = Degrees(data, tensor, context, pipeline, 1, 1, expert, expert_tensor)
    dense, routed = dense_sizes(degrees), expert_sizes(degrees)

    def reach(sizes: Sizes, *names: str) -> Reach:
        within = 0
        if leaf:
            inside = group_inside(order, sizes, names, domain)
            within = max(1, group_inside(order, sizes, names, leaf) // inside)
        return Reach(within, not rails or _aligned(order, sizes, names, domain, rails))

    stride = stride_of(order, dense, "pp")
    beyond = bool(leaf) and pipeline > 1 and stride * pipeline > leaf
    return Crossings(
        reach(dense, "tp"),
        reach(dense, "cp"),
        reach(dense, "cp", "dp"),
        reach(routed, "tp", "ep"),
        reach(routed, "dp"),
        Reach(int(beyond), not rails or stride * (pipeline - 1) % rails == 0),
        min(1.0, stride / leaf) if beyond else 0.0,
    )


def _aligned(order: Order, sizes: Sizes, names: tuple[str, ...], domain: int, rails: int) -> bool:
    """Whether the ranks that take each other's place in the next domain of a group have the same local index."""
    wanted = {name for name in names if sizes[name] > 1}
    used = [name for name in order.dimensions if sizes[name] > 1]
    places = [place for place, name in enumerate(used) if name in wanted]
    if places and places[-1] - places[0] + 1 == len(places):
        runs = [(prod(sizes[name] for name in wanted), stride_of(order, sizes, used[places[0]]))]
    else:
        runs = [(sizes[name], stride_of(order, sizes, name)) for name in wanted]
    return all(
        inside == ranks or inside * stride % rails == 0
        for ranks, stride, inside in ((ranks, stride, inside_of(ranks, stride, domain)) for ranks, stride in runs)
    )
