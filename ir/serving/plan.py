"""A serving plan: traffic, engine kinds, the pools chosen among their candidates, and the policies it assumes."""

from __future__ import annotations

from dataclasses import dataclass, field

from treadle.ir.errors import InvalidValue
from treadle.ir.serving.pools import Engine, Pools, PoolsPlan, Role, Shape
from treadle.ir.serving.profile import Profile
from treadle.ir.serving.reuse import HitCurve, TierShare
from treadle.ir.serving.traffic import Lengths
from treadle.ir.serving.tree import Tree
from treadle.ir.workload import ServiceLevel


@dataclass(frozen=True, slots=True)
class KindOfEngine:
    """A parallel shape on a GPU type: what its candidates were made from.

    `link_bytes_per_s` is the network rate of one of its GPUs; `prefill_share` splits each GPU between the phases (0:
    they take turns). Drafts are part of the profile.
    """

    gpu: str
    shape: Shape
    gpus: int
    kv_tokens: int
    profile: Profile
    link_bytes_per_s: float = 0.0
    prefill_share: float = 0.0
    tiers: tuple[TierShare, ...] = ()
    """Memories behind its own that keep prefixes."""

    @property
    def name(self) -> str:
        """Short name: `tp4`, `tp8-ep8`, `tp2-draft3`, `tp1-split0.5`, `tp1-dram`."""
        parts = [f"tp{self.shape.tensor}"]
        if self.shape.pipeline > 1:
            parts.append(f"pp{self.shape.pipeline}")
        if self.shape.expert > 1:
            parts.append(f"ep{self.shape.expert}")
        if self.profile.draft_tokens:
            parts.append(f"draft{self.profile.draft_tokens}")
        if self.prefill_share:
            parts.append(f"split{self.prefill_share:g}")
        parts += [tier.name for tier in self.tiers]
        return "-".join(parts)

    def makes(self, engine: Engine) -> bool:
        """Whether a candidate is of this kind."""
        mine = (self.gpu, self.shape, self.profile.draft_tokens, self.prefill_share)
        behind = tuple(tier.blocks for tier in self.tiers)
        return mine == (engine.gpu, engine.shape, engine.draft_tokens, engine.prefill_share) and (
            behind == engine.cache_blocks[1:]
        )


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests that some engines take together: positions of their classes, lengths, and the tightest levels."""

    name: str
    classes: tuple[int, ...]
    lengths: Lengths
    levels: tuple[ServiceLevel, ...]
    hits: HitCurve | None = None
    """What caches of different sizes find of its prompts; None: prefixes are not reused."""


@dataclass(frozen=True, slots=True)
class Policies:
    """Runtime policies that the plan assumes, by the replay's names; margins on latency limits and on engine load."""

    router: str = "least-loaded"
    admission: str = "prompt-fits"
    batching: str = "chunked"
    ttft_margin: float = 1.0
    tpot_margin: float = 1.0
    load_margin: float = 1.0
    keep_s: float | None = None
    """Seconds after which a cached prefix that nobody asked for is dropped; None: by recency alone."""
    handover: str = "push"
    """Who moves a prompt's cache from prefill to decode engines."""
    sharing: str = "fixed"
    """How phases that run side by side divide their GPUs."""

    def __post_init__(self) -> None:
        if self.keep_s is not None and not self.keep_s > 0:
            raise InvalidValue(message=f"cached prefixes are kept for {self.keep_s} s")
        if not all(0 < margin <= 1 for margin in (self.ttft_margin, self.tpot_margin, self.load_margin)):
            raise InvalidValue(
                message=f"margins {self.ttft_margin}, {self.tpot_margin}, {self.load_margin} are not in (0, 1]"
            )


@dataclass(frozen=True, slots=True)
class RatePoint:
    """What a replay at another rate showed: requests/s within all levels, and their share."""

    rate_per_s: float
    goodput_per_s: float
    attainment: float


@dataclass(frozen=True, slots=True)
class ReplayFigures:
    """What the event replay of the plan showed: reported, and re-derived only where the trace is at hand.

    `quantiles_s` are latencies by metric at 0, 5, ... 100 % of the requests; `curve` goes over other rates.
    """

    requests: int
    rate_per_s: float
    attainment: float
    goodput_per_s: float
    preemptions: int
    percentiles_s: dict[str, float]
    met: bool
    quantiles_s: dict[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    curve: tuple[RatePoint, ...] = ()
    reused_share: float = 0.0
    """Share of prompt tokens found in caches."""


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A point of the Pareto front: no pools within `price` sustain more than `bound_per_s`; proven by the tree.

    Without a tree the bound is the rate itself, by the recursion.
    """

    price: float
    rate_per_s: float
    pools: Pools
    tree: Tree | None = None
    bound_per_s: float = 0.0

    @property
    def gap(self) -> float:
        """Relative distance of rate and bound; 0 where the rate is proven to be the highest."""
        return max(0.0, self.bound_per_s / self.rate_per_s - 1) if self.rate_per_s else 0.0


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """The body of a plan of kind `serving`."""

    model: str
    served_name: str
    times: str
    kv_bytes_per_token: float
    link_bytes_per_s: float
    lengths: Lengths
    levels: tuple[ServiceLevel, ...]
    kinds: tuple[KindOfEngine, ...]
    pools: PoolsPlan
    policies: Policies = Policies()
    replay: ReplayFigures | None = None
    roles: tuple[Role, ...] = tuple(Role)
    streams: tuple[Stream, ...] = ()
    """Where requests are classed by length: the classes, and every run of neighbouring ones. Empty: all as one."""
    front: tuple[FrontPoint, ...] = ()
    hits: HitCurve | None = None

    @property
    def all_streams(self) -> tuple[Stream, ...]:
        """The streams; one of everything where requests are not classed."""
        return self.streams or (Stream("all", (), self.lengths, self.levels, self.hits),)

    @property
    def class_streams(self) -> tuple[Stream, ...]:
        """The stream of each class alone, in order."""
        return tuple(one for one in self.all_streams if len(one.classes) <= 1)

    def kind_of(self, engine: Engine) -> KindOfEngine:
        """Return the kind of a candidate; raises KeyError."""
        for kind in self.kinds:
            if kind.makes(engine):
                return kind
        raise KeyError(engine.name)
