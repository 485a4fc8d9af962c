"""Time of context exchange, sharded reductions and host transfers: pure functions of group shapes, sizes and links.

Context exchange: a ring passes keys and values on while scores are computed (arXiv 2310.01889), in both directions with
half the steps; an all-to-all turns sequence shards into head shards and back (arXiv 2309.14509), and with two levels
does so inside a domain while a ring runs across (arXiv 2405.07719). Sharded reductions: inside a domain with copies in
the others (arXiv 2304.11277), or weights inside and the rest over all (arXiv 2306.10209).
"""

from __future__ import annotations

from dataclasses import dataclass

from treadle.costmodels.collectives import Group, Links, all_reduce_us, all_to_all_us, gather_us, send_us
from treadle.ir.training.spec import ContextMode, Sharding


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the context ranks of one layer exchange for one microbatch; sizes are one rank's, in bytes."""

    group: Group
    keys_bytes: float
    """Keys and values of the rank's part of the sequence."""
    heads_bytes: float
    """Queries and contexts of the rank's part of the sequence."""
    keys_per_rank: float
    """Key-value heads of a tensor rank."""
    core_us: float
    """Forward time of the attention core on the rank."""


def exposed_us(mode: ContextMode, exchange: Exchange, links: Links) -> tuple[float, float]:
    """Return what an exchange adds to a layer's forward and backward pass.

    A ring's backward passes keys, values and their gradients; an all-to-all's moves as much as its forward.
    """
    group = exchange.group
    if mode in (ContextMode.RING, ContextMode.BIDIRECTIONAL):
        steps = group.ranks - 1
        share = group.leaf_share / group.inside
        sent = _ring_us(Group(group.ranks, 1) if group.domains > 1 else group, exchange.keys_bytes, mode, links, share)
        shown = max(0.0, sent - exchange.core_us * steps / group.ranks)
        return shown, 2 * shown
    inner = group if mode is ContextMode.ALL_TO_ALL else Group(group.inside, group.inside)
    repeated = max(1.0, inner.ranks / exchange.keys_per_rank)
    turned = sum(all_to_all_us(size, inner, links) for size in (exchange.heads_bytes, exchange.keys_bytes * repeated))
    outer = group.ranks // inner.ranks
    if outer == 1:
        return turned, turned
    across = Group(outer, 1)
    sent = _ring_us(across, exchange.keys_bytes * repeated, ContextMode.RING, links, group.leaf_share)
    shown = max(0.0, sent - exchange.core_us * (outer - 1) / outer)
    return turned + shown, turned + 2 * shown


def _ring_us(group: Group, size: float, mode: ContextMode, links: Links, spine_share: float) -> float:
    """Return the time of all steps; both directions share a GPU's link, so only the number of starts halves."""
    steps, crosses = group.ranks - 1, group.domains > 1
    if mode is ContextMode.RING:
        return steps * send_us(size, crosses, links, spine_share)
    starts = -(-steps // 2)
    return starts * send_us(size * steps / starts, crosses, links, spine_share)


def reduction_us(
    zero: int, sharding: Sharding, group: Group, gradient_bytes: float, weight_bytes: float, links: Links
) -> tuple[float, float]:
    """Return the time of a step's gradient reduction, and of gathering updated parameters, outside the layers.

    ZeRO-3 reduces over its group inside the backward pass: what is left is the traffic between domains that hold
    copies.
    """
    if group.ranks == 1:
        return 0.0, 0.0
    if zero == 0:
        return all_reduce_us(gradient_bytes, group, links), 0.0
    inner, outer = Group(group.inside, group.inside), Group(group.domains, 1, group.leaf, group.aligned)
    part = gradient_bytes / group.inside
    if zero == 3:
        if sharding is Sharding.NODE:
            return all_reduce_us(part, outer, links), 0.0
        if sharding is Sharding.HIERARCHICAL:
            gathered = gather_us(weight_bytes / group.inside, outer, links)
            return gather_us(part, outer, links, "reduce_scatter"), gathered
        return 0.0, 0.0
    if sharding is Sharding.NODE:
        reduced = gather_us(gradient_bytes, inner, links, "reduce_scatter") + all_reduce_us(part, outer, links)
        return reduced, gather_us(weight_bytes, inner, links)
    return gather_us(gradient_bytes, group, links, "reduce_scatter"), gather_us(weight_bytes, group, links)


def gather_group(sharding: Sharding, group: Group) -> Group:
    """Return the group that gathers a layer's weights under ZeRO-3."""
    return group if sharding is Sharding.GLOBAL else Group(group.inside, group.inside)
