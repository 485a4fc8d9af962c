"""Replay of an operator schedule event by event: the order of the plan, started as soon as operands and streams allow.

It knows the plan's order and modes, not its times: what it finds for the period is a check of them.
"""

from __future__ import annotations

from treadle.ir.operator.loop import OperatorLoop
from treadle.ir.operator.schedule import OperatorSchedule

ITERATIONS = 24
"""Iterations replayed; the period is taken over the second half."""


def replayed_period_ns(loop: OperatorLoop, schedule: OperatorSchedule, iterations: int = ITERATIONS) -> float:
    """Return the mean time between iterations in the second half of a replay."""
    planned = sorted(
        (schedule.start_ns[name] + turn * schedule.period_ns, loop.index[name], turn, name)
        for turn in range(iterations)
        for name in loop.index
    )
    before: dict[str, list[tuple[str, int]]] = {name: [] for name in loop.index}
    for dependence in loop.dependences:
        before[dependence.target].append((dependence.source, dependence.distance))
    ends: dict[tuple[str, int], int] = {}
    running: list[tuple[int, str]] = []
    now = 0
    for _, _, turn, name in planned:
        operands = [ends[source, turn - distance] for source, distance in before[name] if turn >= distance]
        now = max([now, *operands])
        running = [(end, other) for end, other in running if end > now]
        while not _fits(loop, schedule, name, [other for _, other in running]):
            now = min(end for end, _ in running)
            running = [(end, other) for end, other in running if end > now]
        ends[name, turn] = now + schedule.mode(loop, name).duration_ns
        running.append((ends[name, turn], name))
    half = iterations // 2
    finished = [max(ends[name, turn] for name in loop.index) for turn in (half - 1, iterations - 1)]
    return (finished[1] - finished[0]) / (iterations - half)


def _fits(loop: OperatorLoop, schedule: OperatorSchedule, name: str, running: list[str]) -> bool:
    modes = [schedule.mode(loop, other) for other in (name, *running)]
    return all(sum(mode.shares_milli.get(s.name, 0) for mode in modes) <= s.capacity_milli for s in loop.streams)
