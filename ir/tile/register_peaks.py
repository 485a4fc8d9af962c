"""Lower bounds on registers per thread of every group of one assignment, whatever the times are.

A chain of values that take over each other's registers lives for `q` whole intervals and a rest: it counts `q` times
always. Beyond that, five arguments: chains whose rests add up to more than all but one interval overlap at some cycle;
what an operation reads and writes is there when it starts; all its operands are there just before, what it fetches from
other groups included; with them is what stays for all but the cycles in which it keeps its group from making anything
anew; and the peak is not below the average.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

from treadle.ir.tile.constraints import Arc
from treadle.ir.tile.register_bound import Chain, chain_links, closed_distance
from treadle.ir.tile.warps import FETCH_CYCLES, RegisterValue, WarpLoop

LARGEST_SET = 4
"""Chains that are tried together."""


def least_peaks(
    warps: WarpLoop, groups: dict[str, int], arcs: list[Arc], ii: int, from_ii: int | None = None
) -> dict[int, int]:
    """Return the fewest registers of every group without a role, fixed ones included.

    Args:
        warps: the loop with warps.
        groups: group of every issued operation.
        arcs: of the loop with the delays of crossings.
        ii: initiation interval; satisfies every recurrence.
        from_ii: the registers are then the fewest at all intervals from this one to `ii`.
    """
    roles = {groups[issue.operation] for issue in warps.issues if issue.role}
    reach = Reach(warps, arcs, ii)
    free = sorted(set(groups.values()) - roles)
    return {group: least_peak(warps, groups, group, reach, ii, from_ii) for group in free}


class Reach:
    """Longest paths from one operation, each origin once."""

    def __init__(self, warps: WarpLoop, arcs: list[Arc], ii: int) -> None:
        self._count = len(warps.loop.operations)
        self._index = warps.loop.index
        self._weights = [(arc.source, arc.target, arc.delay_cycles - ii * arc.distance) for arc in arcs]
        self._known: dict[str, list[int | None]] = {}

    def __call__(self, origin: str, target: str) -> int | None:
        """Return the longest path between two operations, None where there is none."""
        if origin not in self._known:
            self._known[origin] = self._from(self._index[origin])
        return self._known[origin][self._index[target]]

    def _from(self, origin: int) -> list[int | None]:
        values: list[int | None] = [None] * self._count
        values[origin] = 0
        changed = True
        while changed:
            changed = False
            for source, target, weight in self._weights:
                start, there = values[source], values[target]
                if start is not None and (there is None or start + weight > there):
                    values[target] = start + weight
                    changed = True
        return values


def least_peak(
    warps: WarpLoop, groups: dict[str, int], group: int, reach: Reach, ii: int, from_ii: int | None = None
) -> int:
    """Return the fewest registers of one group; operations without a group yet are left out.

    Paths get no longer with the interval, waits of readers for later iterations no shorter: over a range of intervals
    both are taken at their ends, and everything else at the longest interval.
    """
    inside = [value for value in warps.values if groups.get(value.producer) == group]
    low = ii if from_ii is None else from_ii
    found = [_chain(links, closed, groups, group, reach, (low, ii)) for links, closed in chain_links(inside)]
    always = sum(chain.registers * (chain.lifetime_cycles // ii) for chain in found)
    together = max((_overlap(chosen, ii) for chosen in _sets(found, ii)), default=0)
    around = max(_around_starts(warps, groups, group, found, reach, ii), default=0)
    volume = sum(chain.registers * chain.lifetime_cycles for chain in found) + sum(
        value.registers * (reader.hold_cycles + FETCH_CYCLES)
        for value in warps.values
        for reader in value.readers
        if groups.get(value.producer, group) != group and groups.get(reader.operation) == group
    )
    return max(always + together, always + _crowd(found, ii), around, -(-volume // ii)) + warps.limits.fixed_registers


def _crowd(found: list[Chain], ii: int) -> int:
    """Stays on a circle that add up to more than `m` turns are somewhere `m + 1` at once, at least the least."""
    most, rests = 0, 0
    sizes: list[int] = []
    for chain in sorted(found, key=lambda chain: -chain.registers):
        if chain.lifetime_cycles % ii == 0:
            continue
        rests += chain.lifetime_cycles % ii
        sizes.append(chain.registers)
        at_once = -(-rests // ii)
        most = max(most, sum(sizes[-at_once:]))
    return most


def _sets(found: list[Chain], ii: int) -> list[tuple[Chain, ...]]:
    rests = sorted((c for c in found if c.lifetime_cycles % ii), key=lambda c: -(c.lifetime_cycles % ii))[:8]
    return [chosen for size in range(1, LARGEST_SET + 1) for chosen in combinations(rests, size)]


def _overlap(chosen: tuple[Chain, ...], ii: int) -> int:
    """Stays on a circle that add up to more than all but one turn cover some cycle together."""
    rests = sum(chain.lifetime_cycles % ii for chain in chosen)
    return sum(chain.registers for chain in chosen) if rests > (len(chosen) - 1) * ii else 0


def _around_starts(
    warps: WarpLoop, groups: dict[str, int], group: int, found: list[Chain], reach: Reach, ii: int
) -> Iterator[int]:
    """Yield the registers when each operation of a group starts, and just before, with all that stays anyway.

    When it starts: operands it holds, and its result. Just before: all its operands, those of other groups fetched.
    Its group makes no other value while it issues it, so what stays for all but that time is there in both moments.
    """
    issue = {one.operation: one.issue_cycles for one in warps.issues if groups.get(one.operation) == group}
    chain_of = {name: chain for chain in found for name in chain.values}
    always = sum(chain.registers * (chain.lifetime_cycles // ii) for chain in found)
    held, read, made = (defaultdict[str, list[RegisterValue]](list) for _ in range(3))
    for value in warps.values:
        made[value.producer].append(value)
        for name in {reader.operation for reader in value.readers}:
            read[name].append(value)
        for name in {reader.operation for reader in value.readers if reader.hold_cycles > 0}:
            held[name].append(value)

    def more(names: Iterable[str]) -> int:
        """Return the registers of the chains of values beyond those that count always."""
        chains = {id(chain): chain for name in names if (chain := chain_of.get(name)) is not None}
        return sum(chain.registers for chain in chains.values() if chain.lifetime_cycles < ii)

    def elsewhere(values: list[RegisterValue]) -> int:
        return sum(value.registers for value in values if groups.get(value.producer, group) != group)

    producer = {value.name: value.producer for value in warps.values}
    longest = max(issue.values(), default=0)
    begins = [(c.lifetime_cycles, c.values[0]) for c in found if ii - longest <= c.lifetime_cycles < ii]
    begins = [(cycles, first) for cycles, first in begins if issue.get(producer[first], 0) > 0]

    def staying(name: str, least_cycles: int) -> list[str]:
        """Return the first value of every chain that stays so long and begins with another operation."""
        if not begins or issue[name] == 0:
            return []
        return [first for cycles, first in begins if cycles >= least_cycles and producer[first] != name]

    for name, cycles in issue.items():
        own = [v.name for v in made[name] if v.name in chain_of and chain_of[v.name].lifetime_cycles > 0]
        beside = staying(name, ii - cycles + 1)
        yield always + more([*(value.name for value in held[name]), *own, *beside]) + elsewhere(held[name])
        there = [v.name for v in read[name] if (path := reach(v.producer, name)) is not None and path >= FETCH_CYCLES]
        there += staying(name, ii - cycles)
        yield always + more(there) + elsewhere(read[name])


def _chain(
    links: list[RegisterValue],
    closed: bool,
    groups: dict[str, int],
    group: int,
    reach: Reach,
    intervals: tuple[int, int],
) -> Chain:
    names = tuple(value.name for value in links)
    low, high = intervals
    if closed:
        return Chain(names, links[0].registers, high * max(1, closed_distance(links)))
    least = 0
    for value in links:
        for reader in value.readers:
            path = reach(links[0].producer, reader.operation)
            own = reach(links[0].producer, value.producer)
            home = groups.get(reader.operation)
            if home == group and path is not None:
                least = max(least, path + reader.hold_cycles + low * reader.distance)
            elif home not in (None, group) and own is not None:
                least = max(least, own + value.handoff_cycles)
            elif home is None and own is not None and path is not None:
                stays = path + reader.hold_cycles + low * reader.distance
                least = max(least, min(stays, own + value.handoff_cycles))
    return Chain(names, links[0].registers, least)
