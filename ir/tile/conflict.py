"""The smallest set of operations that no warp groups run together, whatever the interval is."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.tile.assignments import WalkTooLong, any_left, classes, handoff_room
from treadle.ir.tile.constraints import arcs
from treadle.ir.tile.register_peaks import Reach, least_peak
from treadle.ir.tile.warps import WarpLoop


@dataclass(frozen=True, slots=True)
class Conflict:
    """Operations that fit no groups, the registers they need in one, and the bytes that rings leave for handoffs."""

    operations: tuple[str, ...]
    registers: int
    handoff_bytes: int


def smallest_conflict(warps: WarpLoop, ii: int) -> Conflict | None:
    """Return operations of which none can be left out: without it the others have groups. None where all have some.

    Args:
        warps: the loop.
        ii: an interval so long that a longer one changes nothing.
    """
    left = list(classes(warps))
    if _fit(warps, ii, left):
        return None
    for names in tuple(left):
        fewer = [other for other in left if other != names]
        if fewer and not _fit(warps, ii, fewer):
            left = fewer
    operations = tuple(name for names in left for name in names)
    reach = Reach(warps, list(arcs(warps.loop)), ii)
    together = least_peak(warps, dict.fromkeys(operations, 0), 0, reach, ii)
    return Conflict(operations, together, max(0, handoff_room(warps, reach, ii)))


def _fit(warps: WarpLoop, ii: int, left: list[tuple[str, ...]]) -> bool:
    """Whether a walk leaves some groups to classes; one that is too long refutes nothing."""
    try:
        return any_left(warps, ii, among=frozenset(name for names in left for name in names))
    except WalkTooLong:
        return True
