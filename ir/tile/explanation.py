"""Why a loop takes the cycles it takes, and what would change that: data for `treadle explain` and reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Limit(Enum):
    """What holds the initiation interval up."""

    UNIT = "unit"
    RECURRENCE = "recurrence"
    MEMORY = "memory"
    PACKING = "packing"
    """No bound alone: recurrences leave no slots that the units' operations can share at a shorter interval."""
    ISSUE = "issue"
    """Warp groups have no more cycles to issue in."""
    NOTHING = "nothing"
    """The interval is one cycle."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One thing that binds, by name, in a sentence with its figures."""

    limit: Limit
    name: str
    sentence: str


@dataclass(frozen=True, slots=True)
class UnitUse:
    """Use of a unit over one interval: `busy_cycles` of `available_cycles` (interval times instances)."""

    unit: str
    busy_cycles: int
    available_cycles: int

    @property
    def share(self) -> float:
        """Busy share, 0 to 1."""
        return self.busy_cycles / self.available_cycles

    @property
    def slack_cycles(self) -> int:
        """Cycles without use."""
        return self.available_cycles - self.busy_cycles


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Use of a memory: fixed tiles and rings (name, depth, bytes) of its capacity."""

    memory: str
    used_bytes: int
    capacity_bytes: int
    rings: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Alternative:
    """The interval after one change; `proven` when it is known to be the least, None as interval when none exists.

    `bound_cycles` is what it is at least, where that is not proven to be the interval itself.
    """

    change: str
    ii_cycles: int | None
    proven: bool
    was_ii_cycles: int
    detail: str = ""
    """What else is different: groups and registers of the new schedule, or why there is none."""
    bound_cycles: int | None = None

    @property
    def gain(self) -> float:
        """Share of the interval saved (negative when the change costs)."""
        return 0.0 if self.ii_cycles is None else 1 - self.ii_cycles / self.was_ii_cycles


@dataclass(frozen=True, slots=True)
class Explanation:
    """What binds a loop at its interval, how much room the rest has, and what single changes would do."""

    loop: str
    ii_cycles: int
    length_cycles: int
    bindings: tuple[Binding, ...]
    units: tuple[UnitUse, ...]
    memories: tuple[MemoryUse, ...]
    recurrence_ii_cycles: int
    """What the slowest recurrence alone would allow."""
    recurrence: tuple[str, ...]
    """Its operations in order; empty without one."""
    alternatives: tuple[Alternative, ...]
