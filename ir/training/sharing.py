"""Over how many ranks ZeRO shares weights, gradients and optimizer state."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.training.plan import Degrees
from treadle.ir.training.ranks import shapes
from treadle.ir.training.spec import Sharding


@dataclass(frozen=True, slots=True)
class Shares:
    """Ranks that share one copy of each kind of state."""

    weights: int
    gradients: int
    optimizer: int


def shares(degrees: Degrees, domain: int) -> tuple[Shares, Shares]:
    """Return the shares of dense parameters and of routed experts, in domains of `domain` GPUs."""
    here = shapes(degrees, domain)
    ranks = degrees.data * degrees.context
    copies = max(1, ranks * degrees.tensor // (degrees.expert * degrees.expert_tensor))
    return _shares(degrees, ranks, here.replicas), _shares(degrees, copies, here.copies)


def _shares(degrees: Degrees, ranks: int, inside: int) -> Shares:
    whole = inside if degrees.sharding is Sharding.NODE else ranks
    weights = ranks if degrees.sharding is Sharding.GLOBAL else inside
    return Shares(
        weights if degrees.zero == 3 else 1,
        whole if degrees.zero >= 2 else 1,
        whole if degrees.zero >= 1 else 1,
    )
