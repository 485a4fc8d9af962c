"""Reuse of cached prefixes: what a cache of some size finds of a traffic's prompts, and the memories behind a GPU's."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class HitCurve:
    """Share of all prompt tokens found in a cache that keeps so many blocks by recency; rising in both.

    Between two sizes the smaller one counts: a larger cache finds at least as much.
    """

    blocks: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.shares) or any(not 0 <= share < 1 for share in self.shares):
            raise InvalidValue(message="a hit curve needs one share in [0, 1) per cache size")
        pairs = [*pairwise(self.blocks), *pairwise(self.shares)]
        if any(later < earlier for earlier, later in pairs):
            raise InvalidValue(message="a larger cache finds at least as much: a hit curve rises")

    def share(self, blocks: int) -> float:
        """Return the share of prompt tokens that a cache of so many blocks finds."""
        position = bisect_right(self.blocks, blocks)
        return self.shares[position - 1] if position else 0.0


@dataclass(frozen=True, slots=True)
class TierShare:
    """What one engine has of a memory tier: blocks that fit, and seconds to read the cache of one token back."""

    name: str
    blocks: int
    read_s_per_token: float

    def __post_init__(self) -> None:
        if self.blocks < 1 or not 0 <= self.read_s_per_token < float("inf"):
            raise InvalidValue(message=f"the tier `{self.name}` keeps {self.blocks} blocks of an engine")


@dataclass(frozen=True, slots=True)
class Found:
    """What an engine's caches find: share of prompt tokens, and seconds per prompt token to read them back (mean)."""

    share: float = 0.0
    read_s_per_token: float = 0.0


def found_in(curve: HitCurve, own_blocks: int, tiers: tuple[TierShare, ...]) -> Found:
    """Return what a cache of `own_blocks` in GPU memory, with tiers behind it, finds of a traffic."""
    blocks, share, read = own_blocks, curve.share(own_blocks), 0.0
    for tier in tiers:
        blocks += tier.blocks
        further = curve.share(blocks)
        read += (further - share) * tier.read_s_per_token
        share = further
    return Found(share, read)
