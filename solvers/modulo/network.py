"""A loop as arrays: arcs by operation index, units, strongly connected components, longest paths at an interval."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property

from treadle.ir.tile.constraints import Arc, arcs
from treadle.ir.tile.cycles import components
from treadle.ir.tile.loop import Loop


@dataclass(frozen=True)
class Network:
    """The loop's difference constraints, rings at their greatest depth, and its limited units.

    `users[u]` are the operations of limited unit `u` that occupy it; `counts[u]` its instances.
    """

    loop: Loop
    arcs: tuple[Arc, ...]
    occupancy: tuple[int, ...]
    latency: tuple[int, ...]
    unit_names: tuple[str, ...]
    counts: tuple[int, ...]
    users: tuple[tuple[int, ...], ...]
    unit_of: tuple[int | None, ...]
    """Limited unit of every operation; None for unlimited units and operations without occupancy."""

    @property
    def size(self) -> int:
        """Number of operations."""
        return len(self.occupancy)

    @cached_property
    def components(self) -> tuple[tuple[int, ...], ...]:
        """Strongly connected components in topological order."""
        found = components(self.size, [(arc.source, arc.target) for arc in self.arcs])
        return tuple(tuple(sorted(component)) for component in reversed(found))

    @cached_property
    def component_of(self) -> tuple[int, ...]:
        """Position in `components` of every operation."""
        where = [0] * self.size
        for position, component in enumerate(self.components):
            for vertex in component:
                where[vertex] = position
        return tuple(where)

    @cached_property
    def cyclic(self) -> tuple[tuple[int, ...], ...]:
        """Components that constrain the interval: more than one operation, or an arc onto itself."""
        looped = {arc.source for arc in self.arcs if arc.source == arc.target}
        return tuple(c for c in self.components if len(c) > 1 or not looped.isdisjoint(c))

    @cached_property
    def inner_arcs(self) -> tuple[int, ...]:
        """Positions of the arcs inside components, the only ones that constrain the interval."""
        return tuple(
            position
            for position, arc in enumerate(self.arcs)
            if self.component_of[arc.source] == self.component_of[arc.target]
        )

    @cached_property
    def outgoing(self) -> tuple[tuple[int, ...], ...]:
        """Positions of the arcs that leave every operation."""
        found: list[list[int]] = [[] for _ in range(self.size)]
        for position, arc in enumerate(self.arcs):
            found[arc.source].append(position)
        return tuple(tuple(positions) for positions in found)

    @cached_property
    def incoming(self) -> tuple[tuple[int, ...], ...]:
        """Positions of the arcs that enter every operation."""
        found: list[list[int]] = [[] for _ in range(self.size)]
        for position, arc in enumerate(self.arcs):
            found[arc.target].append(position)
        return tuple(tuple(positions) for positions in found)


def network_of(loop: Loop) -> Network:
    """Return the arrays of a loop."""
    limited = [unit for unit in loop.units if unit.count is not None]
    position = {unit.name: index for index, unit in enumerate(limited)}
    unit_of = tuple(position.get(op.unit) if op.occupancy_cycles else None for op in loop.operations)
    users: list[list[int]] = [[] for _ in limited]
    for vertex, unit in enumerate(unit_of):
        if unit is not None:
            users[unit].append(vertex)
    return Network(
        loop=loop,
        arcs=arcs(loop),
        occupancy=tuple(op.occupancy_cycles for op in loop.operations),
        latency=tuple(op.latency_cycles for op in loop.operations),
        unit_names=tuple(unit.name for unit in limited),
        counts=tuple(unit.count for unit in limited if unit.count is not None),
        users=tuple(tuple(vertices) for vertices in users),
        unit_of=unit_of,
    )


def heads(network: Network, ii: int, origin: dict[int, int] | None = None) -> list[int] | None:
    """Return the earliest starts at interval `ii`, or None when a recurrence forbids it.

    Args:
        network: the loop.
        ii: initiation interval in cycles.
        origin: start values of the sources (every operation at 0 by default); operations they do not reach stay at the
            least value.

    Queue-based longest paths over the components in topological order; a chain longer than the component is a positive
    cycle.
    """
    values = [0] * network.size
    if origin is not None:
        values = [_UNREACHED] * network.size
        for vertex, value in origin.items():
            values[vertex] = value
    for component in network.components:
        if not _settle(network, ii, component, values):
            return None
        for vertex in component:
            if values[vertex] == _UNREACHED:
                continue
            for position in network.outgoing[vertex]:
                arc = network.arcs[position]
                reach = values[vertex] + arc.delay_cycles - ii * arc.distance
                if reach > values[arc.target]:
                    values[arc.target] = reach
    return values


_UNREACHED = -(10**15)


def _settle(network: Network, ii: int, component: tuple[int, ...], values: list[int]) -> bool:
    """Make the values of one component final; False when they grow without end."""
    if len(component) == 1:
        vertex = component[0]
        return not any(
            network.arcs[position].target == vertex
            and network.arcs[position].delay_cycles > ii * network.arcs[position].distance
            for position in network.outgoing[vertex]
        )
    home = network.component_of[component[0]]
    depth = dict.fromkeys(component, 0)
    queue = deque(vertex for vertex in component if values[vertex] != _UNREACHED)
    queued = set(queue)
    while queue:
        vertex = queue.popleft()
        queued.discard(vertex)
        for position in network.outgoing[vertex]:
            arc = network.arcs[position]
            if network.component_of[arc.target] != home:
                continue
            reach = values[vertex] + arc.delay_cycles - ii * arc.distance
            if reach > values[arc.target]:
                values[arc.target] = reach
                depth[arc.target] = depth[vertex] + 1
                if depth[arc.target] > len(component):
                    return False
                if arc.target not in queued:
                    queued.add(arc.target)
                    queue.append(arc.target)
    return True


def tails(network: Network, ii: int) -> list[int]:
    """Return, per operation, the least time from its start to the end of the iteration; `ii` must admit a schedule."""
    values = list(network.latency)
    for component in reversed(network.components):
        changed = True
        while changed:
            changed = False
            for vertex in component:
                for position in network.outgoing[vertex]:
                    arc = network.arcs[position]
                    need = values[arc.target] + arc.delay_cycles - ii * arc.distance
                    if need > values[vertex]:
                        values[vertex] = need
                        changed = len(component) > 1
    return values
