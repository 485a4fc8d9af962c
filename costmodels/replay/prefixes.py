"""Prefix blocks an engine keeps for reuse, in its own memory and in tiers behind it, by recency or for a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from treadle.ir.workload import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class PrefixSettings:
    """What an engine keeps.

    `blocks` fit its own memory, `tier_blocks` more fit behind it and take `read_s_per_token` to come back. A block that
    nobody asked for during `keep_s` seconds is dropped (KV time-to-live of agent schedulers); infinity keeps by recency
    alone.
    """

    blocks: int
    tier_blocks: int = 0
    read_s_per_token: float = 0.0
    keep_s: float = inf


class PrefixCache:
    """Blocks by recency: the newest `blocks` in memory, the rest behind it."""

    def __init__(self, settings: PrefixSettings) -> None:
        self.settings = settings
        self.last_use: OrderedDict[int, float] = OrderedDict()
        self.ranks: dict[int, int] = {}
        self.uses = 0

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
        behind = 0
        if self.settings.tier_blocks:
            behind = sum(self.uses - self.ranks[block] >= self.settings.blocks for block in blocks[:hit])
        for block in blocks:
            self.uses += 1
            self.last_use[block] = now
            self.ranks[block] = self.uses
            self.last_use.move_to_end(block)
        while len(self.last_use) > self.settings.blocks + self.settings.tier_blocks:
            gone, _ = self.last_use.popitem(last=False)
            del self.ranks[gone]
        tokens = min(hit * BLOCK_TOKENS, most_tokens)
        return tokens, min(behind * BLOCK_TOKENS, tokens) * self.settings.read_s_per_token

    def _drop_old(self, now: float) -> None:
        if self.settings.keep_s == inf:
            return
        while self.last_use:
            block, used = next(iter(self.last_use.items()))
            if now - used <= self.settings.keep_s:
                return
            del self.last_use[block]
            del self.ranks[block]
