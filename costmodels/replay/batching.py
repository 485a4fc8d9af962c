"""How a step of an engine is filled with prompt tokens: small classes, by the name that a plan assumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from treadle.costmodels.replay.engine import EngineState, Job


class Batching(Protocol):
    """Orders waiting requests, and fills steps."""

    def next(self, queue: Sequence[Job], now: float) -> int:
        """Return the position of the waiting request that is admitted next."""
        ...

    def fill(self, engine: EngineState) -> float:
        """Choose the prompt tokens of the next step; returns its time in seconds, 0 for none."""
        ...


class FirstComeFirstServed:
    """The order of arrival."""

    def next(self, queue: Sequence[Job], now: float) -> int:
        """Return the first."""
        return 0


@dataclass(frozen=True, slots=True)
class Chunked(FirstComeFirstServed):
    """Prompt chunks beside the decoding batch up to the engine's token budget (vLLM, SGLang, TensorRT-LLM today)."""

    def fill(self, engine: EngineState) -> float:
        """Take prompts in order until the budget is full."""
        budget = engine.chunk_tokens - (engine.decoding_tokens if engine.decodes else 0)
        return take_tokens(engine, budget)


@dataclass(frozen=True, slots=True)
class Sarathi(FirstComeFirstServed):
    """The largest chunk with which the step stays within the time per token, in tiles (Sarathi-Serve, OSDI 2024)."""

    tile_tokens: int = 128
    slack: float = 0.9
    """Share of the limit that a step may take: prompts alternate with plain steps."""

    def fill(self, engine: EngineState) -> float:
        """Take as many whole tiles as fit the engine's step limit, at least one."""
        low, high = 1, max(1, engine.chunk_tokens // self.tile_tokens)
        context = engine.prefilling[0].cached
        while low < high:
            middle = (low + high + 1) // 2
            step = engine.profile.step_s(middle * self.tile_tokens, context, engine.batch, engine.context)
            low, high = (middle, high) if step <= self.slack * engine.step_limit_s else (low, middle - 1)
        return take_tokens(engine, low * self.tile_tokens)


@dataclass(frozen=True, slots=True)
class SplitFuse(FirstComeFirstServed):
    """Steps of one size: long prompts are cut, short ones composed, to fill it exactly (DeepSpeed-FastGen).

    A step that waiting prompts do not fill runs anyway; the size stays that of the budget, so nothing is padded.
    """

    step_tokens: int = 512

    def fill(self, engine: EngineState) -> float:
        """Take what is left of the step beside the decoding batch."""
        return take_tokens(engine, min(self.step_tokens, engine.chunk_tokens) - engine.decoding_tokens)


@dataclass(frozen=True, slots=True)
class PrefillFirst(FirstComeFirstServed):
    """Whole prompts in steps of their own while decoding waits (Orca, early vLLM)."""

    def fill(self, engine: EngineState) -> float:
        """Take prompts up to the budget; the decoding batch stands still."""
        if not take_tokens(engine, max(engine.chunk_tokens, engine.prefilling[0].prompt)):
            return 0.0
        engine.stalled = True
        tokens = sum(take for _, take in engine.taken)
        pairs = sum(take * (job.cached + 0.5 * take) for job, take in engine.taken)
        return engine.profile.step_s(tokens, pairs / tokens - 0.5 * tokens, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Layered(FirstComeFirstServed):
    """A whole prompt passes a group of layers per step, so that weights are read once per prompt (arXiv 2510.08055).

    The layers are cut into `ceil(tokens / group_tokens)` groups; a step is a decoding step plus one group's share.
    """

    group_tokens: int = 512
    largest_tokens: int = 16384

    def fill(self, engine: EngineState) -> float:
        """Go on with the prompts under way, or start those that wait, up to the largest set."""
        if not engine.groups_left:
            take_tokens(engine, max(self.largest_tokens, engine.prefilling[0].prompt))
            tokens = sum(take for _, take in engine.taken)
            pairs = sum(take * (job.cached + 0.5 * take) for job, take in engine.taken)
            whole = engine.profile.step_s(tokens, pairs / tokens - 0.5 * tokens, 0, 0.0)
            engine.groups_left = max(1, ceil(tokens / self.group_tokens))
            engine.group_s = whole / engine.groups_left
            engine.layered = tuple(engine.taken)
        engine.taken.clear()
        engine.groups_left -= 1
        if not engine.groups_left:
            engine.taken.extend(engine.layered)
        decode_s = engine.profile.step_s(0, 0, engine.batch, engine.context) if engine.batch else 0.0
        return engine.group_s + decode_s


@dataclass(frozen=True, slots=True)
class LengthAware(Chunked):
    """Short prompts before long ones, until a long one has waited for its patience (LAPS); chunks as usual."""

    short_tokens: int = 2048
    patience_s: float = 0.5

    def next(self, queue: Sequence[Job], now: float) -> int:
        """Return the first short prompt, or the first of all when it is short or has waited too long."""
        first = queue[0]
        if first.prompt <= self.short_tokens or now - first.arrived > self.patience_s:
            return 0
        return next((index for index, job in enumerate(queue) if job.prompt <= self.short_tokens), 0)


def take_tokens(engine: EngineState, budget: int) -> float:
    """Take prompt tokens in order of admission up to a budget; returns the time of the step, 0 for none."""
    tokens, pairs, load_s = 0, 0.0, 0.0
    for job in engine.prefilling:
        take = min(job.prompt, budget - tokens)
        if take <= 0:
            break
        engine.taken.append((job, take))
        pairs += take * (job.cached + 0.5 * take)
        tokens += take
        load_s += job.load_s
        job.load_s = 0.0
    if not tokens:
        return 0.0
    before = pairs / tokens - 0.5 * tokens
    return load_s + engine.profile.step_s(tokens, before, engine.batch, engine.context)


ORDERINGS = frozenset(("chunked", "length-aware"))
"""Policies that prefill engines, which take whole prompts, can follow too: they only say which prompt is next."""

BATCHINGS: dict[str, type[Batching]] = {
    "chunked": Chunked,
    "sarathi": Sarathi,
    "splitfuse": SplitFuse,
    "prefill-first": PrefillFirst,
    "layered": Layered,
    "length-aware": LengthAware,
}
"""Batching policies by name."""
