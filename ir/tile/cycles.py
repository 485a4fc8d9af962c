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


def components(count: int, edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the strongly connected components, every one after those it reaches (Tarjan 1972, without recursion)."""
    successors: list[list[int]] = [[] for _ in range(count)]
    for source, target in edges:
        successors[source].append(target)
    order = [-1] * count
    low = [0] * count
    on_stack = [False] * count
    stack: list[int] = []
    found: list[list[int]] = []
    clock = 0
    for root in range(count):
        if order[root] >= 0:
            continue
        work = [(root, 0)]
        while work:
            vertex, position = work.pop()
            if position == 0:
                order[vertex] = low[vertex] = clock
                clock += 1
                stack.append(vertex)
                on_stack[vertex] = True
            for index in range(position, len(successors[vertex])):
                successor = successors[vertex][index]
                if order[successor] < 0:
                    work += [(vertex, index + 1), (successor, 0)]
                    break
                if on_stack[successor]:
                    low[vertex] = min(low[vertex], order[successor])
            else:
                if low[vertex] == order[vertex]:
                    component: list[int] = []
                    while not component or component[-1] != vertex:
                        component.append(stack.pop())
                        on_stack[component[-1]] = False
                    found.append(component)
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[vertex])
    return found
