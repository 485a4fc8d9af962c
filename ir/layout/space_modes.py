"""What may be done with each buffer of a step while it is not used: the modes of its gaps.

A gap lies between two uses; that of a kept buffer after its last use goes on to the first use of the next step. Modes
are offered by rule, the same for the solver and the checker: a bound is relative to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import accumulate

from treadle.ir.layout.memory_spaces import SpacesProblem, StepBuffer


class Way(Enum):
    """How the main space is freed in a gap."""

    COPY = "copy"
    """Out to a space after the use before, back before the next use."""
    RERUN = "rerun"
    """Dropped after the use before, made again at a section by running its operator once more."""


@dataclass(frozen=True, slots=True)
class GapMode:
    """One way through a gap, other than staying.

    Copy: to `space`, done by the end of section `out_until`; back from the begin of `in_from`. Rerun: at `in_from`.
    """

    way: Way
    space: int
    out_until: int
    in_from: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Sections between two uses, ends excluded; `wraps`: from the last use over the end of the step to the first."""

    buffer: int
    before: int
    after: int
    modes: tuple[GapMode, ...]
    wraps: bool = False


WINDOWS_PERCENT = (0, 25, 100, 300, 900)
"""Lengths of copy windows that are offered, in hundredths of the copy's own time: longer ones stall less, free less."""

CHAIN = 6
"""How many operators in a row may be run again for one buffer."""


@dataclass(frozen=True)
class Offered:
    """All choices of a problem: gaps with modes, homes on chip, and sections at which dead buffers may be made again.

    `homes` are (buffer, space) pairs: the whole life of a buffer in a space other than the main one. `returns` are
    (buffer, section) pairs after the buffer's last use: it is made again there, for what is made from it, and dropped.
    """

    problem: SpacesProblem
    gaps: tuple[Gap, ...]
    homes: tuple[tuple[int, int], ...]
    returns: tuple[tuple[int, int], ...]

    @cached_property
    def gaps_of(self) -> dict[int, tuple[int, ...]]:
        """Positions of the gaps of each buffer that has any."""
        found: dict[int, list[int]] = {}
        for position, gap in enumerate(self.gaps):
            found.setdefault(gap.buffer, []).append(position)
        return {buffer: tuple(positions) for buffer, positions in found.items()}


def offered(problem: SpacesProblem) -> Offered:
    """Return every choice of the problem."""
    sections, returns = _return_sections(problem)
    clock = [0, *accumulate(problem.base_ns)]
    gaps: list[Gap] = []
    for position, buffer in enumerate(problem.buffers):
        for before, after, wraps in _spans(buffer, len(problem.sections)):
            modes: list[GapMode] = []
            if buffer.size_bytes >= problem.smallest_bytes:
                modes += _copies(problem, position, before, after, wraps, clock)
            at = sections.get((position, before), ())
            modes += [GapMode(Way.RERUN, 0, before, section) for section in at]
            if modes:
                gaps.append(Gap(position, before, after, tuple(modes), wraps))
    homes = tuple(
        (position, space)
        for position, buffer in enumerate(problem.buffers)
        for space, each in enumerate(problem.spaces)
        if space and each.direct_bytes_per_s is not None and not buffer.kept
        if each.capacity_bytes is None or buffer.size_bytes <= each.capacity_bytes
    )
    return Offered(problem, tuple(gaps), homes, tuple(returns))


def _spans(buffer: StepBuffer, end: int) -> list[tuple[int, int, bool]]:
    """Return (use before, use after, wraps) of the gaps with a section between."""
    pairs = zip(buffer.uses, buffer.uses[1:], strict=False)
    spans = [(before, after, False) for before, after in pairs if after - before > 1]
    first, last = buffer.uses[0], buffer.uses[-1]
    if buffer.kept and first + (end - 1 - last) > 0:
        spans.append((last, first, True))
    return spans


def _copies(
    problem: SpacesProblem, position: int, before: int, after: int, wraps: bool, clock: list[int]
) -> list[GapMode]:
    modes: list[GapMode] = []
    for space, each in enumerate(problem.spaces):
        if each.out_bytes_per_s is None or space == 0:
            continue
        if each.capacity_bytes is not None and problem.buffers[position].size_bytes > each.capacity_bytes:
            continue
        out_ns, in_ns = problem.copy_ns(position, space, False), problem.copy_ns(position, space, True)
        for percent in WINDOWS_PERCENT:
            out_until = _first_after(clock, before + 1, out_ns * percent // 100)
            in_from = _last_before(clock, after, max(1, in_ns * percent // 100))
            if wraps:
                out_until, in_from = min(out_until, len(problem.sections) - 1), max(in_from, 0)
                fits = before < out_until and in_from < after
            else:
                fits = in_from - out_until > 1
            if fits:
                modes.append(GapMode(Way.COPY, space, out_until, in_from))
    return sorted(set(modes), key=lambda mode: (mode.space, mode.out_until, mode.in_from))


def _first_after(clock: list[int], begin: int, duration: int) -> int:
    """Return the first section at whose end `duration` has passed since the begin of `begin`."""
    low, high = begin, len(clock) - 1
    while low < high:
        middle = (low + high) // 2
        if clock[middle + 1] - clock[begin] >= duration:
            high = middle
        else:
            low = middle + 1
    return low


def _last_before(clock: list[int], end: int, duration: int) -> int:
    """Return the last section from whose begin at least `duration` passes until the begin of `end`; -1 if none."""
    low, high = -1, end
    while low < high:
        middle = (low + high + 1) // 2
        if clock[end] - clock[middle] >= duration:
            low = middle
        else:
            high = middle - 1
    return low


def _return_sections(
    problem: SpacesProblem,
) -> tuple[dict[tuple[int, int], tuple[int, ...]], list[tuple[int, int]]]:
    """Return the sections at which gaps may end by a rerun, by (buffer, use before), and returns after the last use."""
    gaps: dict[tuple[int, int], list[int]] = {}
    returns: list[tuple[int, int]] = []
    for position, section in sorted(_available(problem, _wanted(problem))):
        uses = problem.buffers[position].uses
        if section > uses[-1]:
            returns.append((position, section))
        else:
            gaps.setdefault((position, max(use for use in uses if use < section)), []).append(section)
    return {key: tuple(found) for key, found in gaps.items()}, returns


def _wanted(problem: SpacesProblem) -> set[tuple[int, int]]:
    """Return (buffer, section) pairs at which making a buffer again may help: next uses, and those of what it makes."""
    ahead = [
        (position, after, CHAIN)
        for position, buffer in enumerate(problem.buffers)
        if repeatable(problem, position) and buffer.size_bytes >= problem.smallest_bytes
        for _, after, _ in _spans(buffer, len(problem.sections))
    ]
    seen: dict[tuple[int, int], int] = {}
    while ahead:
        position, section, depth = ahead.pop()
        if seen.get((position, section), 0) >= depth or not fresh(problem, position, section):
            continue
        seen[position, section] = depth
        if depth > 1:
            ahead += [
                (source, section, depth - 1)
                for source in problem.buffers[position].rerun_from
                if repeatable(problem, source) and section not in problem.buffers[source].uses
            ]
    return set(seen)


def _available(problem: SpacesProblem, wanted: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Drop what needs a buffer that is dead by then and cannot be made again either, until nothing changes."""
    while True:
        lost = {
            (position, section)
            for position, section in wanted
            for source in problem.buffers[position].rerun_from
            if section > problem.buffers[source].uses[-1]
            and not problem.buffers[source].kept
            and (source, section) not in wanted
        }
        if not lost:
            return wanted
        wanted = wanted - lost


def repeatable(problem: SpacesProblem, position: int) -> bool:
    """Whether a buffer can be made again at all: its operator repeats, and nothing writes to it later."""
    buffer = problem.buffers[position]
    return buffer.rerun_ns is not None and set(buffer.written) <= {buffer.uses[0]}


def fresh(problem: SpacesProblem, position: int, section: int) -> bool:
    """Whether what a buffer is made from is, at `section`, what it was when the buffer was made."""
    made = problem.buffers[position].uses[0]
    return all(
        not any(made < write <= section for write in problem.buffers[source].written)
        for source in problem.buffers[position].rerun_from
    )


def inside(gap: Gap, section: int) -> bool:
    """Whether a section lies strictly within a gap."""
    if gap.wraps:
        return section > gap.before or section < gap.after
    return gap.before < section < gap.after


def resident(gap: Gap, mode: GapMode, section: int) -> bool:
    """Whether the buffer's content is in the main space in a section of the gap."""
    if mode.way is Way.RERUN:
        return section >= mode.in_from
    return gap.before < section <= mode.out_until
