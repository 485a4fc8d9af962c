"""A serving plan: traffic, engine kinds, the pools chosen among their candidates, and the policies it assumes."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.errors import InvalidValue
from treadle.ir.serving.pools import PoolsPlan, Shape
from treadle.ir.serving.profile import Profile
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import ServiceLevel


@dataclass(frozen=True, slots=True)
class KindOfEngine:
    """A parallel shape on a GPU type: what its candidates were made from."""

    gpu: str
    shape: Shape
    gpus: int
    kv_tokens: int
    profile: Profile


@dataclass(frozen=True, slots=True)
class Policies:
    """Runtime policies that the plan assumes, by the replay's names; margins on latency limits and on engine load."""

    router: str = "least-loaded"
    admission: str = "prompt-fits"
    ttft_margin: float = 1.0
    tpot_margin: float = 1.0
    load_margin: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 < margin <= 1 for margin in (self.ttft_margin, self.tpot_margin, self.load_margin)):
            raise InvalidValue(
                message=f"margins {self.ttft_margin}, {self.tpot_margin}, {self.load_margin} are not in (0, 1]"
            )


@dataclass(frozen=True, slots=True)
class ReplayFigures:
    """What the event replay of the plan showed: reported, and re-derived only where the trace is at hand."""

    requests: int
    rate_per_s: float
    attainment: float
    goodput_per_s: float
    preemptions: int
    percentiles_s: dict[str, float]
    met: bool


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
