"""How fast a kernel runs on a share of the SMs beside another one: curves as data, and a stated worst case without.

A share is what the compute-bound kernel beside it gives up (NanoFlow, arXiv 2408.12757, section 4.1), so the speed of a
compute-bound kernel is its share; memory- and network-bound kernels reach more than that.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise

from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Basis

COMPUTE, MEMORY_BOUND, NETWORK = "compute", "memory", "network"
CLASSES = (COMPUTE, MEMORY_BOUND, NETWORK)


@dataclass(frozen=True, slots=True)
class Curve:
    """Speed relative to running alone, by share of the SMs: (share, speed) in a straight line between."""

    points: tuple[tuple[float, float], ...]
    basis: Basis
    source: str

    def __post_init__(self) -> None:
        shares, speeds = [share for share, _ in self.points], [speed for _, speed in self.points]
        rising = all(a < b for a, b in pairwise(shares)) and all(a <= b for a, b in pairwise(speeds))
        if len(shares) < 2 or not rising or (shares[0], shares[-1]) != (0, 1) or not 0 <= speeds[0] <= speeds[-1] <= 1:
            raise InvalidValue(message=f"a curve of interference goes from share 0 to 1 and never falls: {self.points}")

    def speed(self, share: float) -> float:
        """Return the speed at a share in 0 to 1."""
        for (low, slow), (high, fast) in pairwise(self.points):
            if share <= high:
                return slow + (fast - slow) * (share - low) / (high - low)
        return self.points[-1][1]


WORST = Curve(((0, 0), (1, 1)), Basis.ASSUMED, "worst case: two kernels share the SMs and gain nothing from it")
"""Of a pair that nobody measured."""


def curve(machine_id: str, kind: str) -> Curve:
    """Return the curve of a class of kernels on a machine; `WORST` where there is none (compute: by definition)."""
    return _curves().get((machine_id, kind), WORST)


def unknown_pairs(machine_id: str) -> tuple[str, ...]:
    """Return the classes that stand at the worst case beside a compute-bound kernel for want of a curve."""
    return tuple(kind for kind in CLASSES[1:] if (machine_id, kind) not in _curves())


@cache
def _curves() -> dict[tuple[str, str], Curve]:
    text = files("treadle.costmodels").joinpath("data/interference/kernels.toml").read_text(encoding="utf-8")
    return {
        (machine, kind): Curve(tuple((a, b) for a, b in entry["points"]), Basis(entry["basis"]), entry["source"])
        for machine, kinds in tomllib.loads(text).items()
        for kind, entry in kinds.items()
    }
