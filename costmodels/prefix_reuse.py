"""What caches of different sizes find of a trace's prompts, by running its block hashes through each."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from treadle.costmodels.replay.prefixes import PrefixCache, PrefixSettings
from treadle.ir.serving.reuse import HitCurve
from treadle.ir.workload import Request

POINTS = 8
"""Cache sizes on the curve: the distinct blocks of the trace, and halves of that."""

SAMPLED_REQUESTS = 6000
"""Requests of the trace, from its beginning, that the curve is measured on."""


def has_blocks(requests: Sequence[Request]) -> bool:
    """Whether any request names its prompt's blocks."""
    return any(request.block_hashes for request in requests)


def hit_curve(requests: Sequence[Request], keep_s: float = inf, speed: float = 1.0) -> HitCurve:
    """Return the share of prompt tokens found by caches of rising size.

    Args:
        requests: in order of arrival; without block hashes nothing is found.
        keep_s: seconds after which a block that nobody asked for is dropped.
        speed: requests come this many times faster than in the trace.
    """
    some = requests[:SAMPLED_REQUESTS]
    distinct = len({block for request in some for block in request.block_hashes})
    if not distinct:
        return HitCurve()
    sizes = sorted({max(1, distinct >> halved) for halved in range(POINTS)})
    shares = [_share(some, size, keep_s, speed) for size in sizes]
    rising = [max(shares[: position + 1]) for position in range(len(shares))]
    return HitCurve(tuple(sizes), tuple(float(f"{share:.9g}") for share in rising))


def _share(requests: Sequence[Request], blocks: int, keep_s: float, speed: float) -> float:
    cache = PrefixCache(PrefixSettings(blocks, keep_s=keep_s))
    found = 0
    for request in requests:
        found += cache.reuse(request.block_hashes, request.prompt_tokens - 1, request.arrival_s / speed)[0]
    return found / sum(request.prompt_tokens for request in requests)
