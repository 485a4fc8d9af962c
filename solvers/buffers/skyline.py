"""Depth-first search for offsets within a height: a skyline over sections, gravity, restarts over orders.

*Sections* are the spans between consecutive starts and ends; a placement is a skyline of heights per section that only
grows. Some solution has every buffer resting on the floor or on another buffer, and it can be built in order of
offset, so at a section of the lowest level either a buffer whose whole range is free at that level starts there, or no
buffer does and the section rises to the next level at which one could. Two inferences prune: a section whose height
plus the sizes still to come exceed the limit is dead, and a section rises to the lowest offset any of its buffers can
still take. Parts of the time axis that no unplaced buffer spans are solved one by one.

The order of offsets and the section inference follow Moffitt, "MiniMalloc: A Lightweight Memory Allocator for
Hardware-Accelerated Machine Learning" (ASPLOS 2023); branching on sections is ours.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.ir.layout.buffers import BuffersProblem

Ints = NDArray[np.int64]
_FAR = np.int64(1 << 60)


@dataclass(frozen=True, slots=True)
class Sections:
    """Buffers over sections: range [first, last) and size per buffer, and who is live where (sections, buffers)."""

    first: Ints
    last: Ints
    sizes: Ints
    width: Ints
    live: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: BuffersProblem) -> Sections:
        """Cut the time axis at every start and end."""
        cuts = np.unique([(buffer.lower, buffer.upper) for buffer in problem.buffers])
        first = np.searchsorted(cuts, [buffer.lower for buffer in problem.buffers]).astype(np.int64)
        last = np.searchsorted(cuts, [buffer.upper for buffer in problem.buffers]).astype(np.int64)
        spans = np.arange(len(cuts) - 1)[:, None]
        return cls(
            first,
            last,
            np.array([buffer.size_bytes for buffer in problem.buffers], dtype=np.int64),
            np.array([buffer.upper - buffer.lower for buffer in problem.buffers], dtype=np.int64),
            (first[None, :] <= spans) & (spans < last[None, :]),
        )


class _Spent(Exception):
    """The node budget of one descent is used up."""


@dataclass(slots=True)
class _Descent:
    """One depth-first search with a fixed preference among buffers and a budget of nodes.

    A `complete` descent always works at a lowest section. The other kind takes sections with a single option first:
    much faster, but what lies below a buffer placed that way is given up, so its failure proves nothing.
    """

    sections: Sections
    limit: int
    preference: NDArray[Any]
    budget: int
    complete: bool = False
    nodes: int = 0
    offsets: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def run(self) -> Ints | None:
        """Return offsets, or None when the whole tree is refuted; raises _Spent."""
        count = len(self.sections.sizes)
        self.offsets = np.zeros(count, np.int64)
        heights = np.zeros(len(self.sections.live), np.int64)
        rest = self.sections.live @ self.sections.sizes
        found = self._visit(heights, np.zeros(count, np.int64), rest, np.arange(count), 0)
        return self.offsets if found else None

    def _visit(self, heights: Ints, lowest: Ints, rest: Ints, open_: NDArray[np.intp], origin: int) -> bool:
        """Place the buffers `open_`, whose lowest offsets are `lowest`, over the window of sections from `origin`."""
        self.nodes += 1
        if self.nodes > self.budget:
            raise _Spent
        if not len(open_):
            return True
        first, last = self.sections.first[open_], self.sections.last[open_]
        parts = _independent(first, last)
        if len(parts) > 1:
            return all(
                self._visit(
                    heights[first[part].min() - origin : last[part].max() - origin],
                    lowest[part],
                    rest[first[part].min() - origin : last[part].max() - origin],
                    open_[part],
                    int(first[part].min()),
                )
                for part in sorted(parts, key=len)
            )
        begin, end = int(first.min()), int(last.max())
        window = slice(begin - origin, end - origin)
        return self._branch(heights[window], lowest, rest[window], open_, begin, end)

    def _branch(self, heights: Ints, lowest: Ints, rest: Ints, open_: NDArray[np.intp], begin: int, end: int) -> bool:
        live = self.sections.live[begin:end][:, open_]
        reach = np.where(live, lowest, _FAR)
        heights = np.maximum(heights, reach.min(axis=1))
        slack = self.limit - heights - rest
        if (slack < 0).any():
            return False
        flat = reach == heights[:, None]
        options = flat.sum(axis=1) + (slack > 0)
        forced = np.zeros_like(options) if self.complete else options > 1
        section = int(np.lexsort((slack, options, heights, forced))[0])
        for position in self._ordered(open_, np.nonzero(flat[section])[0]):
            if self._place(position, heights, lowest, rest, slack, open_, begin):
                return True
        return self._raise(section, live[section], heights, lowest, rest, int(slack[section]), open_, begin)

    def _ordered(self, open_: NDArray[np.intp], positions: NDArray[np.intp]) -> list[int]:
        """Preferred first; of buffers alike in range and size only one is tried."""
        ordered = positions[np.argsort(-self.preference[open_[positions]], kind="stable")]
        alike: set[tuple[int, int, int]] = set()
        kept: list[int] = []
        for position in ordered.tolist():
            buffer = open_[position]
            shape = (
                int(self.sections.first[buffer]),
                int(self.sections.last[buffer]),
                int(self.sections.sizes[buffer]),
            )
            if shape not in alike:
                alike.add(shape)
                kept.append(position)
        return kept

    def _place(
        self,
        position: int,
        heights: Ints,
        lowest: Ints,
        rest: Ints,
        slack: Ints,
        open_: NDArray[np.intp],
        begin: int,
    ) -> bool:
        buffer = open_[position]
        first, last = self.sections.first[buffer], self.sections.last[buffer]
        span = slice(first - begin, last - begin)
        offset, size = lowest[position], self.sections.sizes[buffer]
        if (offset - heights[span] > slack[span]).any():
            return False
        raised, left = heights.copy(), rest.copy()
        raised[span] = offset + size
        left[span] -= size
        others = np.delete(open_, position)
        touched = (self.sections.first[others] < last) & (self.sections.last[others] > first)
        least = np.delete(lowest, position)
        self.offsets[buffer] = offset
        return self._visit(raised, np.where(touched, np.maximum(least, offset + size), least), left, others, begin)

    def _raise(
        self,
        section: int,
        live: NDArray[np.bool_],
        heights: Ints,
        lowest: Ints,
        rest: Ints,
        slack: int,
        open_: NDArray[np.intp],
        begin: int,
    ) -> bool:
        """No buffer starts at the section's level: lift it to where one could rest on something."""
        if slack <= 0:
            return False
        level = heights[section]
        higher = lowest[live & (lowest > level)]
        target = higher.min() if len(higher) else _FAR
        if not live.all():
            target = min(target, level + self.sections.sizes[open_[~live]].min())
        if target - level > slack:
            return False
        raised = heights.copy()
        raised[section] = target
        return self._visit(raised, np.where(live, np.maximum(lowest, target), lowest), rest, open_, begin)


def _independent(first: Ints, last: Ints) -> list[NDArray[np.intp]]:
    """Split buffers into groups whose ranges do not meet."""
    order = np.argsort(first, kind="stable")
    reach = np.maximum.accumulate(last[order])
    cuts = np.nonzero(first[order][1:] >= reach[:-1])[0]
    return np.split(order, cuts + 1)


@dataclass(frozen=True, slots=True)
class Searched:
    """Outcome of the restarts: offsets if found; `refuted` when one descent exhausted its tree; nodes visited."""

    offsets: tuple[int, ...] | None
    refuted: bool
    nodes: int


def search(sections: Sections, limit: int, nodes: int, seed: int = 0) -> Searched:
    """Look for offsets with height at most `limit`.

    Restarts cycle over five preferences (area, lifetime, area over sections, size, sections) with growing
    budgets; after the first cycle each preference is perturbed by seeded log-normal noise. Once a descent that goes by
    forced moves has exhausted its tree, the descents that follow are complete, and may refute the limit.

    Args:
        sections: the buffers.
        limit: largest height allowed, in bytes.
        nodes: total search nodes to spend.
        seed: of the perturbations.
    """
    random = np.random.default_rng(seed)
    count = (sections.last - sections.first).astype(float)
    sizes = sections.sizes.astype(float)
    bases = (sections.width * sizes, sections.width.astype(float), count * sizes, sizes, count)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 4 * len(sizes) + 4 * len(sections.live) + 1000))
    spent, restart, budget, complete = 0, 0, 300.0, False
    while spent < nodes:
        noise = 0.0 if restart < len(bases) and not seed else 0.15 * (1 + restart % 3)
        preference = bases[restart % len(bases)] * np.exp(random.normal(0.0, noise, len(sizes)))
        descent = _Descent(sections, limit, preference, min(int(budget), nodes - spent), complete)
        try:
            found = descent.run()
        except _Spent:
            found = None
        else:
            if found is not None or complete:
                answer = None if found is None else tuple(int(offset) for offset in found)
                return Searched(answer, found is None, spent + descent.nodes)
            complete, budget = True, max(budget, nodes / 4)
        spent += descent.nodes
        restart += 1
        budget *= 1.2 if restart % len(bases) == 0 else 1.0
    return Searched(None, False, spent)
