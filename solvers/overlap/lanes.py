"""Two chains of operators side by side: a beam search over who runs next in which mode.

Two nano-batches of a layer share the streams and nothing else. Put each one's operators in a row; then at any time at
most one operator of each lane runs, and the state of a schedule is how far each lane is and what of the running
operator is left. States of equal progress are kept by (time, rest) without the dominated ones, the most promising
first. A lane may begin anywhere in its row: every cut where both lanes start an operator is tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import networkx as nx

from treadle.ir.operator.loop import Mode, Operator, OperatorLoop
from treadle.ir.operator.schedule import OperatorSchedule, check

BEAM = 8
"""States kept per progress of the two lanes and idle lane."""


@dataclass(frozen=True, slots=True)
class _State:
    """Where the search is: lane `idle` waits for a decision while the other runs `mode` for `rest` more."""

    estimate: float
    time: int
    rest: int
    mode: Mode | None
    before: _State | None
    started: tuple[tuple[str, str, int], ...]
    """What was started on the way here from `before`: operator, mode, time."""


def rows(loop: OperatorLoop) -> list[list[str]]:
    """Return the operators of every connected part in an order that respects the dependences."""
    within: nx.DiGraph[str] = nx.DiGraph()
    within.add_nodes_from(loop.index)
    within.add_edges_from((d.source, d.target) for d in loop.dependences if d.distance == 0)
    whole: nx.Graph[str] = nx.Graph()
    whole.add_nodes_from(loop.index)
    whole.add_edges_from((d.source, d.target) for d in loop.dependences)
    order = list(nx.lexicographical_topological_sort(within, key=loop.index.__getitem__))
    parts = [set(part) for part in nx.connected_components(whole)]
    return sorted(([name for name in order if name in part] for part in parts), key=lambda row: loop.index[row[0]])


def two_lanes(loop: OperatorLoop, weights: Mapping[str, Fraction], most_ns: int) -> OperatorSchedule | None:
    """Return the shortest periodic schedule found below `most_ns` for a loop of two parts; None without.

    Args:
        loop: periodic, all carried dependences at distance 1 or more.
        weights: multipliers of a valid pattern bound by operator, in its own scale (guides the search).
        most_ns: periods from here on are of no interest.
    """
    lanes = rows(loop)
    if len(lanes) != 2 or not loop.periodic:
        return None
    best: OperatorSchedule | None = None
    for cut in range(len(lanes[1])):
        search = _Search(loop, (lanes[0], [*lanes[1][cut:], *lanes[1][:cut]]), weights, most_ns)
        found = search.run()
        if found is None:
            continue
        trial = _wrapped(loop, found, lanes[1][:cut] and lanes[1][cut:])
        if trial.period_ns < most_ns and not check(loop, trial):
            best, most_ns = trial, trial.period_ns
    return best


def _wrapped(loop: OperatorLoop, found: _State, later: list[str]) -> OperatorSchedule:
    """Turn one pass into a periodic schedule: what the second lane began with belongs to the next iteration."""
    started: dict[str, tuple[str, int]] = {}
    state: _State | None = found
    while state is not None:
        started |= {name: (mode, time) for name, mode, time in state.started}
        state = state.before
    starts = {name: started[name][1] + (found.time if name in later else 0) for name in loop.index}
    earliest = min(starts.values())
    return OperatorSchedule(
        loop.name,
        found.time,
        {name: start - earliest for name, start in starts.items()},
        {name: started[name][0] for name in loop.index},
    )


class _Search:
    """One pass over two rows of operators from a common start to a common end."""

    def __init__(
        self, loop: OperatorLoop, lanes: tuple[list[str], list[str]], weights: Mapping[str, Fraction], most_ns: int
    ) -> None:
        self.capacities = {stream.name: stream.capacity_milli for stream in loop.streams}
        self.lanes: tuple[list[Operator], list[Operator]] = (
            [loop.operator(name) for name in lanes[0]],
            [loop.operator(name) for name in lanes[1]],
        )
        self.most = most_ns
        self.weights = {name: float(weights.get(name, 0)) for name in loop.index}
        self.left = tuple(self._suffix(lane) for lane in self.lanes)
        self.shortest = tuple(self._shortest(lane) for lane in self.lanes)
        self.beside: dict[tuple[int, int], bool] = {}
        self.fronts: dict[tuple[int, int, int], list[_State]] = {}

    def _suffix(self, lane: list[Operator]) -> list[float]:
        """Weight of the operators from each position on."""
        left = [0.0]
        for operator in reversed(lane):
            left.append(left[-1] + self.weights[operator.name])
        return left[::-1]

    def _shortest(self, lane: list[Operator]) -> list[int]:
        left = [0]
        for operator in reversed(lane):
            left.append(left[-1] + min(mode.duration_ns for mode in operator.modes))
        return left[::-1]

    def run(self) -> _State | None:
        """Return the end state of least time below the limit, or None."""
        ends = (len(self.lanes[0]), len(self.lanes[1]))
        self._push((0, 0, 0), _State(0.0, 0, 0, None, None, ()))
        for total in range(sum(ends) + 1):
            for first in range(max(0, total - ends[1]), min(ends[0], total) + 1):
                for idle in (0, 1):
                    self._expand((first, total - first, idle))
        final = self.fronts.get((*ends, 0), [])
        return min(final, key=lambda state: state.time, default=None)

    def _expand(self, at: tuple[int, int, int]) -> None:
        """Decide for the idle lane: start its next operator in some mode, or wait for the other lane."""
        if (at[0], at[1]) == (len(self.lanes[0]), len(self.lanes[1])):
            return
        both_idle = [state for state in self.fronts.get(at, []) if state.mode is None]
        for state in sorted(both_idle, key=lambda state: state.time)[:1]:
            for target, after in self._both_idle(at, state):
                self._push(target, after)
        front = sorted(self._undominated(at), key=lambda state: state.estimate)[:BEAM]
        for state in front:
            for target, after in self._moves(at, state):
                self._push(target, after)

    def _moves(self, at: tuple[int, int, int], state: _State) -> Iterator[tuple[tuple[int, int, int], _State]]:
        idle, busy = at[2], 1 - at[2]
        assert state.mode is not None
        after_busy = self._advanced(at, busy)
        yield (*after_busy, 0), self._state(state, (*after_busy, 0), state.rest, 0, None, ())
        if at[idle] == len(self.lanes[idle]):
            return
        operator = self.lanes[idle][at[idle]]
        for mode in operator.modes:
            if not self._fits(mode, state.mode):
                continue
            started = ((operator.name, mode.name, state.time),)
            if mode.duration_ns < state.rest:
                target = (*self._advanced(at, idle), idle)
                yield target, self._state(state, target, mode.duration_ns, state.rest, state.mode, started)
            elif mode.duration_ns > state.rest:
                target = (*after_busy, busy)
                yield target, self._state(state, target, state.rest, mode.duration_ns, mode, started)
            else:
                target = (at[0] + 1, at[1] + 1, 0)
                yield target, self._state(state, target, state.rest, 0, None, started)

    def _both_idle(self, at: tuple[int, int, int], state: _State) -> Iterator[tuple[tuple[int, int, int], _State]]:
        for lane in (0, 1):
            if at[lane] == len(self.lanes[lane]):
                continue
            operator = self.lanes[lane][at[lane]]
            for mode in operator.modes:
                started = ((operator.name, mode.name, state.time),)
                target = (at[0], at[1], 1 - lane)
                yield target, self._state(state, target, 0, mode.duration_ns, mode, started)

    def _state(
        self,
        before: _State,
        at: tuple[int, int, int],
        elapsed: int,
        rest: int,
        mode: Mode | None,
        started: tuple[tuple[str, str, int], ...],
    ) -> _State:
        """Make the state reached after `elapsed`; when the busy lane kept running, `rest` is counted down."""
        if mode is not None and elapsed:
            rest -= elapsed
        time = before.time + elapsed
        return _State(self._estimate(at, time, rest, mode), time, rest, mode, before, started)

    def _estimate(self, at: tuple[int, int, int], time: int, rest: int, mode: Mode | None) -> float:
        """Time by which everything can be done at the earliest."""
        weight, busy = self.left[0][at[0]] + self.left[1][at[1]], 1 - at[2]
        alone = [self.shortest[0][at[0]], self.shortest[1][at[1]]]
        if mode is not None:
            operator = self.lanes[busy][at[busy]]
            weight -= self.weights[operator.name] * (1 - rest / mode.duration_ns)
            alone[busy] = rest + self.shortest[busy][at[busy] + 1]
        return time + max(weight, *alone)

    def _advanced(self, at: tuple[int, int, int], lane: int) -> tuple[int, int]:
        return (at[0] + 1, at[1]) if lane == 0 else (at[0], at[1] + 1)

    def _fits(self, one: Mode, other: Mode) -> bool:
        key = id(one), id(other)
        if key not in self.beside:
            self.beside[key] = all(
                one.shares_milli.get(stream, 0) + other.shares_milli.get(stream, 0) <= capacity
                for stream, capacity in self.capacities.items()
            )
        return self.beside[key]

    def _push(self, at: tuple[int, int, int], state: _State) -> None:
        if state.estimate < self.most:
            self.fronts.setdefault(at, []).append(state)

    def _undominated(self, at: tuple[int, int, int]) -> Iterator[_State]:
        """Drop states that another of the same mode beats in time and rest."""
        least: dict[int, int] = {}
        running = [state for state in self.fronts.get(at, []) if state.mode is not None]
        for state in sorted(running, key=lambda state: (state.time, state.rest)):
            mode = id(state.mode)
            if state.rest < least.get(mode, state.rest + 1):
                least[mode] = state.rest
                yield state
