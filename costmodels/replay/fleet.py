"""Replays a trace on a fleet: arrivals, routing, steps, transfers between prefill and decode engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.replay.engine import EngineState, Job
from treadle.costmodels.replay.policies import ADMISSIONS, ROUTERS
from treadle.ir.errors import InvalidValue, UnknownName
from treadle.ir.serving.profile import Profile
from treadle.ir.workload import Metric, Request, ServiceLevel

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """`replicas` engines of one kind. `role` is aggregated, prefill or decode."""

    role: str
    profile: Profile
    kv_tokens: int
    max_batch: int
    chunk_tokens: int = 8192
    replicas: int = 1
    prefix_blocks: int = 0

    def __post_init__(self) -> None:
        if self.role not in ("aggregated", "prefill", "decode"):
            raise InvalidValue(message=f"an engine has the role `{self.role}`")
        if min(self.kv_tokens, self.max_batch, self.chunk_tokens, self.replicas) < 1:
            raise InvalidValue(message="an engine needs cache, batch, chunk and replicas of at least 1")


@dataclass(frozen=True, slots=True)
class Fleet:
    """Engines, the policies in front of them, and the link between prefill and decode engines."""

    setups: tuple[EngineSetup, ...]
    router: str = "least-loaded"
    admission: str = "prompt-fits"
    kv_bytes_per_token: float = 0.0
    link_bytes_per_s: float = inf
    aggregated_share: float = 1.0
    """Share of requests sent to aggregated engines where the fleet has prefill engines too."""

    def __post_init__(self) -> None:
        for kind, name, known in (("router", self.router, ROUTERS), ("admission", self.admission, ADMISSIONS)):
            if name not in known:
                raise UnknownName(kind=kind, name=name, expected=f"one of {', '.join(known)}")
        roles = {setup.role for setup in self.setups}
        if not self.setups or ("prefill" in roles) != ("decode" in roles):
            raise InvalidValue(message="a fleet needs engines, and prefill and decode engines only together")


@dataclass(frozen=True, eq=False)
class Outcome:
    """Times per request: arrival, first token, last token (seconds); outputs; and counters."""

    arrival_s: Times
    first_s: Times
    last_s: Times
    outputs: NDArray[np.int64]
    preemptions: int = 0
    reused_tokens: int = 0
    prompts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def metric_s(self, metric: Metric) -> Times:
        """Return one latency per request; TPOT is 0 for single-token outputs."""
        if metric is Metric.TTFT:
            return self.first_s - self.arrival_s
        if metric is Metric.E2E:
            return self.last_s - self.arrival_s
        return (self.last_s - self.first_s) / np.maximum(self.outputs - 1, 1)

    def percentile_s(self, metric: Metric, percentile: float) -> float:
        """Return a percentile of a latency."""
        return float(np.percentile(self.metric_s(metric), percentile, method="higher"))

    def attainment(self, levels: Sequence[ServiceLevel]) -> float:
        """Return the share of requests within the limits of all levels."""
        within = np.ones(len(self.arrival_s), dtype=bool)
        for level in levels:
            within &= self.metric_s(level.metric) <= level.limit_s
        return float(within.mean())

    def meets(self, levels: Sequence[ServiceLevel]) -> bool:
        """Whether every level holds at its own percentile."""
        return all(self.percentile_s(level.metric, level.percentile) <= level.limit_s for level in levels)

    def goodput_per_s(self, levels: Sequence[ServiceLevel]) -> float:
        """Return the requests per second that meet all limits, over the span of arrivals."""
        span = float(self.arrival_s[-1] - self.arrival_s[0]) or 1.0
        return self.attainment(levels) * len(self.arrival_s) / span


def replay(requests: Sequence[Request], fleet: Fleet, speed: float = 1.0) -> Outcome:
    """Run a trace through a fleet.

    Args:
        requests: in order of arrival.
        fleet: engines and policies.
        speed: arrivals come this many times faster than in the trace.

    Returns: times per request. Deterministic.

    Raises:
        InvalidValue: a request that no engine's cache can hold.
    """
    return _Replay(requests, fleet, speed).run()


class _Replay:
    """State of one replay: engines by role, the event queue, and the results."""

    def __init__(self, requests: Sequence[Request], fleet: Fleet, speed: float) -> None:
        self.requests, self.fleet, self.speed = requests, fleet, speed
        admission = ADMISSIONS[fleet.admission]()
        self.engines: list[EngineState] = []
        self.roles: dict[str, list[int]] = {"aggregated": [], "prefill": [], "decode": []}
        for setup in fleet.setups:
            for _ in range(setup.replicas):
                self.roles[setup.role].append(len(self.engines))
                self.engines.append(
                    EngineState(
                        setup.profile,
                        setup.kv_tokens,
                        setup.max_batch,
                        setup.chunk_tokens,
                        admission,
                        setup.role != "prefill",
                        setup.prefix_blocks,
                    )
                )
        self.groups = {role: [self.engines[index] for index in members] for role, members in self.roles.items()}
        self.routers = {role: ROUTERS[fleet.router]() for role in self.roles}
        self.events: list[tuple[float, int, int, int, Job | None]] = []
        self.order = count()
        size = len(requests)
        self.arrival = np.array([request.arrival_s for request in requests]) / speed
        self.first, self.last = [0.0] * size, [0.0] * size
        self.credit = 0.0
        self._refuse_oversized()

    def _refuse_oversized(self) -> None:
        """Every request must fit into the smallest cache it can meet."""
        decoding = [engine for engine in self.engines if engine.decodes]
        room = min(engine.kv_tokens for engine in decoding)
        longest = max(self.requests, key=lambda request: request.prompt_tokens + request.output_tokens)
        need = longest.prompt_tokens + longest.output_tokens + 1
        if need > room:
            raise InvalidValue(message=f"a request of {need} tokens exceeds the cache of {room} tokens of an engine")

    def run(self) -> Outcome:
        """Process events in order of time."""
        arrivals = self.arrival.tolist()
        position, total = 0, len(arrivals)
        events = self.events
        while position < total or events:
            if position < total and (not events or arrivals[position] <= events[0][0]):
                self._arrive(position, arrivals[position])
                position += 1
                continue
            now, _, index, version, job = heappop(events)
            if job is not None:
                self._offer(index, job, now)
            elif version == self.engines[index].version:
                self._end_step(index, now)
        return Outcome(
            self.arrival,
            np.array(self.first),
            np.array(self.last),
            np.array([request.output_tokens for request in self.requests]),
            sum(engine.preemptions for engine in self.engines),
            sum(engine.reused_tokens for engine in self.engines),
            np.array([request.prompt_tokens for request in self.requests]),
        )

    def _arrive(self, position: int, now: float) -> None:
        request = self.requests[position]
        job = Job(position, request.prompt_tokens, request.output_tokens, request.block_hashes)
        self._route("aggregated" if self._aggregated() else "prefill", job, now)

    def _aggregated(self) -> bool:
        if not self.roles["prefill"]:
            return True
        if not self.roles["aggregated"]:
            return False
        self.credit += self.fleet.aggregated_share
        if self.credit >= 1.0:
            self.credit -= 1.0
            return True
        return False

    def _route(self, role: str, job: Job, now: float) -> None:
        chosen = self.routers[role].choose(self.groups[role], job)
        self._offer(self.roles[role][chosen], job, now)

    def _offer(self, index: int, job: Job, now: float) -> None:
        engine = self.engines[index]
        if engine.arrive(job, now):
            heappush(self.events, (engine.end, next(self.order), index, engine.version, None))
        elif engine.idle:
            self._begin(index, now)

    def _begin(self, index: int, now: float) -> None:
        engine = self.engines[index]
        if engine.begin(now):
            engine.version += 1
            heappush(self.events, (engine.end, next(self.order), index, engine.version, None))

    def _end_step(self, index: int, now: float) -> None:
        engine = self.engines[index]
        prefilled, complete = engine.finish()
        for job in prefilled:
            if not self.first[job.index]:
                self.first[job.index] = now
            if not engine.decodes:
                self._hand_over(job, now)
        for job in complete:
            self.last[job.index] = now
        self._begin(index, now)

    def _hand_over(self, job: Job, now: float) -> None:
        """Send the cache of a prefilled request to a decode engine; the first token is already made."""
        if job.output <= 1:
            self.last[job.index] = now
            return
        chosen = self.routers["decode"].choose(self.groups["decode"], job)
        transfer = job.length * self.fleet.kv_bytes_per_token / self.fleet.link_bytes_per_s
        moved = Job(job.index, 1, job.output - 1)
        moved.length, moved.cached = job.length + 1, job.length
        heappush(self.events, (now + transfer, next(self.order), self.roles["decode"][chosen], 0, moved))
