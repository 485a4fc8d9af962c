"""What every pipeline rank runs, in order: 1F1B, interleaved 1F1B, and the zero-bubble schedules.

1F1B: arXiv 2006.09503. Interleaved: arXiv 2104.04473, section 2.2. Zero bubble (arXiv 2401.10241) takes weight
gradients (W) out of the backward (B). ZB-H1 is 1F1B's order of forwards and backwards where rank r's W lags r
microbatches behind, so that every rank has as many microbatches in flight as the first. ZB-V (arXiv 2405.15362) gives a
rank two chunks along a V; its order is the one of equal times for F, B and W.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Pipeline

BACKWARD, FORWARD, WEIGHT = 0, 1, 2
Entry = tuple[int, int, int]
"""(BACKWARD, FORWARD or WEIGHT; chunk; microbatch)."""


def schedule_of(rank: int, degrees: Degrees, microbatches: int) -> tuple[Entry, ...]:
    """Return what a rank runs, in order."""
    if degrees.schedule is Pipeline.ZERO_BUBBLE:
        return zero_bubble(rank, degrees.pipeline, microbatches)
    if degrees.schedule is Pipeline.ZERO_BUBBLE_V:
        return zero_bubble_v(rank, degrees.pipeline, microbatches)
    return order_of(rank, degrees.pipeline, degrees.virtual, microbatches)


@lru_cache(maxsize=512)
def order_of(rank: int, ranks: int, chunks: int, microbatches: int) -> tuple[Entry, ...]:
    """Return a rank's order of 1F1B, or of interleaved 1F1B with several chunks."""
    total = microbatches * chunks
    warm = ranks - rank - 1 if chunks == 1 else 2 * (ranks - rank - 1) + (chunks - 1) * ranks
    warm = min(warm, total)
    entries = [_entry(True, number, ranks, chunks) for number in range(warm)]
    for number in range(total - warm):
        entries.append(_entry(True, warm + number, ranks, chunks))
        entries.append(_entry(False, number, ranks, chunks))
    entries.extend(_entry(False, number, ranks, chunks) for number in range(total - warm, total))
    return tuple(entries)


def _entry(forward: bool, number: int, ranks: int, chunks: int) -> Entry:
    """Return the number-th forward or backward: groups of `ranks` microbatches pass chunk after chunk."""
    if chunks == 1:
        return forward, 0, number
    inside = number % (ranks * chunks)
    chunk = inside // ranks
    microbatch = number // (ranks * chunks) * ranks + inside % ranks
    return forward, chunk if forward else chunks - 1 - chunk, microbatch


@lru_cache(maxsize=512)
def zero_bubble(rank: int, ranks: int, microbatches: int) -> tuple[Entry, ...]:
    """Return a rank's order of ZB-H1: after each backward, the weight gradients of `rank` microbatches before."""
    entries: list[Entry] = []
    for kind, chunk, microbatch in order_of(rank, ranks, 1, microbatches):
        entries.append((kind, chunk, microbatch))
        if kind == BACKWARD and microbatch >= rank:
            entries.append((WEIGHT, chunk, microbatch - rank))
    first = max(0, microbatches - rank)
    entries.extend((WEIGHT, 0, microbatch) for microbatch in range(first, microbatches))
    return tuple(entries)


class _Counting:
    """A rank's list of ZB-V while it is made: every kind of entry counts its microbatches up."""

    def __init__(self, microbatches: int) -> None:
        self.microbatches = microbatches
        self.entries: list[Entry] = []
        self.done = {(kind, chunk): 0 for kind in (BACKWARD, FORWARD, WEIGHT) for chunk in (0, 1)}

    def run(self, kind: int, chunk: int) -> None:
        """Add the next microbatch of a kind and chunk, while there are any."""
        number = self.done[kind, chunk]
        if number < self.microbatches:
            self.entries.append((kind, chunk, number))
            self.done[kind, chunk] = number + 1

    def back(self, chunk: int) -> None:
        """Add a backward and its weight gradients."""
        self.run(BACKWARD, chunk)
        self.run(WEIGHT, chunk)


@lru_cache(maxsize=512)
def zero_bubble_v(rank: int, ranks: int, microbatches: int) -> tuple[Entry, ...]:
    """Return a rank's order of ZB-V; at least twice as many microbatches as ranks.

    The first chunk fills the way down the V, both alternate on the way up, then each round is a forward and a backward
    of both chunks. In the end the first `rank` rounds of backwards put their weight gradients off.
    """
    made = _Counting(microbatches)
    for _ in range(2 * (ranks - rank) - 1):
        made.run(FORWARD, 0)
    for _ in range(rank):
        made.run(FORWARD, 1)
        made.run(FORWARD, 0)
    for _ in range(ranks - rank):
        made.run(FORWARD, 1)
        made.back(1)
    while made.done[FORWARD, 1] < microbatches:
        made.run(FORWARD, 0)
        made.back(0)
        made.run(FORWARD, 1)
        made.back(1)
    for _ in range(rank):
        made.run(BACKWARD, 0)
        made.run(BACKWARD, 1)
    for _ in range(ranks - rank):
        made.run(BACKWARD, 0)
        made.run(WEIGHT, 0)
    for chunk in (1, 0):
        for _ in range(microbatches):
            made.run(BACKWARD, chunk)
            made.run(WEIGHT, chunk)
    return tuple(made.entries)


def settled(degrees: Degrees, microbatches: int) -> int:
    """Return how many microbatches show all that a schedule holds: its order repeats after every group."""
    return min(microbatches, 4 * degrees.pipeline)


Counts = NDArray[np.float64]


@lru_cache(maxsize=8192)
def holdings(rank: int, ranks: int, chunks: int, schedule: Pipeline, microbatches: int) -> Counts:
    """Return the sets of activations a rank holds at once before it lets some go, along its order.

    One row per set; for each chunk the microbatches between forward and backward, then for each chunk those between
    backward and weight gradients.
    """
    degrees = Degrees(1, 1, 1, ranks, 1, chunks, schedule=schedule)
    split = schedule.splits_backward
    held = [0] * (2 * chunks)
    seen: dict[tuple[int, ...], None] = {}
    grown = False
    for kind, chunk, _ in schedule_of(rank, degrees, microbatches):
        grows = kind == FORWARD or (kind == BACKWARD and split)
        if grown and not grows:
            seen[tuple(held)] = None
        grown = grows
        held[chunk] += {FORWARD: 1, BACKWARD: -1, WEIGHT: 0}[kind]
        held[chunks + chunk] += {FORWARD: 0, BACKWARD: int(split), WEIGHT: -1}[kind]
    sets = tuple(seen)
    if chunks == 1:
        sets = tuple(item for item in sets if not any(_covers(other, item) for other in sets if other != item))
    return np.array(sets, dtype=np.float64)


def _covers(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one set needs at least as much as another: what is kept after a backward is never less than before."""
    return one[1] >= other[1] and sum(one) >= sum(other)
