"""All longest paths of a loop, kept closed while differences are raised, with the decisions that each rests on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Paths:
    """All longest paths, and the decisions (bits, by level of the search) that each of them rests on."""

    least: Matrix
    why: Matrix
    given: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """Turns that are decided over a range of intervals, where paths need not say so, and the decisions."""

    def decided(self, turn: int, value: int, why: int) -> Paths:
        """Return the same paths with a turn decided."""
        return replace(self, given={**self.given, turn: (value, why)})

    def raised(self, source: int, target: int, weight: int, why: int) -> Paths | int:
        """Return longest paths with one more difference, closed again; the decisions that contradict it, if any do."""
        least, known = self.least, self.why
        if least[target, source] + weight > 0:
            return int(known[target, source]) | why
        if weight <= least[source, target]:
            return self
        longer = least[:, source, None] + weight + least[None, target, :]
        better = longer > least
        reasons = known[:, source, None] | known[None, target, :] | why
        return Paths(np.where(better, longer, least), np.where(better, reasons, known), self.given)


def raise_to(least: Matrix, why: Matrix, longer: Matrix, reasons: Matrix | int) -> None:
    """Raise paths in place to longer ones, with what those rest on."""
    better = longer > least
    np.copyto(why, reasons, where=better)
    np.copyto(least, longer, where=better)
