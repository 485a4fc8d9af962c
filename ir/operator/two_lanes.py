"""The least period of two lanes side by side, by exact enumeration of states.

Two nano-batches share streams and nothing else, and the operators of each run in launch order. Then at most one
operator of each lane runs at any time, and in some optimal schedule there is a moment at which both lanes are between
operators: where an operator waits for one of the other lane, it starts when that one ends; where none does, one lane
may be moved against the other until one does, or freely. From such a moment on, a period is two rows of operators from
a common start to a common end, started as early as they may. So the least period is the least end over all such moments
(*origins*: the next operator of each lane), and a state is how far each lane is, in which mode the running operator is,
and how much of it is left. The earliest time of every state is kept for all origins at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from treadle.ir.operator.lanes import two_rows
from treadle.ir.operator.loop import Mode, Operator, OperatorLoop
from treadle.ir.operator.schedule import OperatorSchedule

Times = NDArray[np.int32]
_NEVER = np.int32(2**30)

LARGEST_STATES = 400_000_000
"""States beyond which the enumeration is not attempted (about ten seconds)."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Two rows of operators in launch order, durations in units of `grain_ns`, modes that may be in a best schedule."""

    operators: tuple[tuple[Operator, ...], tuple[Operator, ...]]
    modes: tuple[tuple[tuple[Mode, ...], ...], tuple[tuple[Mode, ...], ...]]
    grain_ns: int
    fits: frozenset[tuple[int, int, int, int]]
    """(operator, mode) of the first lane and of the second that fit the streams together."""


def lanes_of(loop: OperatorLoop, below_ns: int) -> Lanes | None:
    """Return the lanes with the modes that a period below `below_ns` may use; None for other loops.

    A mode is out when it does not fit alone, when its lane takes too long with it however fast the rest is, or when
    another is no slower and holds no more of anything.
    """
    rows = two_rows(loop)
    if rows is None:
        return None
    capacities = {stream.name: stream.capacity_milli for stream in loop.streams}
    chosen = tuple(tuple(_useful(row, operator, capacities, below_ns) for operator in row) for row in rows)
    durations = [mode.duration_ns for row in chosen for modes in row for mode in modes]
    fits = frozenset(
        (i, m, j, n)
        for i, firsts in enumerate(chosen[0])
        for m, first in enumerate(firsts)
        for j, seconds in enumerate(chosen[1])
        for n, second in enumerate(seconds)
        if all(first.shares_milli.get(s, 0) + second.shares_milli.get(s, 0) <= most for s, most in capacities.items())
    )
    return Lanes(rows, (chosen[0], chosen[1]), int(np.gcd.reduce(durations)) if durations else 1, fits)


def _useful(
    row: tuple[Operator, ...], operator: Operator, capacities: dict[str, int], below_ns: int
) -> tuple[Mode, ...]:
    others = sum(min(mode.duration_ns for mode in other.modes) for other in row if other is not operator)
    fitting = [
        mode
        for mode in operator.modes
        if all(share <= capacities[stream] for stream, share in mode.shares_milli.items())
        and mode.duration_ns + others < below_ns
    ]
    kept: list[Mode] = []
    for mode in sorted(fitting, key=lambda mode: (mode.duration_ns, sum(mode.shares_milli.values()))):
        if not any(_no_more(other, mode, capacities) for other in kept):
            kept.append(mode)
    return tuple(kept)


def _no_more(one: Mode, other: Mode, capacities: dict[str, int]) -> bool:
    return all(one.shares_milli.get(stream, 0) <= other.shares_milli.get(stream, 0) for stream in capacities)


def state_count(lanes: Lanes) -> int:
    """Return how many states the enumeration has, over all origins."""
    grain = lanes.grain_ns
    rests = [[sum(mode.duration_ns // grain for mode in modes) for modes in row] for row in lanes.modes]
    first, second = len(rests[0]), len(rests[1])
    return (sum(rests[0]) * (second + 1) + sum(rests[1]) * (first + 1)) * first * second


@dataclass(frozen=True, slots=True)
class Guide:
    """Lower bounds on what is left of a period, from weights: no ns completes more than one of them.

    `left[lane][position]` is the weight of the lane's operators before a position (twice around), in units of grain.
    """

    before: tuple[NDArray[np.float64], NDArray[np.float64]]
    total: float


def guide(lanes: Lanes, weights: dict[str, float]) -> Guide:
    """Return the guide of weights by operator, scaled until no pair of modes completes more than 1 a unit of time."""
    rates = [
        [
            [max(0.0, weights.get(op.name, 0.0)) / mode.duration_ns for mode in modes]
            for op, modes in zip(*row, strict=True)
        ]
        for row in zip(lanes.operators, lanes.modes, strict=True)
    ]
    alone = max((rate for row in rates for modes in row for rate in modes), default=0.0)
    together = max((rates[0][i][m] + rates[1][j][n] for i, m, j, n in lanes.fits), default=0.0)
    most = max(alone, together) * (1 + 1e-9)
    scale = 1 / (most * lanes.grain_ns) if most else 0.0
    rows = [[max(0.0, weights.get(op.name, 0.0)) * scale for op in row] for row in lanes.operators]
    before = tuple(np.concatenate(([0.0], np.cumsum(row * 2))) for row in rows)
    return Guide((before[0], before[1]), float(sum(map(sum, rows))))


class Enumeration:
    """Earliest times of all states over a square of origins.

    Cells are numbers of completed operators of each lane, counted from operator 0 of the first time around to the last
    of the second; origin (a, b) starts at cell (a, b) at time 0 and ends at (a + len, b + len).
    """

    def __init__(self, lanes: Lanes, below: int, guide: Guide, keep: bool = False) -> None:
        """Prepare to look for ends below `below` units; with `keep`, from origin (0, 0) alone, keeping every state."""
        self.lanes, self.below, self.guide, self.keep = lanes, below, guide, keep
        self.sizes = (len(lanes.modes[0]), len(lanes.modes[1]))
        self.durations = tuple(
            [[mode.duration_ns // lanes.grain_ns for mode in modes] for modes in row] for row in lanes.modes
        )
        self.origins = (1, 1) if keep else self.sizes
        self.idle: dict[tuple[int, int], Times] = {}
        self.running: dict[tuple[int, int, int, int], Times] = {}
        """(cell, lane that runs, mode) -> times by origin (two axes) and rest (0 to duration)."""
        self.best = np.full(self.origins, below, np.int32)

    def run(self) -> tuple[int, tuple[int, int]]:
        """Return the least end in units of grain (`below` when nothing is below) and its origin."""
        most = tuple(size + count - 1 for size, count in zip(self.sizes, self.origins, strict=True))
        for total in range(sum(most) + 1):
            for i in range(max(0, total - most[1]), min(most[0], total) + 1):
                self._cell((i, total - i))
        origin = np.unravel_index(int(self.best.argmin()), self.origins)
        return int(self.best.min()), (int(origin[0]), int(origin[1]))

    def _block(self, cell: tuple[int, int], ended: tuple[bool, bool] = (False, False)) -> tuple[slice, slice]:
        """Origins whose period contains a cell; with `ended`, only those whose lane has operators left there."""
        return (
            slice(max(0, cell[0] - self.sizes[0] + ended[0]), min(cell[0] + 1, self.origins[0])),
            slice(max(0, cell[1] - self.sizes[1] + ended[1]), min(cell[1] + 1, self.origins[1])),
        )

    def _left(self, cell: tuple[int, int], block: tuple[slice, slice]) -> NDArray[np.float64]:
        """Weight left at a cell, by origin."""
        first, second = self.guide.before
        done = (first[cell[0]] - first[: self.origins[0]][block[0]])[:, None]
        left: NDArray[np.float64] = (
            self.guide.total - done - (second[cell[1]] - second[: self.origins[1]][block[1]])[None, :]
        )
        return left

    def _cell(self, cell: tuple[int, int]) -> None:
        idle = self.idle.get(cell)
        if cell[0] < self.origins[0] and cell[1] < self.origins[1]:
            idle = self._idle(cell)
            idle[cell] = 0
        origin = cell[0] - self.sizes[0], cell[1] - self.sizes[1]
        if idle is not None and min(origin) >= 0:
            self.best[origin] = min(self.best[origin], idle[origin])
        if idle is not None:
            self._from_idle(cell, idle)
        for lane in (0, 1):
            for mode in range(len(self._modes(cell, lane))):
                times = self.running.get((*cell, lane, mode))
                if times is not None:
                    self._from_running(cell, lane, mode, times)
                    if not self.keep:
                        del self.running[(*cell, lane, mode)]

    def _modes(self, cell: tuple[int, int], lane: int) -> list[int]:
        return self.durations[lane][cell[lane] % self.sizes[lane]]

    def _from_idle(self, cell: tuple[int, int], idle: Times) -> None:
        """Start the next operator of either lane."""
        for lane in (0, 1):
            block = self._block(cell, (lane == 0, lane == 1))
            times = idle[block]
            alive = times < self.below - self._left(cell, block) + _SLACK
            if not alive.any():
                continue
            times = np.where(alive, times, _NEVER)
            for mode, duration in enumerate(self._modes(cell, lane)):
                _lower(self._target(cell, lane, mode, duration)[block][..., duration], times)

    def _from_running(self, cell: tuple[int, int], lane: int, mode: int, times: Times) -> None:
        """The other lane waits for the end of the running operator, or starts its next operator beside it."""
        duration = self._modes(cell, lane)[mode]
        block = self._block(cell, (lane == 0, lane == 1))
        before = self.guide.before[lane]
        weight = before[cell[lane] + 1] - before[cell[lane]]
        done = np.ceil(weight * (1 - np.arange(duration + 1) / duration)).astype(np.int32)
        limit = np.ceil(self.below - self._left(cell, block) + _SLACK).astype(np.int32)
        inner = times[block]
        alive = inner < limit[..., None] + done
        found = alive.any(axis=2)
        if not found.any():
            return
        box = (*_span(found.any(axis=1)), *_span(found.any(axis=0)))
        near = (slice(box[0], box[1]), slice(box[2], box[3]))
        low, high = _span(alive[near].any(axis=(0, 1)))
        inner = np.where(alive[near][..., low:high], inner[near][..., low:high], _NEVER)
        block = (_shifted(near[0], block[0].start), _shifted(near[1], block[1].start))
        ended = (cell[0] + (lane == 0), cell[1] + (lane == 1))
        _lower(self._idle(ended)[block], (inner + np.arange(low, high, dtype=np.int32)).min(axis=-1))
        both = self._block(cell, (True, True))
        both = (_common(both[0], block[0]), _common(both[1], block[1]))
        if both[0].start >= both[0].stop or both[1].start >= both[1].stop:
            return
        inner = inner[
            both[0].start - block[0].start : both[0].stop - block[0].start,
            both[1].start - block[1].start : both[1].stop - block[1].start,
        ]
        for beside, length in enumerate(self._modes(cell, 1 - lane)):
            if self.fit(cell, lane, mode, beside):
                self._beside(cell, lane, mode, beside, both, inner, low, high, length)

    def _beside(
        self,
        cell: tuple[int, int],
        lane: int,
        mode: int,
        beside: int,
        both: tuple[slice, slice],
        inner: Times,
        low: int,
        high: int,
        length: int,
    ) -> None:
        """Lane `1 - lane` starts an operator of `length` beside the running one with `low` to `high - 1` left."""
        other = 1 - lane
        after = (cell[0] + (other == 0), cell[1] + (other == 1))
        ended = (cell[0] + (lane == 0), cell[1] + (lane == 1))
        if high - 1 > length:  # the new one ends first
            begin = max(low, length + 1)
            duration = self._modes(cell, lane)[mode]
            target = self._target(after, lane, mode, duration)[both][..., begin - length : high - length]
            _lower(target, inner[..., begin - low :] + np.int32(length))
        if low < length:  # the running one ends first
            end = min(high, length)
            rest = np.arange(low, end, dtype=np.int32)
            target = self._target(ended, other, beside, length)[both][..., length - end + 1 : length - low + 1]
            _lower(target, (inner[..., : end - low] + rest)[..., ::-1])
        if low <= length < high:
            together = (cell[0] + 1, cell[1] + 1)
            _lower(self._idle(together)[both], inner[..., length - low] + np.int32(length))

    def fit(self, cell: tuple[int, int], lane: int, mode: int, beside: int) -> bool:
        """Whether the lane's next operator in a mode fits beside the other lane's next one in mode `beside`."""
        first, second = cell[0] % self.sizes[0], cell[1] % self.sizes[1]
        return (first, mode if lane == 0 else beside, second, beside if lane == 0 else mode) in self.lanes.fits

    def _idle(self, cell: tuple[int, int]) -> Times:
        if cell not in self.idle:
            self.idle[cell] = np.full(self.origins, _NEVER, np.int32)
        return self.idle[cell]

    def _target(self, cell: tuple[int, int], lane: int, mode: int, duration: int) -> Times:
        key = (*cell, lane, mode)
        if key not in self.running:
            self.running[key] = np.full((*self.origins, duration + 1), _NEVER, np.int32)
        return self.running[key]


def _span(found: NDArray[np.bool_]) -> tuple[int, int]:
    """First and one past the last of what is true."""
    places = np.flatnonzero(found)
    return int(places[0]), int(places[-1]) + 1


def _common(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _shifted(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def _lower(target: Times, times: Times) -> None:
    np.minimum(target, times, out=target)


_SLACK = 1e-3
"""Weights are floating point; no state whose time is a whole number of units below the limit is lost to rounding."""


def least_period_ns(loop: OperatorLoop, weights: dict[str, float], below_ns: int) -> tuple[int, tuple[int, int]] | None:
    """Return the least period, `below_ns` when none is below it, and its origin; None where enumeration is not for it.

    Args:
        loop: any loop; only two closed chains are enumerated.
        weights: by operator, any; good ones (the multipliers of a pattern bound) leave fewer states.
        below_ns: periods from here on are of no interest.
    """
    lanes = lanes_of(loop, below_ns)
    if lanes is None or state_count(lanes) > LARGEST_STATES or below_ns // lanes.grain_ns > 2**29:
        return None
    if not all(modes for row in lanes.modes for modes in row):
        return below_ns, (0, 0)  # some operator is too slow in every mode
    below = -(-below_ns // lanes.grain_ns)
    found, origin = Enumeration(lanes, below, guide(lanes, weights)).run()
    return (found * lanes.grain_ns if found < below else below_ns), origin


def least_schedule(
    loop: OperatorLoop, weights: dict[str, float], period_ns: int, origin: tuple[int, int]
) -> OperatorSchedule:
    """Return a schedule of the least period that `least_period_ns` found from an origin."""
    lanes = lanes_of(loop, period_ns + 1)
    assert lanes is not None
    turned = Lanes(
        (_turned(lanes.operators[0], origin[0]), _turned(lanes.operators[1], origin[1])),
        (_turned(lanes.modes[0], origin[0]), _turned(lanes.modes[1], origin[1])),
        lanes.grain_ns,
        frozenset(
            ((i - origin[0]) % len(lanes.modes[0]), m, (j - origin[1]) % len(lanes.modes[1]), n)
            for i, m, j, n in lanes.fits
        ),
    )
    search = Enumeration(turned, period_ns // lanes.grain_ns + 1, guide(turned, weights), keep=True)
    search.run()
    starts: dict[str, int] = {}
    modes: dict[str, str] = {}
    for lane, position, mode, time in _Trace(search).starts():
        operator = turned.operators[lane][position]
        wrapped = position < len(turned.modes[lane]) - origin[lane] and origin[lane] > 0
        starts[operator.name] = time * lanes.grain_ns + (period_ns if wrapped else 0)
        modes[operator.name] = turned.modes[lane][position][mode].name
    earliest = min(starts.values())
    return OperatorSchedule(
        loop.name,
        period_ns,
        {name: starts[name] - earliest for name in loop.index},
        {name: modes[name] for name in loop.index},
    )


T = TypeVar("T")


def _turned(row: tuple[T, ...], by: int) -> tuple[T, ...]:
    return row[by:] + row[:by]


Start = tuple[int, int, int, int]
"""Lane, position, mode, time."""


class _Trace:
    """Walks back from the end of a kept enumeration."""

    def __init__(self, search: Enumeration) -> None:
        self.search = search

    def starts(self) -> list[Start]:
        """Return what was started when."""
        found: list[Start] = []
        cell = self.search.sizes
        state: tuple[tuple[int, int], int, int, int, int] = (cell, -1, 0, 0, self._idle(cell))
        while state[0] != (0, 0) or state[1] >= 0:
            state, started = self._before(*state)
            found += started
        return found

    def _idle(self, cell: tuple[int, int]) -> int:
        times = self.search.idle.get(cell)
        return int(_NEVER) if times is None else int(times[0, 0])

    def _running(self, cell: tuple[int, int], lane: int, mode: int, rest: int) -> int:
        times = self.search.running.get((*cell, lane, mode))
        return int(_NEVER) if times is None or not 0 < rest < times.shape[2] else int(times[0, 0, rest])

    def _before(
        self, cell: tuple[int, int], lane: int, mode: int, rest: int, time: int
    ) -> tuple[tuple[tuple[int, int], int, int, int, int], list[Start]]:
        """Return a state from which this one was reached in its time, and what was started on the way."""
        if lane < 0:
            return self._before_idle(cell, time)
        other, duration = 1 - lane, self.search.durations[lane][cell[lane]][mode]
        if rest == duration and self._idle(cell) == time:
            return (cell, -1, 0, 0, time), [(lane, cell[lane], mode, time)]
        back = (cell[0] - (other == 0), cell[1] - (other == 1))
        for beside, length in enumerate(self._lengths(other, back)):
            if (
                self.search.fit(back, lane, mode, beside)
                and self._running(back, lane, mode, rest + length) == time - length
            ):
                return (back, lane, mode, rest + length, time - length), [(other, back[other], beside, time - length)]
            left = duration - rest
            if self.search.fit(back, lane, mode, beside) and self._running(back, other, beside, left) == time - left:
                return (back, other, beside, left, time - left), [(lane, cell[lane], mode, time - left)]
        raise RuntimeError("a state of the enumeration has no predecessor")

    def _before_idle(
        self, cell: tuple[int, int], time: int
    ) -> tuple[tuple[tuple[int, int], int, int, int, int], list[Start]]:
        for lane in (0, 1):
            other = 1 - lane
            back = (cell[0] - (lane == 0), cell[1] - (lane == 1))
            diagonal = (cell[0] - 1, cell[1] - 1)
            for mode, duration in enumerate(self._lengths(lane, back)):
                for rest in range(1, duration + 1):
                    if self._running(back, lane, mode, rest) == time - rest:
                        return (back, lane, mode, rest, time - rest), []
                for beside, length in enumerate(self._lengths(other, diagonal)):
                    fits = self.search.fit(diagonal, lane, mode, beside)
                    if fits and self._running(diagonal, lane, mode, length) == time - length:
                        started = (other, diagonal[other], beside, time - length)
                        return (diagonal, lane, mode, length, time - length), [started]
        raise RuntimeError("an end of the enumeration has no predecessor")

    def _lengths(self, lane: int, cell: tuple[int, int]) -> list[int]:
        row = self.search.durations[lane]
        return row[cell[lane]] if 0 <= cell[lane] < len(row) and min(cell) >= 0 else []
