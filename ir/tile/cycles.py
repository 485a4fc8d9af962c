"""Longest paths and positive cycles in small weighted graphs, without a solver."""

from __future__ import annotations

from collections.abc import Sequence

Edge = tuple[int, int, int]
"""(source, target, weight)."""


def longest_paths(count: int, edges: Sequence[Edge]) -> tuple[list[int], list[int | None]] | None:
    """Return longest-path values from a virtual source of weight 0 to every vertex, and each vertex's last edge.

    Returns None when a cycle of positive weight makes the values infinite. Queue-based Bellman-Ford.
    """
    values = [0] * count
    parents: list[int | None] = [None] * count
    outgoing: list[list[int]] = [[] for _ in range(count)]
    for position, (source, _, _) in enumerate(edges):
        outgoing[source].append(position)
    for _ in range(count + 1):
        changed = False
        for position, (source, target, weight) in enumerate(edges):
            if values[source] + weight > values[target]:
                values[target] = values[source] + weight
                parents[target] = position
                changed = True
        if not changed:
            return values, parents
    return None


def positive_cycle(count: int, edges: Sequence[Edge]) -> list[int] | None:
    """Return the vertices of a cycle of positive weight in order, or None."""
    values = [0] * count
    parents: list[int] = [-1] * count
    last = -1
    for _ in range(count + 1):
        last = -1
        for source, target, weight in edges:
            if values[source] + weight > values[target]:
                values[target] = values[source] + weight
                parents[target] = source
                last = target
        if last < 0:
            return None
    vertex = last
    for _ in range(count):
        vertex = parents[vertex]
    cycle = [vertex]
    walker = parents[vertex]
    while walker != vertex:
        cycle.append(walker)
        walker = parents[walker]
    return cycle[::-1]
