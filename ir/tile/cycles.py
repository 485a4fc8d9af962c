"""Longest paths and positive cycles in small weighted graphs, without a solver."""

from __future__ import annotations

from collections.abc import Sequence

Edge = tuple[int, int, int]
"""(source, target, weight)."""


def longest_paths(count: int, edges: Sequence[Edge]) -> tuple[list[int], list[int | None]] | None:
    """Return longest-path values from a virtual source of weight 0 to every vertex, and each vertex's last edge.

    Returns None when a cycle of positive weight makes the values infinite. Bellman-Ford over the edges in topological
    order of the components, so that one pass settles all that lies on no cycle.
    """
    values = [0] * count
    parents: list[int | None] = [None] * count
    order = _topological(count, edges)
    for _ in range(count + 1):
        if not _relax(edges, order, values, parents):
            return values, parents
        if _turning(edges, parents) is not None:
            return None
    return None


def positive_cycle(count: int, edges: Sequence[Edge]) -> list[int] | None:
    """Return the vertices of a cycle of positive weight in order, or None."""
    values = [0] * count
    parents: list[int | None] = [None] * count
    order = _topological(count, edges)
    while _relax(edges, order, values, parents):
        vertex = _turning(edges, parents)
        if vertex is not None:
            return _around(edges, parents, vertex)
    return None


def _topological(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return positions of edges, by the component of their source, those that reach others first."""
    rank = [0] * count
    for position, component in enumerate(components(count, [(source, target) for source, target, _ in edges])):
        for vertex in component:
            rank[vertex] = -position
    return sorted(range(len(edges)), key=lambda position: rank[edges[position][0]])


def _relax(edges: Sequence[Edge], order: Sequence[int], values: list[int], parents: list[int | None]) -> bool:
    """Raise values along all edges once, in the given order; return whether any rose."""
    changed = False
    for position in order:
        source, target, weight = edges[position]
        if values[source] + weight > values[target]:
            values[target] = values[source] + weight
            parents[target] = position
            changed = True
    return changed


def _turning(edges: Sequence[Edge], parents: Sequence[int | None]) -> int | None:
    """Return a vertex on a cycle of last edges, if there is one: exactly then a cycle has positive weight."""
    seen = [-1] * len(parents)
    for root in range(len(parents)):
        vertex: int | None = root
        while vertex is not None and seen[vertex] < 0:
            seen[vertex] = root
            position = parents[vertex]
            vertex = None if position is None else edges[position][0]
        if vertex is not None and seen[vertex] == root:
            return vertex
    return None


def _around(edges: Sequence[Edge], parents: Sequence[int | None], vertex: int) -> list[int]:
    cycle = [vertex]
    while True:
        position = parents[cycle[-1]]
        assert position is not None
        source = edges[position][0]
        if source == vertex:
            return cycle[::-1]
        cycle.append(source)


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
