"""A good schedule of two lanes quickly: enumerate with durations rounded up, then start all as early as it may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from treadle.ir.operator.lanes import two_rows
from treadle.ir.operator.loop import OperatorLoop
from treadle.ir.operator.schedule import OperatorSchedule
from treadle.ir.operator.two_lanes import least_period_ns, least_schedule

SPANS = 250
"""Units that a period has after rounding, about."""


def rounded_schedule(
    loop: OperatorLoop, weights: Mapping[str, float], bound_ns: int, most_ns: int
) -> OperatorSchedule | None:
    """Return a schedule with a period below `most_ns`, or None: of other loops than two lanes, or where none is found.

    Args:
        loop: any loop.
        weights: multipliers of a pattern bound, by operator.
        bound_ns: a lower bound on the period, which sets how much is rounded.
        most_ns: periods from here on are of no interest.
    """
    unit = max(1, bound_ns // SPANS)
    coarse = _rounded(loop, unit)
    found = least_period_ns(coarse, dict(weights), most_ns + unit * len(loop.operators))
    if found is None or found[0] >= most_ns + unit * len(loop.operators):
        return None
    early = compacted(loop, least_schedule(coarse, dict(weights), *found))
    return early if early.period_ns < most_ns else None


def _rounded(loop: OperatorLoop, unit: int) -> OperatorLoop:
    operators = tuple(
        replace(op, modes=tuple(replace(mode, duration_ns=-(-mode.duration_ns // unit) * unit) for mode in op.modes))
        for op in loop.operators
    )
    return OperatorLoop(loop.name, loop.streams, operators, loop.dependences, loop.periodic)


def compacted(loop: OperatorLoop, found: OperatorSchedule) -> OperatorSchedule:
    """Return the schedule of two lanes with its modes and its order of conflicts, each start as early as it may.

    Time begins at the moment at which both lanes are between operators, where the enumeration began.
    """
    rows = two_rows(loop)
    assert rows is not None
    period = found.period_ns
    slots = {name: start % period for name, start in found.start_ns.items()}
    origin = _between(loop, found)
    order = sorted(loop.index, key=lambda name: ((slots[name] - origin) % period, loop.index[name]))
    lane = {operator.name: number for number, row in enumerate(rows) for operator in row}
    ends: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
    begun: dict[str, int] = {}
    for name in order:
        own, others = ends[lane[name]], ends[1 - lane[name]]
        waits = [end for other, end in others if not _fit(loop, found, name, other)]
        begun[name] = max([0, *(end for _, end in own[-1:]), *waits])
        own.append((name, begun[name] + found.mode(loop, name).duration_ns))
    length = max(end for row in ends for _, end in row)
    return _unrolled(loop, found, begun, length, [[operator.name for operator in row] for row in rows])


def _between(loop: OperatorLoop, found: OperatorSchedule) -> int:
    """Return a time of the period at which both lanes are between operators: some start at which nothing runs."""
    period = found.period_ns
    for candidate in sorted({start % period for start in found.start_ns.values()}):
        spans = (
            (start - candidate) % period + found.mode(loop, name).duration_ns for name, start in found.start_ns.items()
        )
        if all(span <= period for span in spans):
            return candidate
    raise RuntimeError("the lanes are never between operators together")


def _fit(loop: OperatorLoop, found: OperatorSchedule, one: str, other: str) -> bool:
    first, second = found.mode(loop, one).shares_milli, found.mode(loop, other).shares_milli
    return all(first.get(s.name, 0) + second.get(s.name, 0) <= s.capacity_milli for s in loop.streams)


def _unrolled(
    loop: OperatorLoop, found: OperatorSchedule, begun: dict[str, int], period: int, rows: list[list[str]]
) -> OperatorSchedule:
    """Give each start its iteration: what a lane begins the period with, but is not its first operator, comes later."""
    starts = dict(begun)
    for row in rows:
        first = min(row, key=lambda name: begun[name])
        for name in row[row.index(first) :] if first != row[0] else ():
            starts[name] += period
    earliest = min(starts.values())
    return OperatorSchedule(
        loop.name, period, {name: starts[name] - earliest for name in loop.index}, dict(found.modes)
    )
