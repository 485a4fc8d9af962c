"""Good schedules of three and more lanes: a beam over which lane starts its next operator when, in which mode.

Lanes begin a period together, each at any of its operators (its *origin*), and end it together. A state is how far each
lane is and what is left of what it runs; the next start is now or when something that runs ends. States are ranked by
their time plus what the weights of a bound say is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from treadle.ir.operator.lanes import Row
from treadle.ir.operator.loop import OperatorLoop
from treadle.ir.operator.schedule import OperatorSchedule

Whole = NDArray[np.int64]
_FAR = np.int64(2**60)


@dataclass(frozen=True, slots=True)
class _Tables:
    """Durations, shares and weights by lane and operator (and mode), padded to rectangles."""

    sizes: Whole
    duration_ns: Whole
    shares_milli: Whole
    weight: NDArray[np.float64]
    capacity_milli: Whole

    @property
    def lanes(self) -> int:
        """How many lanes."""
        return len(self.sizes)


@dataclass(frozen=True, slots=True)
class _States:
    """Partial schedules: by state its time, and by lane origin, operators started, mode and rest of the last."""

    time_ns: Whole
    origin: Whole
    started: Whole
    mode: Whole
    rest_ns: Whole

    def only(self, chosen: NDArray[np.intp]) -> _States:
        """Return some of the states, in the order given."""
        parts = (self.time_ns, self.origin, self.started, self.mode, self.rest_ns)
        return _States(*(part[chosen] for part in parts))


@dataclass(frozen=True, slots=True)
class _Starts:
    """What made each state: its parent, the lane that started an operator, and the mode."""

    parent: NDArray[np.intp]
    lane: Whole
    states: _States


def beam_schedule(
    loop: OperatorLoop, rows: tuple[Row, ...], weights: Mapping[str, float], width: int
) -> OperatorSchedule:
    """Return the best schedule that a beam of a width finds.

    Args:
        loop: the loop; every operator has a mode that fits the streams.
        rows: its lanes.
        weights: by operator, of which no nanosecond completes more than 1.
        width: states kept after each start.
    """
    tables = _tables(loop, rows, weights)
    levels = [_Starts(np.zeros(0, np.intp), np.zeros(0, np.int64), _origins(tables))]
    for _ in range(int(tables.sizes.sum())):
        levels.append(_kept(tables, _step(tables, levels[-1].states), width))
    last = levels[-1].states
    ends = last.time_ns + last.rest_ns.max(axis=1)
    best = int(ends.argmin())
    return _read(loop, rows, tables, levels, best, int(ends[best]))


def _tables(loop: OperatorLoop, rows: tuple[Row, ...], weights: Mapping[str, float]) -> _Tables:
    most = max(map(len, rows)), max(len(operator.modes) for row in rows for operator in row)
    duration = np.full((len(rows), *most), _FAR)
    shares = np.full((len(rows), *most, len(loop.streams)), _FAR)
    weight = np.zeros((len(rows), most[0]))
    for lane, row in enumerate(rows):
        for position, operator in enumerate(row):
            weight[lane, position] = weights.get(operator.name, 0.0)
            for number, mode in enumerate(operator.modes):
                duration[lane, position, number] = mode.duration_ns
                shares[lane, position, number] = [mode.shares_milli.get(stream.name, 0) for stream in loop.streams]
    capacity = np.array([stream.capacity_milli for stream in loop.streams], np.int64)
    return _Tables(np.array([len(row) for row in rows]), duration, shares, weight, capacity)


def _origins(tables: _Tables) -> _States:
    """All ways to begin: the first lane at its first operator (periods may be turned), the others anywhere."""
    origin = np.array(list(product((0,), *(range(size) for size in tables.sizes[1:]))), np.int64)
    none = np.zeros_like(origin)
    return _States(np.zeros(len(origin), np.int64), origin, none, none, none)


def _step(tables: _Tables, states: _States) -> _Starts:
    """All states after one more start."""
    waits = np.sort(np.concatenate((np.zeros((len(states.time_ns), 1), np.int64), states.rest_ns), axis=1), axis=1)
    found: list[tuple[NDArray[np.intp], int, int, Whole, Whole]] = []
    for turn in range(tables.lanes + 1):
        wait = waits[:, turn]
        new = np.ones(len(wait), np.bool_) if turn == 0 else wait > waits[:, turn - 1]
        rest = np.maximum(states.rest_ns - wait[:, None], 0)
        used = _used(tables, states, rest)
        for lane in range(tables.lanes):
            able = new & (rest[:, lane] == 0) & (states.started[:, lane] < tables.sizes[lane])
            position = (states.origin[:, lane] + states.started[:, lane]) % tables.sizes[lane]
            for mode in range(tables.duration_ns.shape[2]):
                fits = (used + tables.shares_milli[lane, position, mode] <= tables.capacity_milli).all(axis=1)
                at = np.flatnonzero(able & fits)
                if len(at):
                    found.append((at, lane, mode, states.time_ns[at] + wait[at], rest[at]))
    return _made(tables, states, found)


def _used(tables: _Tables, states: _States, rest: Whole) -> Whole:
    """Shares held by what still runs."""
    used = np.zeros((len(rest), len(tables.capacity_milli)), np.int64)
    for lane in range(tables.lanes):
        running = np.flatnonzero(rest[:, lane] > 0)
        position = _last(tables, states, lane)[running]
        used[running] += tables.shares_milli[lane, position, states.mode[running, lane]]
    return used


def _last(tables: _Tables, states: _States, lane: int) -> Whole:
    """Position of the operator that a lane started last."""
    last: Whole = (states.origin[:, lane] + states.started[:, lane] - 1) % tables.sizes[lane]
    return last


def _made(tables: _Tables, states: _States, found: list[tuple[NDArray[np.intp], int, int, Whole, Whole]]) -> _Starts:
    parent = np.concatenate([at for at, *_ in found])
    lane = np.concatenate([np.full(len(at), lane) for at, lane, *_ in found])
    mode = np.concatenate([np.full(len(at), mode) for at, _, mode, *_ in found])
    before = states.only(parent)
    every = np.arange(len(parent))
    started, modes, rest = before.started.copy(), before.mode.copy(), np.concatenate([rest for *_, rest in found])
    position = (before.origin[every, lane] + started[every, lane]) % tables.sizes[lane]
    started[every, lane] += 1
    modes[every, lane] = mode
    rest[every, lane] = tables.duration_ns[lane, position, mode]
    time = np.concatenate([time for _, _, _, time, _ in found])
    return _Starts(parent, lane, _States(time, before.origin, started, modes, rest))


def _kept(tables: _Tables, made: _Starts, width: int) -> _Starts:
    """The best states by what their end must be at least; of equal states the earliest."""
    end = _least_end(tables, made.states)
    keys = _keys(made.states)
    order = np.lexsort((end, keys))
    first = np.ones(len(order), np.bool_)
    first[1:] = keys[order[1:]] != keys[order[:-1]]
    unique = order[first]
    chosen = unique[np.argsort(end[unique], kind="stable")[:width]]
    return _Starts(made.parent[chosen], made.lane[chosen], made.states.only(chosen))


def _least_end(tables: _Tables, states: _States) -> NDArray[np.float64]:
    end = states.time_ns.astype(np.float64)
    for lane in range(tables.lanes):
        size = int(tables.sizes[lane])
        before = np.concatenate(([0.0], np.cumsum(np.tile(tables.weight[lane, :size], 2))))
        origin = states.origin[:, lane]
        end += before[origin + size] - before[origin + states.started[:, lane]]
        running = np.flatnonzero(states.rest_ns[:, lane] > 0)
        position = _last(tables, states, lane)[running]
        duration = tables.duration_ns[lane, position, states.mode[running, lane]]
        end[running] += tables.weight[lane, position] * states.rest_ns[running, lane] / duration
    least: NDArray[np.float64] = np.maximum(end, states.time_ns + states.rest_ns.max(axis=1))
    return least


def _keys(states: _States) -> NDArray[np.uint64]:
    """A number for all of a state but its time; the mode of a lane that runs nothing does not matter."""
    mode = np.where(states.rest_ns > 0, states.mode, -1)
    parts = np.concatenate((states.origin, states.started, mode, states.rest_ns), axis=1).astype(np.uint64)
    keys = np.zeros(len(parts), np.uint64)
    for column in parts.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _read(
    loop: OperatorLoop, rows: tuple[Row, ...], tables: _Tables, levels: list[_Starts], at: int, period_ns: int
) -> OperatorSchedule:
    """Walk back from a last state; what a lane begins the period with, but is not its first operator, comes later."""
    starts: dict[str, int] = {}
    modes: dict[str, str] = {}
    for level in reversed(levels[1:]):
        lane, states = int(level.lane[at]), level.states
        position = int(_last(tables, states, lane)[at])
        operator = rows[lane][position]
        later = position >= int(states.origin[at, lane]) > 0
        starts[operator.name] = int(states.time_ns[at]) + (period_ns if later else 0)
        modes[operator.name] = operator.modes[int(states.mode[at, lane])].name
        at = int(level.parent[at])
    earliest = min(starts.values())
    return OperatorSchedule(
        loop.name,
        period_ns,
        {name: starts[name] - earliest for name in loop.index},
        {name: modes[name] for name in loop.index},
    )
