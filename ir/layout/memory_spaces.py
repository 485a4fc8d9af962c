"""Buffers of a step over memory spaces: what may be moved out, made again or kept on chip while it is not used.

The step is a sequence of sections (kernels). Operators work in the main space, the first one; a space with
`direct_bytes_per_s` (on-chip memory) can be worked in as well, the others (host, CXL, SSD) are reached by copies that
run beside the kernels. Times are whole nanoseconds. docs/design/memory_spaces.md has the formulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Space:
    """A memory. `capacity_bytes` of None is no limit; spaces with the same `link` share its time in each direction."""

    name: str
    capacity_bytes: int | None
    direct_bytes_per_s: int | None = None
    """Rate of operators that work in it; None: only copies reach it."""
    out_bytes_per_s: int | None = None
    """Rate of copies from the main space; None where no copy is made."""
    in_bytes_per_s: int | None = None
    """Rate of copies to the main space."""
    link: str = ""

    def __post_init__(self) -> None:
        rates = (self.direct_bytes_per_s, self.out_bytes_per_s, self.in_bytes_per_s)
        if any(rate is not None and rate < 1 for rate in (*rates, self.capacity_bytes)):
            raise InvalidValue(message=f"memory space `{self.name}` has a capacity or rate below 1")
        if (self.out_bytes_per_s is None) != (self.in_bytes_per_s is None):
            raise InvalidValue(message=f"space `{self.name}` has copies in one direction only")
        if self.direct_bytes_per_s is None and self.out_bytes_per_s is None:
            raise InvalidValue(message=f"space `{self.name}` is reached neither by operators nor by copies")

    @property
    def link_name(self) -> str:
        """The link its copies use; its own unless stated."""
        return self.link or self.name


@dataclass(frozen=True, slots=True)
class StepSection:
    """One kernel: its time without memory traffic, and bytes it moves that belong to no buffer."""

    name: str
    compute_ns: int
    other_bytes: int = 0

    def __post_init__(self) -> None:
        if self.compute_ns < 0 or self.other_bytes < 0:
            raise InvalidValue(message=f"section `{self.name}` has a negative time or traffic")


@dataclass(frozen=True, slots=True)
class StepBuffer:
    """A storage: made at its first use, unless `kept` (it then persists from step to step), dead after its last.

    `uses` are ascending sections that read or write it, `written` those that write it. `rerun_from` are buffers (by
    position) from which the section of its first use makes it again in `rerun_ns`; None where that cannot be repeated.
    """

    id: str
    size_bytes: int
    uses: tuple[int, ...]
    written: tuple[int, ...] = ()
    kept: bool = False
    rerun_ns: int | None = None
    rerun_from: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.size_bytes < 1:
            raise InvalidValue(message=f"buffer `{self.id}` has the size {self.size_bytes}")
        if not self.uses or any(b <= a for a, b in zip(self.uses, self.uses[1:], strict=False)):
            raise InvalidValue(message=f"the uses of buffer `{self.id}` do not ascend")
        if set(self.written) - set(self.uses):
            raise InvalidValue(message=f"buffer `{self.id}` is written where it is not used")
        if self.rerun_ns is not None and (self.rerun_ns < 1 or self.kept):
            raise InvalidValue(message=f"buffer `{self.id}` cannot be made again: kept, or in no time")


@dataclass(frozen=True)
class SpacesProblem:
    """A step, its buffers, and the spaces (the main one first)."""

    name: str
    spaces: tuple[Space, ...]
    sections: tuple[StepSection, ...]
    buffers: tuple[StepBuffer, ...]
    smallest_bytes: int = 1
    """Smaller buffers stay in the main space."""

    def __post_init__(self) -> None:
        names = [space.name for space in self.spaces]
        if not names or len(set(names)) != len(names) or not self.sections or not self.buffers:
            raise InvalidValue(message=f"step `{self.name}` needs spaces of different names, sections and buffers")
        if self.main.direct_bytes_per_s is None or self.main.capacity_bytes is None:
            raise InvalidValue(message=f"the main space `{self.main.name}` needs a capacity and a direct rate")
        if len({buffer.id for buffer in self.buffers}) != len(self.buffers):
            raise InvalidValue(message="two buffers have the same id")
        for buffer in self.buffers:
            if buffer.uses[0] < 0 or buffer.uses[-1] >= len(self.sections):
                raise InvalidValue(message=f"buffer `{buffer.id}` is used outside the step's sections")
            if any(not 0 <= source < len(self.buffers) for source in buffer.rerun_from):
                raise InvalidValue(message=f"buffer `{buffer.id}` is made again from an unknown buffer")

    @property
    def main(self) -> Space:
        """The space in which operators work."""
        return self.spaces[0]

    @cached_property
    def access_ns(self) -> tuple[tuple[int, ...], ...]:
        """Time to read or write each buffer once, by space (0 where operators cannot work)."""
        rates = [space.direct_bytes_per_s for space in self.spaces]
        return tuple(tuple(_ns(buffer.size_bytes, rate) for rate in rates) for buffer in self.buffers)

    @cached_property
    def other_ns(self) -> tuple[int, ...]:
        """Time in the main space of the traffic of each section that belongs to no buffer."""
        return tuple(_ns(section.other_bytes, self.main.direct_bytes_per_s) for section in self.sections)

    @cached_property
    def used_by(self) -> tuple[tuple[int, ...], ...]:
        """Buffers that each section reads or writes."""
        used: list[list[int]] = [[] for _ in self.sections]
        for position, buffer in enumerate(self.buffers):
            for section in buffer.uses:
                used[section].append(position)
        return tuple(tuple(each) for each in used)

    @cached_property
    def base_ns(self) -> tuple[int, ...]:
        """Time of each section with every buffer in the main space."""
        return tuple(
            max(
                section.compute_ns,
                self.other_ns[at] + sum(self.access_ns[buffer][0] for buffer in self.used_by[at]),
                1,
            )
            for at, section in enumerate(self.sections)
        )

    def copy_ns(self, buffer: int, space: int, inward: bool) -> int:
        """Time that a copy of a buffer takes of the link of a space."""
        rates = self.spaces[space]
        return _ns(self.buffers[buffer].size_bytes, rates.in_bytes_per_s if inward else rates.out_bytes_per_s)


def _ns(moved_bytes: int, bytes_per_s: int | None) -> int:
    return 0 if bytes_per_s is None else -(-moved_bytes * 1_000_000_000 // bytes_per_s)
