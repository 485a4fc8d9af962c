"""Prefix blocks an engine keeps for reuse, in its own memory and in tiers behind it, by recency or for a time."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from treadle.ir.serving.reuse import TierShare
from treadle.ir.workload import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class PrefixSettings:
    """What an engine keeps.

    `blocks` fit its own memory; every tier behind keeps more, which take time to come back. A block that nobody asked
    for during `keep_s` seconds is dropped (KV time-to-live of agent schedulers); infinity keeps by recency alone.
    """

    blocks: int
    tiers: tuple[TierShare, ...] = ()
    keep_s: float = inf


class PrefixCache:
    """Blocks by recency: the newest `blocks` in memory, the rest in the tiers behind it, one after the other."""

    def __init__(self, settings: PrefixSettings) -> None:
        self.settings = settings
        self.last_use: OrderedDict[int, float] = OrderedDict()
        self.ranks: dict[int, int] = {}
        self.uses = 0
        self.ends: list[int] = []
        room = settings.blocks
        for tier in settings.tiers:
            self.ends.append(room)
            room += tier.blocks
        self.room = room

    def held(self, blocks: Sequence[int]) -> int:
        """Return how many leading blocks are kept."""
        hit = 0
        for block in blocks:
            if block not in self.last_use:
                break
            hit += 1
        return hit

    def reuse(self, blocks: Sequence[int], most_tokens: int, now: float) -> tuple[int, float]:
        """Return the prompt tokens found, and the seconds to read those behind memory; remembers the blocks."""
        self._drop_old(now)
        hit = self.held(blocks)
        tokens = min(hit * BLOCK_TOKENS, most_tokens)
        read_s = self._read_s(blocks[:hit], tokens) if self.ends else 0.0
        for block in blocks:
            self.uses += 1
            self.last_use[block] = now
            self.ranks[block] = self.uses
            self.last_use.move_to_end(block)
        while len(self.last_use) > self.room:
            gone, _ = self.last_use.popitem(last=False)
            del self.ranks[gone]
        return tokens, read_s

    def _read_s(self, blocks: Sequence[int], tokens: int) -> float:
        """Return the time to read the blocks that newer ones have pushed behind memory."""
        read_s, left = 0.0, tokens
        for block in blocks:
            size = min(left, BLOCK_TOKENS)
            left -= size
            age = self.uses - self.ranks[block]
            if age >= self.ends[0]:
                tier = self.settings.tiers[bisect_right(self.ends, age) - 1]
                read_s += size * tier.read_s_per_token
        return read_s

    def _drop_old(self, now: float) -> None:
        if self.settings.keep_s == inf:
            return
        while self.last_use:
            block, used = next(iter(self.last_use.items()))
            if now - used <= self.settings.keep_s:
                return
            del self.last_use[block]
            del self.ranks[block]
