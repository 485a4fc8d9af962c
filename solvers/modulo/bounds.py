"""Bounds that need no search: resources, recurrences and memory for the interval; paths and units for the length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from treadle.ir.certificate import ProofKind
from treadle.ir.tile.constraints import Arc, depth_limit, free_bytes
from treadle.ir.tile.loop import Ring
from treadle.solvers.modulo.network import Network, heads, tails


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound with the evidence a checker recomputes it from."""

    value: int
    proof: ProofKind
    evidence: dict[str, Any] = field(default_factory=dict[str, Any])


def resource_bounds(network: Network) -> list[Bound]:
    """Return ceil(occupied cycles / instances) of every limited unit, largest first."""
    found: list[Bound] = []
    for name, count, users in zip(network.unit_names, network.counts, network.users, strict=True):
        if users:
            occupied = sum(network.occupancy[vertex] for vertex in users)
            evidence = {"unit": name, "occupied_cycles": occupied, "instances": count}
            found.append(Bound(-(-occupied // count), ProofKind.RESOURCE, evidence))
    return sorted(found, key=lambda bound: -bound.value)


def recurrence_bound(network: Network, least: int = 1) -> Bound | None:
    """Return the largest ceil(delay / distance) over all cycles if it exceeds `least`, with the cycle as witness.

    Starting at `least`, every positive cycle found raises the interval to its own ratio until none is left, so the last
    cycle attains the maximum.

    Raises:
        EndlessRecurrence: a positive cycle of distance 0 or less, which no interval satisfies.
    """
    best: Bound | None = None
    interval = least
    for component in network.cyclic:
        while cycle := _positive_cycle(network, interval, component):
            delay = sum(arc.delay_cycles for arc in cycle)
            distance = sum(arc.distance for arc in cycle)
            if distance <= 0:
                raise EndlessRecurrence(cycle)
            interval = -(-delay // distance)
            best = Bound(interval, ProofKind.RECURRENCE, {"cycle": [arc.reference for arc in cycle]})
    return best


class EndlessRecurrence(Exception):
    """A cycle that no interval satisfies; caught by `solve`, which says it in the user's words."""

    def __init__(self, cycle: list[Arc]) -> None:
        super().__init__("no interval satisfies this cycle")
        self.cycle = cycle


def _positive_cycle(network: Network, ii: int, component: tuple[int, ...]) -> list[Arc] | None:
    """Return the arcs of a positive cycle inside a component, or None (Bellman-Ford, parents walked now and then)."""
    home = network.component_of[component[0]]
    inner = [
        (arc.source, arc.target, arc.delay_cycles - ii * arc.distance, arc)
        for vertex in component
        for position in network.outgoing[vertex]
        if network.component_of[(arc := network.arcs[position]).target] == home
    ]
    values = dict.fromkeys(component, 0)
    parents: dict[int, Arc] = {}
    for round_number in range(len(component) + 1):
        changed = False
        for source, target, weight, arc in inner:
            reach = values[source] + weight
            if reach > values[target]:
                values[target] = reach
                parents[target] = arc
                changed = True
        if not changed:
            return None
        if round_number & (round_number + 1) == 0 or round_number % 16 == 15:
            cycle = _cycle_of_parents(parents)
            if cycle:
                return cycle
    return _cycle_of_parents(parents)


def _cycle_of_parents(parents: dict[int, Arc]) -> list[Arc] | None:
    colour: dict[int, int] = {}
    for root in parents:
        vertex, walk = root, []
        while vertex in parents and vertex not in colour:
            colour[vertex] = root
            walk.append(vertex)
            vertex = parents[vertex].source
        if vertex in colour and colour[vertex] == root and vertex in walk:
            cycle = [parents[vertex]]
            while cycle[-1].source != vertex:
                cycle.append(parents[cycle[-1].source])
            return cycle[::-1]
    return None


def least_depth(network: Network, ring: Ring, ii: int, from_producer: list[int]) -> int:
    """Return the fewest slots a ring needs at `ii`, given longest paths from its producer (unreached: very small)."""
    index = network.loop.index
    need = max(
        from_producer[index[reader.operation]] + reader.hold_cycles + ii * reader.distance for reader in ring.readers
    )
    return max(1, -(-need // ii))


def depth_bounds(network: Network, ii: int) -> dict[str, int]:
    """Return the fewest slots of every ring at `ii`; `ii` must satisfy all recurrences."""
    found: dict[str, int] = {}
    for ring in network.loop.rings:
        reach = heads(network, ii, {network.loop.index[ring.producer]: 0})
        assert reach is not None
        found[ring.name] = least_depth(network, ring, ii, reach)
    return found


def memory_fits(network: Network, ii: int) -> bool:
    """Whether the fewest slots of all rings fit every memory at `ii`."""
    return not overfull_memories(network, depth_bounds(network, ii))


def overfull_memories(network: Network, depths: dict[str, int]) -> list[str]:
    """Return the memories that ring depths exceed."""
    loop = network.loop
    return [
        capacity.memory
        for capacity in loop.capacities
        if sum(ring.slot_bytes * depths[ring.name] for ring in loop.rings if ring.memory == capacity.memory)
        > free_bytes(loop, capacity.memory)
    ]


def capacity_bound(network: Network, least: int, ceiling: int) -> Bound | None:
    """Return the least interval at which the fewest ring slots fit the memories, if that is above `least`.

    Bisection: the slots a ring needs never grow with the interval. Returns None when `ceiling` does not fit either.
    """
    if memory_fits(network, least):
        return None
    low, high = least, ceiling
    if not memory_fits(network, high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if memory_fits(network, middle) else (middle, high)
    overfull = overfull_memories(network, depth_bounds(network, low))
    return Bound(high, ProofKind.CAPACITY, {"memory": overfull[0]})


def length_bounds(network: Network, ii: int) -> list[Bound]:
    """Return lower bounds on the length of one iteration at `ii`, largest first: the longest path, then units."""
    head, tail = heads(network, ii), tails(network, ii)
    assert head is not None
    found = [Bound(max(h + t for h, t in zip(head, tail, strict=True)), ProofKind.RECURRENCE, {"interval": ii})]
    for name, count, users in zip(network.unit_names, network.counts, network.users, strict=True):
        bound = _unit_length_bound(network, users, count, head, tail)
        if bound:
            value, earliest, remaining, work = bound
            evidence = {"interval": ii, "unit": name, "instances": count, "earliest": earliest, "remaining": remaining}
            found.append(Bound(value, ProofKind.RESOURCE, evidence | {"work_cycles": work}))
    return sorted(found, key=lambda bound: -bound.value)


def _unit_length_bound(
    network: Network, users: tuple[int, ...], count: int, head: list[int], tail: list[int]
) -> tuple[int, int, int, int] | None:
    """Return the best of earliest + ceil(work / count) + remaining over sets of operations of one unit.

    The set for (earliest, remaining) holds the operations that start at `earliest` or later and still need `remaining`
    cycles after they leave the unit.
    """
    after = {vertex: tail[vertex] - network.occupancy[vertex] for vertex in users}
    by_tail = sorted(users, key=lambda vertex: -after[vertex])
    best: tuple[int, int, int, int] | None = None
    for earliest in sorted({head[vertex] for vertex in users}):
        work = 0
        for vertex in by_tail:
            if head[vertex] >= earliest:
                work += network.occupancy[vertex]
                value = earliest - (-work // count) + after[vertex]
                if best is None or value > best[0] or (value, earliest, after[vertex]) == best[:3]:
                    best = (value, earliest, after[vertex], work)
    return best


def ring_limits(network: Network) -> dict[str, int]:
    """Return the greatest depth of every ring."""
    return {ring.name: depth_limit(network.loop, ring) for ring in network.loop.rings}
