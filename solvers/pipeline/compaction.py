"""Shortens the interval of a schedule without search: the same groups and orders, packed as tightly as they allow.

With every order on every unit and in every group kept, a schedule at another interval is a longest path; the least
interval is that of the cycle of greatest delay per distance, found by bisection. Registers and memory are looked at
afterwards, since no path counts them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from treadle.ir.tile.cycles import longest_paths
from treadle.ir.tile.warps import WarpLoop, check_warps, crosses
from treadle.solvers.modulo.network import Network
from treadle.solvers.modulo.place import normalized
from treadle.solvers.pipeline.points import Point, warp_schedule

TRIES = 6
"""Intervals tried when the least one of the orders breaks registers or memory: each halves the gain."""

Arc = tuple[int, int, int, int]
"""start(target) >= start(source) + delay - interval * distance."""


def compacted(warps: WarpLoop, network: Network, ii: int, point: Point, least: int) -> tuple[int, Point]:
    """Return a legal schedule of the same orders at a shorter interval, `least` or more; the given one if none is."""
    return in_orders(warps, network, ii, point, least, ii) or (ii, point)


def in_orders(
    warps: WarpLoop, network: Network, period: int, point: Point, least: int, below: int
) -> tuple[int, Point] | None:
    """Return a legal schedule at an interval from `least` on and below `below`, None if there is none.

    Its orders are those that the starts of `point`, which need not be legal, have when they are repeated every `period`
    cycles.
    """
    arcs = list(ordered_arcs(warps, network, period, point))
    interval = _least_interval(arcs, network.size, least, below)
    for _ in range(TRIES):
        if interval >= below:
            break
        for starts in _placed(arcs, network.size, interval):
            other = Point(tuple(starts), point.groups)
            if not check_warps(warps, warp_schedule(warps, network, interval, other)):
                return interval, other
        interval += max(1, (below - interval) // 2)
    return None


def ordered_arcs(warps: WarpLoop, network: Network, ii: int, point: Point) -> Iterator[Arc]:
    """Yield what every schedule of these groups and orders obeys."""
    index = warps.loop.index
    for arc in network.arcs:
        yield arc.source, arc.target, arc.delay_cycles, arc.distance
    for crossing in warps.crossings:
        if crosses(warps, point.groups, crossing):
            ends = warps.loop.dependences[crossing.dependence]
            delay = ends.delay_cycles + crossing.delay_cycles
            yield index[ends.source], index[ends.target], delay, ends.distance
    queues: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for vertex, unit in enumerate(network.unit_of):
        if unit is not None and network.counts[unit] == 1:
            queues["unit", unit].append((vertex, network.occupancy[vertex]))
    for issue in warps.issues:
        if issue.issue_cycles:
            queues["group", point.groups[issue.operation]].append((index[issue.operation], issue.issue_cycles))
    for held in queues.values():
        yield from _in_order(held, ii, point.starts)


def _in_order(held: list[tuple[int, int]], ii: int, starts: tuple[int, ...]) -> Iterator[Arc]:
    """Yield that operations follow each other as they do now, modulo the interval, each for the cycles it holds."""
    order = sorted(held, key=lambda item: starts[item[0]] % ii)
    (first, _), stage = order[0], [start // ii for start in starts]
    for (before, cycles), (after, _) in pairwise(order):
        yield before, after, cycles, stage[before] - stage[after]
    last, cycles = order[-1]
    yield last, first, cycles, stage[last] - stage[first] + 1


def _edges(arcs: list[Arc], interval: int) -> list[tuple[int, int, int]]:
    return [(source, target, delay - interval * distance) for source, target, delay, distance in arcs]


def _least_interval(arcs: list[Arc], size: int, low: int, high: int) -> int:
    """Return the least interval that no cycle refutes; `high` is feasible, and so is all between it and the answer."""
    while low < high:
        middle = (low + high) // 2
        if longest_paths(size, _edges(arcs, middle)) is None:
            low = middle + 1
        else:
            high = middle
    return high


def _placed(arcs: list[Arc], size: int, interval: int) -> Iterator[list[int]]:
    """Yield everything as early as it can be, then as late."""
    edges = _edges(arcs, interval)
    early = longest_paths(size, edges)
    late = longest_paths(size, [(target, source, weight) for source, target, weight in edges])
    for found, sign in ((early, 1), (late, -1)):
        if found is not None:
            yield normalized([sign * start for start in found[0]])
