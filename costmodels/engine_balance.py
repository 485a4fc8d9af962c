"""The state of an engine that interleaves prompts and decoding at a request rate: batch, load, mean step, by Little.

The batch is the rate times the output tokens times the mean step, and the mean step grows with the batch and with the
share of steps that carry prompt chunks. The fixed point is found by secants, where the step is nearly affine in the
batch, and by halves of the way elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from treadle.ir.serving.plan import KindOfEngine
from treadle.ir.serving.reuse import Found, HitCurve, found_in
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import BLOCK_TOKENS

MOST_BATCH = 2048.0
"""Sequences of an engine beyond which it counts as overloaded."""
MOST_LOAD = 0.98
"""Share of its time that prompts may take."""
_CLOSE = 1e-3
_ROUNDS = 30


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes to an engine: lengths, their mean context (expensive to compute), what caches find, tokens a step."""

    lengths: Lengths
    mean_context: float
    hits: HitCurve | None
    chunk: int


@dataclass(frozen=True, slots=True)
class Running:
    """An engine at a rate: decoding sequences on average, share of time for prompts, mean step, what caches find."""

    batch: float
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


def running_at(kind: KindOfEngine, traffic: Traffic, rate_per_s: float) -> Running | None:
    """Return the state at a request rate; None where the engine cannot keep up."""
    now = _with_batch(kind, traffic, rate_per_s, 1.0)
    if now is None:
        return None
    old, batch = 1.0, _wanted(traffic, rate_per_s, now)
    old_excess = batch - old
    if batch == old:
        return now
    for _ in range(_ROUNDS):
        now = _with_batch(kind, traffic, rate_per_s, batch)
        if now is None:
            return None
        excess = _wanted(traffic, rate_per_s, now) - batch
        if abs(excess) <= _CLOSE * batch:
            return now
        slope = (excess - old_excess) / (batch - old)
        # Where more sequences touch more experts, the wanted batch may grow as fast as the batch for a while.
        step = -excess / slope if slope < 0 else 0.5 * excess
        if batch + excess > MOST_BATCH:
            return None
        old, old_excess, batch = batch, excess, batch + min(max(step, -0.5 * batch), batch)
    return now


def _wanted(traffic: Traffic, rate_per_s: float, now: Running) -> float:
    return rate_per_s * traffic.lengths.mean_output * now.step_s


def _with_batch(kind: KindOfEngine, traffic: Traffic, rate_per_s: float, batch: float) -> Running | None:
    """Return the state if the batch were given."""
    profile, lengths = kind.profile, traffic.lengths
    reuse, blocks = cached(kind, traffic.hits, lengths.batch_tokens(peak_of(batch)) if traffic.hits else 0)
    new = lengths.mean_prompt * (1 - reuse.share)
    prompt = min(traffic.chunk, ceil(new))
    before = lengths.mean_prompt * reuse.share + 0.5 * max(0.0, new - prompt)
    context = batch * traffic.mean_context
    plain = profile.step_s(0, 0, max(1.0, batch), context)
    mixed = profile.step_s(prompt, before, batch, context)
    load = rate_per_s * (mixed * new / prompt + reuse.read_s_per_token * lengths.mean_prompt)
    if load >= MOST_LOAD:
        return None
    return Running(batch, load, 1.0 / ((1 - load) / plain + load / mixed), reuse, blocks)
