"""Engine pools: candidates, request classes, GPUs, and what makes a choice of engines legal.

A candidate engine (role, GPU type, parallel shape, batch) serves a request of class `c` in `seconds[c]` of its time.
Prefill engines hand their requests to decode engines of the same `pool`; aggregated engines do both phases. The rates
a pool sustains are discounted by an efficiency per role, for imbalance between the phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import lru_cache

from treadle.ir.errors import InvalidValue


class Role(Enum):
    """What an engine does."""

    AGGREGATED = "aggregated"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Shape:
    """Parallel degrees of one engine."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1
    expert_tensor: int = 1


@dataclass(frozen=True, slots=True)
class Engine:
    """One candidate: what it is, what it sustains, and the latencies and memory that made it a candidate.

    `seconds` has one entry per class: engine time of one request. `kv_tokens` is what its KV memory holds,
    `kv_tokens_needed` what its batch needs at P99 lengths (both 0 when unknown, as for a foreign table).
    """

    name: str
    role: Role
    gpu: str
    gpus: int
    shape: Shape
    batch: int
    seconds: tuple[float, ...]
    pool: str = ""
    chunk_tokens: int = 0
    ttft_s: float = 0.0
    tpot_s: float = 0.0
    kv_tokens: int = 0
    kv_tokens_needed: int = 0
    serves: tuple[int, ...] = ()
    """Positions of the classes it takes; empty: all."""
    draft_tokens: int = 0
    prefill_share: float = 0.0
    """Share of each GPU's multiprocessors that runs prefill beside decode; 0: the phases take turns."""
    cache_blocks: tuple[int, ...] = ()
    """Prompt blocks that it keeps for reuse: in GPU memory, then in each tier it uses; empty: no reuse."""
    hit_share: float = 0.0
    """Share of prompt tokens that it is expected to find there."""

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.batch < 1:
            raise InvalidValue(message=f"engine `{self.name}` has {self.gpus} GPUs and the batch {self.batch}")
        if not self.seconds or any(not 0 < time < float("inf") for time in self.seconds):
            raise InvalidValue(message=f"engine `{self.name}` has request times {self.seconds}")
        if any(not 0 <= one < len(self.seconds) for one in self.serves):
            raise InvalidValue(message=f"engine `{self.name}` serves the classes {self.serves} of {len(self.seconds)}")

    def takes(self, position: int) -> bool:
        """Whether it serves the class at a position."""
        return not self.serves or position in self.serves


@dataclass(frozen=True, slots=True)
class RequestClass:
    """Requests of similar lengths: their share of all requests, and the lengths planned for."""

    name: str
    share: float
    prompt_tokens: int
    output_tokens: int
    prompt_up_to: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InvalidValue(message=f"class `{self.name}` has the share {self.share}")


@dataclass(frozen=True, slots=True)
class GpuPool:
    """GPUs of one type: GPUs per node for every node, cost per GPU and hour, watts per GPU.

    `product` is the node label that names the type in the cluster; empty where nothing has to tell types apart.
    """

    gpu: str
    nodes: tuple[int, ...]
    cost_per_hour: float = 1.0
    watts: float = 0.0
    product: str = ""

    @property
    def total(self) -> int:
        """All GPUs of the type."""
        return sum(self.nodes)


class Objective(Enum):
    """What the plan is best at."""

    MOST_REQUESTS = "most-goodput"
    FEWEST_GPUS = "fewest-gpus"
    LEAST_COST = "least-cost"
    LEAST_POWER = "least-power"


@dataclass(frozen=True, slots=True)
class PoolsProblem:
    """Candidates, classes, GPUs, goal; `rate_per_s` is required by every goal but the first.

    `efficiency` discounts prefill, decode and aggregated engines. `within_nodes` keeps engines inside nodes.
    `natural_mix`: an engine that serves several classes takes them in their natural proportion, the one its latencies
    were estimated for. `budget` bounds the price of all engines, counted as the goal `budget_in` does (0: no bound).
    """

    engines: tuple[Engine, ...]
    classes: tuple[RequestClass, ...]
    gpus: tuple[GpuPool, ...]
    objective: Objective = Objective.MOST_REQUESTS
    rate_per_s: float = 0.0
    efficiency: tuple[float, float, float] = (0.90, 0.92, 1.0)
    within_nodes: bool = True
    natural_mix: bool = False
    budget: float = 0.0
    budget_in: Objective = Objective.FEWEST_GPUS

    def __post_init__(self) -> None:
        known = {pool.gpu for pool in self.gpus}
        for engine in self.engines:
            if len(engine.seconds) != len(self.classes):
                raise InvalidValue(message=f"engine `{engine.name}` has {len(engine.seconds)} request times")
            if self.natural_mix and len(set(engine.seconds)) > 1:
                raise InvalidValue(message=f"engine `{engine.name}` takes a mix and has times by class")
            if engine.gpu not in known:
                raise InvalidValue(message=f"engine `{engine.name}` runs on `{engine.gpu}`, of which there are no GPUs")
        if len({engine.name for engine in self.engines}) != len(self.engines):
            raise InvalidValue(message="two engines have the same name")
        if self.objective is not Objective.MOST_REQUESTS and not self.rate_per_s > 0:
            raise InvalidValue(message=f"the goal {self.objective.value} needs a rate")
        if not all(0 < factor <= 1 for factor in self.efficiency):
            raise InvalidValue(message=f"efficiencies {self.efficiency} are not between 0 and 1")

    def discount(self, role: Role) -> Fraction:
        """Return the efficiency of a role, exactly."""
        order = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
        return Fraction(str(self.efficiency[order.index(role)]))

    def part(self, engine: Engine, position: int) -> Fraction:
        """Return the share of a class among the requests that an engine takes in natural proportion."""
        return _parts(self.classes, engine.serves)[position]

    def price(self, engine: Engine, goal: Objective | None = None) -> Fraction:
        """Return what one engine adds to the objective that is minimised, or to another goal."""
        pool = next(pool for pool in self.gpus if pool.gpu == engine.gpu)
        return self.price_per_gpu(pool, goal or self.objective) * engine.gpus

    @staticmethod
    def price_per_gpu(pool: GpuPool, goal: Objective) -> Fraction:
        """Return what one GPU of a type adds to a goal that is minimised."""
        per_gpu = {
            Objective.FEWEST_GPUS: Fraction(1),
            Objective.MOST_REQUESTS: Fraction(1),
            Objective.LEAST_COST: Fraction(str(pool.cost_per_hour)),
            Objective.LEAST_POWER: Fraction(str(pool.watts)),
        }
        return per_gpu[goal]


@lru_cache(maxsize=256)
def _parts(classes: tuple[RequestClass, ...], serves: tuple[int, ...]) -> tuple[Fraction, ...]:
    """Return the share of each class among the requests of the classes served (empty: of all)."""
    taken = serves or tuple(range(len(classes)))
    shares = [Fraction(f"{one.share:.12g}") if index in taken else Fraction(0) for index, one in enumerate(classes)]
    return tuple(share / sum(shares) for share in shares)


@dataclass(frozen=True, slots=True)
class Pools:
    """The decision: engines per candidate, and requests per second of each class sent to each candidate."""

    counts: tuple[int, ...]
    routing_per_s: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class PoolsPlan:
    """The problem and the decision."""

    problem: PoolsProblem
    pools: Pools

    @property
    def gpus_used(self) -> int:
        """GPUs of all engines."""
        return sum(e.gpus * n for e, n in zip(self.problem.engines, self.pools.counts, strict=True))

    @property
    def price(self) -> Fraction:
        """What the engines cost in the objective's unit."""
        pairs = zip(self.problem.engines, self.pools.counts, strict=True)
        return sum((self.problem.price(engine) * count for engine, count in pairs), Fraction(0))

    @property
    def rate_per_s(self) -> Fraction:
        """Requests per second that the routing serves: what leaves decode and aggregated engines."""
        total = Fraction(0)
        for engine, rates in zip(self.problem.engines, self.pools.routing_per_s, strict=True):
            if engine.role is not Role.PREFILL:
                total += sum((Fraction(rate) for rate in rates if rate), Fraction(0))
        return total
