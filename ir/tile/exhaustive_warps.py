"""The best warp schedule of a tiny loop by trying everything: an oracle for tests and benchmarks, without a solver.

Assignments to groups are tried in order of what they decide alone; for each of them, all starts within the stages there
may be, one operation after the other, leaving off where two of them already break a rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from treadle.ir.tile.assignments import levels_of
from treadle.ir.tile.schedule import Schedule, length_of
from treadle.ir.tile.warps import WarpLoop, WarpSchedule, check_warps, register_peaks

Rank = tuple[int, ...]
"""Interval, what an assignment decides in the order asked for (traffic, barriers, groups), registers, length."""


class TooLarge(Exception):
    """More starts than one is willing to try."""


def best_rank(
    warps: WarpLoop,
    most_ii: int,
    most_tries: int = 400_000,
    decided: tuple[str, ...] = ("traffic_bytes", "barriers", "groups"),
) -> Rank | None:
    """Return the least levels of any schedule, `decided` in their order; None if none has an interval <= `most_ii`.

    The loop has no rings. Raises TooLarge after `most_tries` starts.
    """
    left = [most_tries]
    for ii in range(1, most_ii + 1):
        by_cost: dict[tuple[int, ...], list[dict[str, int]]] = {}
        for groups in _assignments(warps):
            levels = levels_of(warps, groups)
            cost = tuple(levels[name] for name in decided)
            by_cost.setdefault(cost, []).append(groups)
        for cost in sorted(by_cost):
            found = [best for groups in by_cost[cost] if (best := _best(warps, ii, groups, left)) is not None]
            if found:
                return (ii, *cost, *min(found))
    return None


def _assignments(warps: WarpLoop) -> Iterator[dict[str, int]]:
    names = [issue.operation for issue in warps.issues]
    role_of = {issue.operation: issue.role for issue in warps.issues}
    for chosen in product(range(warps.limits.most_groups), repeat=len(names)):
        if any(group > max([-1, *chosen[:position]]) + 1 for position, group in enumerate(chosen)):
            continue
        groups = dict(zip(names, chosen, strict=True))
        kinds = {(group, role_of[name]) for name, group in groups.items()}
        roles = [role for _, role in kinds if role]
        if len({group for group, _ in kinds}) == len(kinds) and len(set(roles)) == len(roles):
            yield groups


def _best(warps: WarpLoop, ii: int, groups: dict[str, int], left: list[int]) -> tuple[int, int] | None:
    """Return the least (registers, length) over all starts; None when there are none."""
    loop, limits = warps.loop, warps.limits
    roles = {groups[issue.operation] for issue in warps.issues if issue.role}
    best: tuple[int, int] | None = None
    for starts in _starts(warps, ii, groups, left):
        made = Schedule(loop.name, ii, starts, length_of(loop, starts), {})
        peaks = register_peaks(warps, made, groups)
        registers = tuple(limits.role_registers if g in roles else peaks[g] for g in sorted(peaks))
        rank = (max(registers), made.length_cycles)
        if (best is None or rank < best) and not check_warps(warps, WarpSchedule(made, groups, registers)):
            best = rank
    return best


def _starts(warps: WarpLoop, ii: int, groups: dict[str, int], left: list[int]) -> Iterator[dict[str, int]]:
    loop = warps.loop
    names = [operation.name for operation in loop.operations]
    edges = _edges(warps, groups)
    issue = {one.operation: one.issue_cycles for one in warps.issues}

    def clash(one: str, other: str, starts: dict[str, int]) -> bool:
        a, b = loop.operation(one), loop.operation(other)
        same_unit = a.unit == b.unit and loop.unit(a.unit).count == 1
        pairs = [(a.occupancy_cycles, b.occupancy_cycles)] if same_unit else []
        pairs += [(issue[one], issue[other])] if groups[one] == groups[other] else []
        ahead = (starts[other] - starts[one]) % ii
        return any(x and y and (ahead < x or ii - ahead < y) for x, y in pairs)

    def extend(position: int, starts: dict[str, int]) -> Iterator[dict[str, int]]:
        if position == len(names):
            if min(starts.values()) == 0:
                yield dict(starts)
            return
        name = names[position]
        for start in range(warps.limits.most_stages * ii):
            left[0] -= 1
            if left[0] < 0:
                raise TooLarge
            starts[name] = start
            late = any(
                a in starts and b in starts and starts[b] < starts[a] + delay - ii * distance
                for a, b, delay, distance in edges[name]
            )
            if not late and not any(clash(other, name, starts) for other in names[:position]):
                yield from extend(position + 1, starts)
        del starts[name]

    yield from extend(0, {})


def _edges(warps: WarpLoop, groups: dict[str, int]) -> dict[str, list[tuple[str, str, int, int]]]:
    """Return, per operation, the dependences at it as (source, target, delay, distance), crossings paid."""
    extra = {c.dependence: c.delay_cycles for c in warps.crossings}
    edges: dict[str, list[tuple[str, str, int, int]]] = {operation.name: [] for operation in warps.loop.operations}
    for position, d in enumerate(warps.loop.dependences):
        crossed = groups[d.source] != groups[d.target]
        edge = (d.source, d.target, d.delay_cycles + crossed * extra.get(position, 0), d.distance)
        for name in {d.source, d.target}:
            edges[name].append(edge)
    return edges
