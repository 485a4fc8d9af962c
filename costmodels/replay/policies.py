"""Runtime policies of the replay: small classes, by the name that a plan assumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from treadle.costmodels.replay.engine import EngineState, Job


class Admission(Protocol):
    """Decides whether the first waiting request may join an engine's batch."""

    def admits(self, engine: EngineState, job: Job) -> bool:
        """Whether `job` may be admitted now."""
        ...


class Router(Protocol):
    """Chooses an engine for a request."""

    def choose(self, engines: Sequence[EngineState], job: Job) -> int:
        """Return the position of the engine."""
        ...


@dataclass(frozen=True, slots=True)
class PromptFits:
    """Admit while the prompt fits into the cache; decoding may run out and preempt (vLLM's default)."""

    watermark: float = 0.01

    def admits(self, engine: EngineState, job: Job) -> bool:
        """Whether the prompt fits beside what is held, with a small reserve."""
        free = engine.kv_tokens - engine.used
        return job.length + 1 <= free - self.watermark * engine.kv_tokens or engine.used == 0


@dataclass(frozen=True, slots=True)
class FullLength:
    """Admit only when the whole sequence fits beside the final lengths of all others: never preempts."""

    def admits(self, engine: EngineState, job: Job) -> bool:
        """Whether prompt and output fit with what the running ones will still need."""
        coming = sum(finish - engine.steps for finish, _, _ in engine.running)
        coming += sum(other.output for other in engine.prefilling)
        return engine.used + coming + job.length + 1 + job.output <= engine.kv_tokens or engine.used == 0


@dataclass(frozen=True, slots=True)
class PastFuture:
    """Admit by the peak of future memory: sequences that end early free their place for those that stay.

    With remaining outputs sorted from long to short, memory peaks at one of the moments when a sequence ends: what the
    ones that still run hold now, and what each adds until then (Past-Future scheduler, ASPLOS 2025); known lengths
    stand for its predicted distribution.
    """

    def admits(self, engine: EngineState, job: Job) -> bool:
        """Whether the peak of future memory stays within the cache."""
        remaining = [(finish - engine.steps, entry.length + entry.output) for finish, _, entry in engine.running]
        remaining += [(one.output, one.length + one.output) for one in engine.prefilling]
        remaining.append((job.output, job.length + job.output))
        remaining.sort(reverse=True)
        held, peak = 0, 0
        for count, (left, final) in enumerate(remaining, 1):
            held += final - left
            peak = max(peak, held + count * left)
        return peak + len(remaining) <= engine.kv_tokens or engine.used == 0


@dataclass(slots=True)
class RoundRobin:
    """One engine after the other."""

    turn: int = -1

    def choose(self, engines: Sequence[EngineState], job: Job) -> int:
        """Return the next engine."""
        self.turn = (self.turn + 1) % len(engines)
        return self.turn


@dataclass(frozen=True, slots=True)
class LeastLoaded:
    """The engine with the fewest tokens outstanding."""

    def choose(self, engines: Sequence[EngineState], job: Job) -> int:
        """Return the least loaded engine."""
        if len(engines) == 1:
            return 0
        loads = [engine.load / engine.room for engine in engines]
        return loads.index(min(loads))


@dataclass(slots=True)
class PowerOfTwo:
    """The less loaded of two engines drawn at random (seeded)."""

    random: Random = field(default_factory=lambda: Random(0))

    def choose(self, engines: Sequence[EngineState], job: Job) -> int:
        """Return the less loaded of two."""
        one, other = self.random.randrange(len(engines)), self.random.randrange(len(engines))
        return one if engines[one].load <= engines[other].load else other


@dataclass(frozen=True, slots=True)
class PrefixAffinity:
    """The engine that holds the longest prefix, unless it has `slack` times the least load; then the least loaded."""

    slack: float = 2.0

    def choose(self, engines: Sequence[EngineState], job: Job) -> int:
        """Return the engine with the best match among those not overloaded."""
        least = min(engine.load for engine in engines)
        best, chosen = -1, 0
        for position, engine in enumerate(engines):
            if engine.load > self.slack * least + job.length:
                continue
            hit = engine.prefix.held(job.blocks) if engine.prefix is not None else 0
            if hit > best or (hit == best and engine.load < engines[chosen].load):
                best, chosen = hit, position
        return chosen


ADMISSIONS: dict[str, type[Admission]] = {
    "prompt-fits": PromptFits,
    "full-length": FullLength,
    "past-future": PastFuture,
}
"""Admission policies by name."""

ROUTERS: dict[str, type[Router]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "power-of-two": PowerOfTwo,
    "prefix-affinity": PrefixAffinity,
}
"""Routers by name."""
