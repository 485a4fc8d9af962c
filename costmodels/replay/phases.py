"""What happens between prefill and decode: who moves a prompt's cache, and how phases on the same GPUs share them."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isinf
from typing import TYPE_CHECKING, Protocol

from treadle.ir.serving.profile import Profile

if TYPE_CHECKING:
    from treadle.costmodels.replay.engine import EngineState


@dataclass(frozen=True, slots=True)
class Handover:
    """How the cache of a prompt gets from a prefill engine to a decode engine."""

    pulls: bool
    """Whether it stays on the prefill engine until the decode engine has room and fetches it."""


HANDOVERS = {"push": Handover(False), "distserve": Handover(True)}
"""Ways to hand over by name: sent at once (Splitwise, Mooncake), or fetched by the decode engine, so that a burst of
prompts waits in the memory of prefill engines (DistServe, OSDI 2024)."""


class Sharing(Protocol):
    """Gives each phase its step times where two phases run side by side on the same GPUs."""

    def profile(self, engine: EngineState) -> Profile:
        """Return the profile for the next step of one of the two."""
        ...


@dataclass(slots=True)
class Pair:
    """Two phases on the same GPUs, their profile on all multiprocessors, and the planned share of prefill."""

    prefill: EngineState
    decode: EngineState
    whole: Profile
    share: float
    profiles: dict[float, Profile] = field(default_factory=dict[float, Profile])

    def on_share(self, share: float) -> Profile:
        """Return the profile on a share of the multiprocessors."""
        if share not in self.profiles:
            self.profiles[share] = self.whole.on_share(share) if share < 1 else self.whole
        return self.profiles[share]


@dataclass(slots=True)
class FixedShares:
    """The planned shares, whatever runs."""

    pair: Pair

    def profile(self, engine: EngineState) -> Profile:
        """Return the profile on the phase's own share."""
        return self.pair.on_share(self.pair.share if engine is self.pair.prefill else 1 - self.pair.share)


SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Shares of prefill that are tried, largest first."""


@dataclass(slots=True)
class SemiPd:
    """Prefill gets what the limit of decode steps leaves; a phase that is alone gets all (semi-PD, arXiv 2504.19867).

    Without a limit on decode steps the planned shares count while both phases run.
    """

    pair: Pair
    slack: float = 0.9
    """Share of the limit that a decode step may take: the batch grows until the next choice."""

    def profile(self, engine: EngineState) -> Profile:
        """Return the profile on the share that the state of both phases gives."""
        pair = self.pair
        other = pair.decode if engine is pair.prefill else pair.prefill
        if other.idle and not other.queue and not other.batch:
            return pair.on_share(1.0)
        share = self.share()
        return pair.on_share(share if engine is pair.prefill else round(1 - share, 9))

    def share(self) -> float:
        """Return the largest share of prefill with which a decode step stays within its limit."""
        decode = self.pair.decode
        if isinf(decode.step_limit_s):
            return self.pair.share
        for share in SHARES:
            step = self.pair.on_share(round(1 - share, 9)).step_s(0, 0, decode.batch, decode.context)
            if step <= self.slack * decode.step_limit_s:
                return share
        return SHARES[-1]


SHARINGS: dict[str, type[FixedShares] | type[SemiPd]] = {"fixed": FixedShares, "semi-pd": SemiPd}
"""Ways to share GPUs between phases by name."""
