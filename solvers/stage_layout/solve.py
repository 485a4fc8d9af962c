"""Minimax stage layouts: the cut of a layer sequence over virtual stages whose busiest rank is least busy, proven.

One chunk per rank: dynamic program on prefix sums, O(p L^2). Several chunks: a sequence of at most two runs of equal
layers (dense before experts), where for a given share-out of the first run the ranks' room for the second is counted;
the least level at which all layers find room is exact, and one below it the count falls short (kind `capacity`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from treadle.ir.certificate import Level, ProofKind, Status
from treadle.ir.errors import InvalidValue, Unmet
from treadle.ir.training.plan import StageLayout

_MOST_FIRST_RUN = 12


class NoStageLayout(Unmet):
    """A sequence that cannot fill the stages, or whose chunked layout is not solved exactly."""

    code = "TRD321"
    template = "no stage layout of {layers} layers over {ranks} ranks x {chunks} chunks: {reason}"
    hint = "use fewer stages"


@dataclass(frozen=True, slots=True)
class StageProblem:
    """Time per layer in order, and what the first and the last virtual stage do besides (embedding, loss)."""

    layer_us: tuple[float, ...]
    ranks: int
    chunks: int = 1
    first_us: float = 0.0
    last_us: float = 0.0

    def __post_init__(self) -> None:
        if self.ranks < 1 or self.chunks < 1 or not self.layer_us or min(self.layer_us) <= 0:
            raise InvalidValue(message="a stage problem needs layers of positive time, ranks and chunks")

    def loads(self, layout: StageLayout) -> list[float]:
        """Return the time of every rank for one microbatch."""
        found = [0.0] * self.ranks
        for slot, (start, end) in enumerate(layout.cuts()):
            found[slot % self.ranks] += math.fsum(self.layer_us[start:end])
        found[0] += self.first_us
        found[-1] += self.last_us
        return found


def solve(problem: StageProblem) -> tuple[StageLayout, Level]:
    """Return a layout of least busiest rank and its certificate level; raises NoStageLayout."""
    slots = problem.ranks * problem.chunks
    if len(problem.layer_us) < slots - 2:
        raise _refused(problem, "stages between the first and the last would be empty")
    layout = _contiguous(problem) if problem.chunks == 1 else _chunked(problem)
    value = max(problem.loads(layout))
    proof = ProofKind.ENUMERATION if problem.chunks == 1 else ProofKind.CAPACITY
    return layout, Level("busiest_rank", "us", value, value, Status.OPTIMAL, proof, {"layers": list(layout.layers)})


def _refused(problem: StageProblem, reason: str) -> NoStageLayout:
    return NoStageLayout(layers=len(problem.layer_us), ranks=problem.ranks, chunks=problem.chunks, reason=reason)


def _contiguous(problem: StageProblem) -> StageLayout:
    size = len(problem.layer_us) + 1
    prefix = np.concatenate([[0.0], np.cumsum(problem.layer_us)])
    between = prefix[None, :] - prefix[:, None]
    span = np.arange(size)[None, :] - np.arange(size)[:, None]
    after = np.full(size, np.inf)
    after[-1] = 0.0
    choices: list[list[int]] = []
    for rank in reversed(range(problem.ranks)):
        ends = rank in (0, problem.ranks - 1)
        extra = (problem.first_us if rank == 0 else 0.0) + (problem.last_us if rank == problem.ranks - 1 else 0.0)
        value = np.maximum(between + extra, after[None, :])
        value[span < (0 if ends else 1)] = np.inf
        choices.append([int(choice) for choice in value.argmin(axis=1)])
        after = value.min(axis=1)
    counts: list[int] = []
    at = 0
    for choice in reversed(choices):
        counts.append(choice[at] - at)
        at = choice[at]
    return StageLayout(tuple(counts))


@dataclass(frozen=True, slots=True)
class _Room:
    """The first run shared out over the first slots: load per rank, and slots that need a layer of the second run."""

    first: tuple[int, ...]
    load_us: tuple[float, ...]
    needed: tuple[int, ...]
    open: tuple[bool, ...]
    """Whether the rank has a slot at or behind the end of the first run."""


def _chunked(problem: StageProblem) -> StageLayout:
    times = [(time, len(list(items))) for time, items in groupby(problem.layer_us)]
    if len(times) > 2 or (len(times) == 2 and times[0][1] > _MOST_FIRST_RUN):
        raise _refused(problem, "several chunks are solved for two runs of equal layers, the first of at most 12")
    lead, (unit, count) = (times[0] if len(times) == 2 else (0.0, 0)), times[-1]
    best: tuple[float, _Room] | None = None
    for room in _rooms(problem, lead[0], lead[1]):
        level = _least_level(room, unit, count)
        if level is not None and (best is None or level < best[0]):
            best = level, room
    if best is None:
        raise _refused(problem, "stages between the first and the last would be empty")
    return _placed(problem, best[1], unit, count, best[0])


def _rooms(problem: StageProblem, time: float, count: int) -> Iterator[_Room]:
    slots = problem.ranks * problem.chunks
    for shares in _shares(count, slots):
        load = [0.0] * problem.ranks
        load[0] += problem.first_us
        load[-1] += problem.last_us
        for slot, share in enumerate(shares):
            load[slot % problem.ranks] += share * time
        needed = [0] * problem.ranks
        for slot in range(max(1, len(shares)), slots - 1):
            needed[slot % problem.ranks] += 1
        start = max(0, len(shares) - 1)
        is_open = tuple(rank + problem.ranks * (problem.chunks - 1) >= start for rank in range(problem.ranks))
        yield _Room(shares, tuple(load), tuple(needed), is_open)


def _shares(count: int, slots: int) -> Iterator[tuple[int, ...]]:
    """Yield how `count` layers fill the first slots: none is empty but perhaps the very first."""

    def rest(left: int, used: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if left == 0:
            yield used
        elif len(used) < slots:
            for share in range(0 if not used else 1, left + 1):
                yield from rest(left - share, (*used, share))

    yield from rest(count, ())


def _least_level(room: _Room, unit: float, count: int) -> float | None:
    """Return the least level at which every needed slot and all layers find room; every rank has a late slot."""
    floor = max(load + need * unit for load, need in zip(room.load_us, room.needed, strict=True))
    if sum(room.needed) > count:
        return None
    steps = (load + number * unit for load in room.load_us for number in range(count + 1))
    levels = sorted({floor, *(level for level in steps if level > floor)})
    if _capacity(room, unit, levels[-1]) < count:
        return None
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _capacity(room, unit, levels[middle]) >= count else (middle + 1, high)
    return levels[low]


def _capacity(room: _Room, unit: float, level: float) -> int:
    return sum(
        math.floor((level - load) / unit + 1e-9)
        for load, is_open in zip(room.load_us, room.open, strict=True)
        if is_open and level >= load
    )


def _placed(problem: StageProblem, room: _Room, unit: float, count: int, level: float) -> StageLayout:
    """Return a layout at the level: needed slots first, the rest where there is room, late slots last."""
    slots, ranks = problem.ranks * problem.chunks, problem.ranks
    counts = [*room.first, *([0] * (slots - len(room.first)))]
    free = [math.floor((level - load) / unit + 1e-9) for load in room.load_us]
    left = count
    for slot in range(max(1, len(room.first)), slots - 1):
        counts[slot] += 1
        free[slot % ranks] -= 1
        left -= 1
    start = max(0, len(room.first) - 1)
    while left:
        for slot in range(start, slots):
            if left and free[slot % ranks] > 0:
                counts[slot] += 1
                free[slot % ranks] -= 1
                left -= 1
    return StageLayout(tuple(counts))
