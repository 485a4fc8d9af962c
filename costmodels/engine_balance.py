"""The state of an engine that interleaves prompts and decoding, by the batch that it holds.

Little's law ties the batch to the rate: batch = rate x output tokens x mean step. The mean step is that of plain and
mixed steps by their shares of the time, and the share of mixed steps is the rate times what a prompt takes. Both are
linear in the rate, so that the batch gives the rate in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from treadle.ir.serving.plan import KindOfEngine
from treadle.ir.serving.reuse import Found, HitCurve, found_in
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import BLOCK_TOKENS

LEAST_BATCH = 2.0**-7
MOST_BATCH = 2048.0
"""Sequences of an engine beyond which it counts as overloaded."""
MOST_LOAD = 0.98
"""Share of its time that prompts may take."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes to an engine: lengths, their mean context (expensive to compute), what caches find, tokens a step."""

    lengths: Lengths
    mean_context: float
    hits: HitCurve | None
    chunk: int


@dataclass(frozen=True, slots=True)
class Running:
    """An engine under load: decoding sequences on average, requests, share of time for prompts, mean step, caches."""

    batch: float
    rate_per_s: float
    load: float
    step_s: float
    reuse: Found
    blocks: tuple[int, ...]


def own_blocks(kind: KindOfEngine, needed_tokens: int) -> int:
    """Return the prompt blocks that fit beside the sequences under way."""
    return max(0, kind.kv_tokens - needed_tokens) // BLOCK_TOKENS


def cached(kind: KindOfEngine, hits: HitCurve | None, needed_tokens: int) -> tuple[Found, tuple[int, ...]]:
    """Return what an engine's caches find, and the blocks of each."""
    if hits is None:
        return Found(), ()
    blocks = own_blocks(kind, needed_tokens)
    return found_in(hits, blocks, kind.tiers), (blocks, *(tier.blocks for tier in kind.tiers))


def peak_of(batch: float) -> int:
    """Return about what a Poisson stream holds at its 97th percentile where it holds `batch` on average."""
    return ceil(batch + 2 * sqrt(batch))


def running_with(kind: KindOfEngine, traffic: Traffic, batch: float) -> Running | None:
    """Return the state of an engine that decodes `batch` sequences on average; None where prompts take all its time."""
    profile, lengths = kind.profile, traffic.lengths
    reuse, blocks = cached(kind, traffic.hits, lengths.batch_tokens(peak_of(batch)) if traffic.hits else 0)
    new = lengths.mean_prompt * (1 - reuse.share)
    prompt = min(traffic.chunk, ceil(new))
    before = lengths.mean_prompt * reuse.share + 0.5 * max(0.0, new - prompt)
    context = batch * traffic.mean_context
    plain = profile.step_s(0, 0, max(1.0, batch), context)
    mixed = max(plain, profile.step_s(prompt, before, batch, context))
    prompt_s = mixed * new / prompt + reuse.read_s_per_token * lengths.mean_prompt
    rate = batch / (lengths.mean_output * plain + batch * prompt_s * (1 - plain / mixed))
    load = rate * prompt_s
    if load >= MOST_LOAD:
        return None
    return Running(batch, rate, load, 1.0 / ((1 - load) / plain + load / mixed), reuse, blocks)
