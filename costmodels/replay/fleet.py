"""Replays a trace on a fleet: arrivals, routing, steps, transfers between prefill and decode engines."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.replay.batching import BATCHINGS, ORDERINGS
from treadle.costmodels.replay.engine import EngineState, Job
from treadle.costmodels.replay.phases import HANDOVERS, SHARINGS, Pair
from treadle.costmodels.replay.policies import ADMISSIONS, ROUTERS, Router
from treadle.costmodels.replay.prefixes import PrefixCache, PrefixSettings
from treadle.ir.errors import InvalidValue, UnknownName
from treadle.ir.serving.profile import Profile
from treadle.ir.workload import Metric, Request, ServiceLevel

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """`replicas` engines of one kind. `role` is aggregated, prefill or decode.

    `rates_per_s` are the shares of each class that go here (empty: what the router decides, of everything).
    `prefill_share` runs prefill beside decode on that share of each GPU: two engines over one cache.
    """

    role: str
    profile: Profile
    kv_tokens: int
    max_batch: int
    chunk_tokens: int = 8192
    replicas: int = 1
    prefix: PrefixSettings | None = None
    batching: str = "chunked"
    step_limit_s: float = inf
    rates_per_s: tuple[float, ...] = ()
    prefill_share: float = 0.0
    stages: int = 1
    """Pipeline stages of a prefill engine: a prompt enters when the first stage is free, and passes all of them."""

    def __post_init__(self) -> None:
        if self.role not in ("aggregated", "prefill", "decode"):
            raise InvalidValue(message=f"an engine has the role `{self.role}`")
        if min(self.kv_tokens, self.max_batch, self.chunk_tokens, self.replicas, self.stages) < 1:
            raise InvalidValue(message="an engine needs cache, batch, chunk, replicas and stages of at least 1")
        if self.stages > 1 and self.role != "prefill":
            raise InvalidValue(message="stages are replayed for prefill engines; a decode pipeline is several engines")
        if self.batching not in BATCHINGS:
            raise UnknownName(kind="batching", name=self.batching, expected=f"one of {', '.join(BATCHINGS)}")


@dataclass(frozen=True, slots=True)
class Fleet:
    """Engines, the policies in front of them, and the link between prefill and decode engines.

    `class_ends` are the longest prompts of each class but the last; setups then have a rate for each class.
    """

    setups: tuple[EngineSetup, ...]
    router: str = "least-loaded"
    admission: str = "prompt-fits"
    kv_bytes_per_token: float = 0.0
    link_bytes_per_s: float = inf
    aggregated_share: float = 1.0
    """Share of requests sent to aggregated engines where the fleet has prefill engines too (one class)."""
    class_ends: tuple[int, ...] = ()
    handover: str = "push"
    sharing: str = "fixed"

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("router", self.router, ROUTERS),
            ("admission", self.admission, ADMISSIONS),
            ("handover", self.handover, HANDOVERS),
            ("sharing", self.sharing, SHARINGS),
        ):
            if name not in known:
                raise UnknownName(kind=kind, name=name, expected=f"one of {', '.join(known)}")
        roles = {setup.role for setup in self.setups}
        if not self.setups or ("prefill" in roles) != ("decode" in roles):
            raise InvalidValue(message="a fleet needs engines, and prefill and decode engines only together")
        if self.class_ends and any(len(setup.rates_per_s) != len(self.class_ends) + 1 for setup in self.setups):
            raise InvalidValue(message="every engine of a fleet with classes needs a rate for each class")


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

    def of(self, chosen: NDArray[np.bool_]) -> Outcome:
        """Return the outcome of some requests alone."""
        prompts = self.prompts[chosen] if len(self.prompts) else self.prompts
        times = (self.arrival_s[chosen], self.first_s[chosen], self.last_s[chosen])
        return Outcome(*times, self.outputs[chosen], prompts=prompts)

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
    return FleetRun(requests, fleet, speed).run()


class FleetRun:
    """State of one replay: engines by role, the event queue, and the results."""

    def __init__(self, requests: Sequence[Request], fleet: Fleet, speed: float) -> None:
        self.requests, self.fleet = requests, fleet
        self.engines: list[EngineState] = []
        self.partner: dict[int, int] = {}
        self.further: dict[int, int] = {}
        self.waiting: dict[int, deque[Job]] = {}
        self.coming: Counter[int] = Counter()
        self.pulls = HANDOVERS[fleet.handover].pulls
        self.entry: list[Group] = []
        self.decode: list[Group] = []
        for setup in fleet.setups:
            self._build(setup)
        self._refuse_oversized()
        self.events: list[tuple[float, int, int, int, Job | None]] = []
        self.order = count()
        size = len(requests)
        self.arrival = np.array([request.arrival_s for request in requests]) / speed
        self.first, self.last = [0.0] * size, [0.0] * size
        self.classes = len(fleet.class_ends) + 1
        self.choices = {
            (stage, position): Choice.of(groups, position, fleet)
            for stage, groups in (("entry", self.entry), ("decode", self.decode))
            for position in range(self.classes)
        }

    def _build(self, setup: EngineSetup) -> None:
        """Add the engines of a setup, a pair for each where phases share its GPUs."""
        members: list[int] = []
        for _ in range(setup.replicas):
            members.append(len(self.engines))
            if setup.prefill_share:
                self.engines.append(self._engine(setup, setup.profile.on_share(setup.prefill_share), decodes=False))
                self.partner[members[-1]] = len(self.engines)
                self.engines.append(self._engine(setup, setup.profile.on_share(1 - setup.prefill_share), decodes=True))
                self._share(self.engines[-2], self.engines[-1], setup)
            else:
                self.engines.append(self._engine(setup, setup.profile.faster(setup.stages), setup.role != "prefill"))
                self.further[members[-1]] = setup.stages - 1
                self.engines[-1].holds = self.pulls and setup.role == "prefill"
                if self.pulls and setup.role == "decode":
                    self.waiting[members[-1]] = deque()
        target = self.decode if setup.role == "decode" else self.entry
        target.append(Group(setup, members, [self.engines[index] for index in members]))

    def _share(self, prefill: EngineState, decode: EngineState, setup: EngineSetup) -> None:
        prefill.beside = decode
        if self.fleet.sharing != "fixed":
            pair = Pair(prefill, decode, setup.profile, setup.prefill_share)
            prefill.sharing = decode.sharing = SHARINGS[self.fleet.sharing](pair)

    def _engine(self, setup: EngineSetup, profile: Profile, decodes: bool) -> EngineState:
        whole = setup.role != "aggregated" or bool(setup.prefill_share)
        return EngineState(
            profile,
            setup.kv_tokens,
            setup.max_batch if decodes or not setup.prefill_share else 64,
            setup.chunk_tokens,
            ADMISSIONS[self.fleet.admission](),
            decodes,
            PrefixCache(setup.prefix) if setup.prefix is not None and setup.role != "decode" else None,
            BATCHINGS[setup.batching if not whole or setup.batching in ORDERINGS else "chunked"](),
            setup.step_limit_s,
        )

    def _refuse_oversized(self) -> None:
        """Every request must fit into the smallest cache it can meet."""
        ends = (*self.fleet.class_ends, inf)
        for setup in self.fleet.setups:
            rates = setup.rates_per_s or (1.0,) * len(ends)
            taken = [
                request.prompt_tokens + request.output_tokens + 1
                for request in self.requests
                if rates[bisect_left(ends, request.prompt_tokens)] > 0
            ]
            if setup.role != "prefill" and taken and max(taken) > setup.kv_tokens:
                message = f"a request of {max(taken)} tokens exceeds the cache of {setup.kv_tokens} tokens of an engine"
                raise InvalidValue(message=message)

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
                self._receive(index, job, now)
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
        self._offer(self.choices["entry", self._class(request.prompt_tokens)].engine(job), job, now)

    def _class(self, prompt_tokens: int) -> int:
        return bisect_left(self.fleet.class_ends, prompt_tokens) if self.classes > 1 else 0

    def _receive(self, index: int, job: Job, now: float) -> None:
        """Take in a request whose cache has come over; where it was fetched, its prefill engine gets room."""
        if job.source >= 0:
            source, engine = self.engines[job.source], self.engines[index]
            engine.used -= job.length + 1
            engine.outstanding -= job.load
            source.used -= job.length
            self.coming[index] -= 1
            if source.idle:
                self._begin(job.source, now)
        self._offer(index, job, now)

    def _fetch(self, index: int, now: float) -> None:
        """Let a decode engine fetch the prompts that wait for it, while it has room for them."""
        engine, queue = self.engines[index], self.waiting[index]
        while queue and self._sequences(index) < engine.max_batch:
            if not engine.admission.admits(engine, queue[0]):
                return
            job = queue.popleft()
            engine.used += job.length + 1
            self.coming[index] += 1
            transfer = (job.length - 1) * self.fleet.kv_bytes_per_token / self.fleet.link_bytes_per_s
            heappush(self.events, (now + transfer, next(self.order), index, 0, job))

    def _sequences(self, index: int) -> int:
        """Return the sequences that a decode engine has or is about to get."""
        engine = self.engines[index]
        return engine.batch + len(engine.queue) + len(engine.prefilling) + self.coming[index]

    def _offer(self, index: int, job: Job, now: float) -> None:
        engine = self.engines[index]
        if engine.sharing is not None and index in self.partner:
            self._cut(self.partner[index], now)
        if engine.arrive(job, now):
            heappush(self.events, (engine.end, next(self.order), index, engine.version, None))
        elif engine.idle:
            self._begin(index, now)

    def _cut(self, index: int, now: float) -> None:
        """End a run of decode steps: the phase beside it wants its share."""
        engine = self.engines[index]
        if engine.cut(now):
            heappush(self.events, (engine.end, next(self.order), index, engine.version, None))

    def _begin(self, index: int, now: float) -> None:
        engine = self.engines[index]
        if engine.begin(now):
            engine.version += 1
            heappush(self.events, (engine.end, next(self.order), index, engine.version, None))

    def _end_step(self, index: int, now: float) -> None:
        engine = self.engines[index]
        prefilled, complete = engine.finish()
        if prefilled:
            through = now + self.further.get(index, 0) * engine.step
            for job in prefilled:
                if not self.first[job.index]:
                    self.first[job.index] = through
                if not engine.decodes:
                    self._hand_over(index, job, through)
        for job in complete:
            self.last[job.index] = now
        if index in self.waiting:
            self._fetch(index, now)
        self._begin(index, now)

    def _hand_over(self, source: int, job: Job, now: float) -> None:
        """Pass a prefilled request on to decode: its partner on the same GPUs, or an engine over the network."""
        if job.output <= 1:
            self.last[job.index] = now
            self.engines[source].used -= job.length + 1 if self.engines[source].holds else 0
            return
        moved = Job(job.index, 1, job.output - 1)
        moved.length, moved.cached, moved.load = job.length + 1, job.length, job.load
        if source in self.partner:
            self._offer(self.partner[source], moved, now)
            return
        chosen = self.choices["decode", self._class(self.requests[job.index].prompt_tokens)].engine(job)
        if self.pulls:
            moved.source = source
            self.engines[chosen].outstanding += moved.load
            self.waiting[chosen].append(moved)
            self._fetch(chosen, now)
            return
        transfer = job.length * self.fleet.kv_bytes_per_token / self.fleet.link_bytes_per_s
        heappush(self.events, (now + transfer, next(self.order), chosen, 0, moved))


@dataclass(frozen=True, slots=True)
class Group:
    """The engines of a setup: their positions among all, and their states."""

    setup: EngineSetup
    members: list[int]
    states: list[EngineState]


@dataclass(slots=True)
class Choice:
    """Chooses an engine for a request of one class: sets of engines by their shares, then the router inside.

    With one class, all engines of a role are one set; shares decide between aggregated and prefill engines only.
    """

    sets: list[tuple[list[int], list[EngineState]]]
    shares: list[float]
    router: Router
    credit: list[float] = field(default_factory=list[float])

    @classmethod
    def of(cls, groups: Sequence[Group], position: int, fleet: Fleet) -> Choice:
        """Lay out the sets of a class."""
        sets: list[tuple[list[int], list[EngineState]]] = []
        shares: list[float] = []
        if fleet.class_ends:
            for group in groups:
                if group.setup.rates_per_s[position] > 0:
                    sets.append((group.members, group.states))
                    shares.append(group.setup.rates_per_s[position])
        else:
            for role, share in (("aggregated", fleet.aggregated_share), ("prefill", 1 - fleet.aggregated_share)):
                mine = [group for group in groups if group.setup.role == role]
                if mine:
                    sets.append(_joined(mine))
                    shares.append(share)
            if groups and not sets:
                sets, shares = [_joined(groups)], [1.0]
        total = sum(shares) or 1.0
        return cls(sets, [share / total for share in shares], ROUTERS[fleet.router](), [0.0] * len(sets))

    def engine(self, job: Job) -> int:
        """Return the position of the engine that takes the request."""
        chosen = 0
        if len(self.sets) > 1:
            for index, share in enumerate(self.shares):
                self.credit[index] += share
            chosen = max(range(len(self.sets)), key=self.credit.__getitem__)
            self.credit[chosen] -= 1.0
        if not self.sets:
            raise InvalidValue(message=f"no engine takes a prompt of {job.length} tokens")
        members, states = self.sets[chosen]
        return members[self.router.choose(states, job)]


def _joined(groups: Sequence[Group]) -> tuple[list[int], list[EngineState]]:
    members = [index for group in groups for index in group.members]
    return members, [state for group in groups for state in group.states]
