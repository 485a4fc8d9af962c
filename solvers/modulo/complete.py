"""From a scheduled core to a whole schedule: components in topological order, moved by whole intervals."""

from __future__ import annotations

from treadle.solvers.modulo.network import Network
from treadle.solvers.modulo.place import normalized, reservations


def complete(network: Network, ii: int, core: dict[int, int], slots: dict[int, int]) -> list[int]:
    """Return starts of all operations.

    Args:
        network: the loop.
        ii: initiation interval.
        core: starts of the operations of cyclic components, legal relative to one another within each component.
        slots: modulo slots of operations outside the components whose slot is decided already.

    A component keeps its inner differences and its slots, and moves by whole intervals until all its operands are
    there; other operations take the first free slot, of which there is one since all occupancies of their unit are 1.
    """
    units = reservations(network, ii)
    for vertex, start in (core | slots).items():
        unit = network.unit_of[vertex]
        if unit is not None:
            units[unit].add(vertex, start, network.occupancy[vertex])
    starts = [0] * network.size
    for component in network.components:
        early = {vertex: _earliest(network, ii, starts, vertex) for vertex in component}
        if component[0] in core:
            shift = max(-(-(early[vertex] - core[vertex]) // ii) for vertex in component)
            for vertex in component:
                starts[vertex] = core[vertex] + shift * ii
            continue
        (vertex,) = component
        starts[vertex] = early[vertex]
        unit = network.unit_of[vertex]
        if vertex in slots:
            starts[vertex] += (slots[vertex] - early[vertex]) % ii
        elif unit is not None:
            found = units[unit].first_fit(early[vertex], early[vertex] + ii - 1, network.occupancy[vertex])
            assert found is not None, "the resource bound leaves a slot for every operation"
            starts[vertex] = found
            units[unit].add(vertex, found, network.occupancy[vertex])
    return normalized(starts)


def _earliest(network: Network, ii: int, starts: list[int], vertex: int) -> int:
    home = network.component_of[vertex]
    reach = [
        starts[arc.source] + arc.delay_cycles - ii * arc.distance
        for position in network.incoming[vertex]
        if network.component_of[(arc := network.arcs[position]).source] != home
    ]
    return max([0, *reach])
