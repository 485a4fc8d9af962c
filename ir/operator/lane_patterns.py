"""Heaviest sets of operators that lanes may run at the same time, without listing all sets.

Each lane runs at most one operator. Lanes are taken in one after the other; of what the lanes so far may run, only sets
matter that no other beats: no less weight, no more of any stream. A few hundred stay of millions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treadle.ir.operator.lanes import Row
from treadle.ir.operator.loop import Mode, Stream

Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sets:
    """Sets of operators with modes: `shares_milli` by stream, `weight`, and by lane the entry that runs (0: idle)."""

    shares_milli: Whole
    weight: Whole
    entries: Whole

    def only(self, chosen: NDArray[np.intp]) -> Sets:
        """Return some of the sets, in the order given."""
        return Sets(self.shares_milli[chosen], self.weight[chosen], self.entries[chosen])


def lane_entries(row: Row) -> list[tuple[str, Mode]]:
    """Return what a lane may run, as the entries 1, 2, ... of `Sets` count it."""
    return [(operator.name, mode) for operator in row for mode in operator.modes]


def heaviest(
    rows: tuple[Row, ...], streams: tuple[Stream, ...], weights: dict[tuple[str, str], int], count: int
) -> Sets:
    """Return the heaviest sets that fit the streams, heaviest first, at most `count`.

    The first is the heaviest of all; the others are good, with a different last lane or different sets before it.

    Args:
        rows: the lanes.
        streams: capacities.
        weights: whole, not negative, by operator and mode; all lanes' together below 2**62.
        count: how many.
    """
    capacity = np.array([stream.capacity_milli for stream in streams], np.int64)
    best = Sets(np.zeros((1, len(streams)), np.int64), np.zeros(1, np.int64), np.zeros((1, 0), np.int64))
    for number, row in enumerate(rows, 1):
        both = _beside(best, _lane(row, streams, weights), capacity)
        order = np.argsort(-both.weight, kind="stable")
        best = both.only(order[:count]) if number == len(rows) else _unbeaten(both.only(order))
    return best


def _lane(row: Row, streams: tuple[Stream, ...], weights: dict[tuple[str, str], int]) -> Sets:
    """What one lane may run; idle first."""
    entries = lane_entries(row)
    shares = [[mode.shares_milli.get(stream.name, 0) for stream in streams] for _, mode in entries]
    return Sets(
        np.array([[0] * len(streams), *shares], np.int64),
        np.array([0, *(weights[name, mode.name] for name, mode in entries)], np.int64),
        np.arange(len(entries) + 1, dtype=np.int64)[:, None],
    )


def _beside(some: Sets, lane: Sets, capacity: Whole) -> Sets:
    """All pairs that fit."""
    shares = some.shares_milli[:, None, :] + lane.shares_milli[None, :, :]
    first, second = np.nonzero((shares <= capacity).all(axis=2))
    return Sets(
        shares[first, second],
        some.weight[first] + lane.weight[second],
        np.concatenate((some.entries[first], lane.entries[second]), axis=1),
    )


def _unbeaten(ordered: Sets) -> Sets:
    """Sets, heaviest first, without those of which an earlier one holds no more of any stream."""
    kept: list[int] = []
    left = np.arange(len(ordered.weight))
    while len(left):
        kept.append(int(left[0]))
        more = (ordered.shares_milli[left] < ordered.shares_milli[kept[-1]]).any(axis=1)
        left = left[more]
    return ordered.only(np.array(kept, np.intp))
