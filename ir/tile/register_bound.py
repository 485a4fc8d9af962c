"""A lower bound on registers per thread that needs no search: values that must share a group and overlap in time.

Values that one operation after the other updates in place form a *chain*, which lives without a gap from its first
producer to its last reader. A chain that lives for `q` whole intervals and a rest counts `q` times always; two chains
of one group whose rests together exceed the interval must overlap at some cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from treadle.ir.tile.constraints import arcs
from treadle.ir.tile.warps import RegisterValue, WarpLoop


@dataclass(frozen=True, slots=True)
class Chain:
    """Values that take over each other's registers, and how long the registers are taken at least."""

    values: tuple[str, ...]
    registers: int
    lifetime_cycles: int


def register_bound(warps: WarpLoop, ii: int, traffic_bytes: int | None) -> tuple[int, tuple[str, ...]]:
    """Return the fewest registers per thread that the largest group needs at `ii`, and the values that say so.

    Args:
        warps: the loop with warps.
        ii: initiation interval; must satisfy every recurrence.
        traffic_bytes: bytes between groups when that is a level decided before; 0 keeps all its operations together.
    """
    together = shared_groups(warps, traffic_bytes)
    best: tuple[int, tuple[str, ...]] = (0, ())
    for leader in dict.fromkeys(together.values()):
        inside = [value for value in warps.values if together[value.producer] == leader]
        found = _of_group(warps, ii, inside, together)
        best = max(best, found, key=lambda item: item[0])
    return best[0] + warps.limits.fixed_registers, best[1]


def single_group_bound(warps: WarpLoop, ii: int) -> tuple[int, tuple[str, ...]]:
    """Return the fewest registers per thread when all operations without a role share one group, and the values."""
    free = {issue.operation for issue in warps.issues if not issue.role}
    together = {issue.operation: "" if issue.operation in free else issue.operation for issue in warps.issues}
    found, names = _of_group(warps, ii, [value for value in warps.values if value.producer in free], together)
    return found + warps.limits.fixed_registers, names


def shared_groups(warps: WarpLoop, traffic_bytes: int | None) -> dict[str, str]:
    """Return, per issued operation, a name of the operations that must share its group."""
    name = {issue.operation: issue.operation for issue in warps.issues}

    def find(operation: str) -> str:
        while name[operation] != operation:
            operation = name[operation]
        return operation

    for crossing in warps.crossings:
        if not crossing.allowed or (traffic_bytes == 0 and crossing.bytes):
            ends = warps.loop.dependences[crossing.dependence]
            name[find(ends.source)] = find(ends.target)
    return {operation: find(operation) for operation in name}


def _of_group(
    warps: WarpLoop, ii: int, values: list[RegisterValue], together: dict[str, str]
) -> tuple[int, tuple[str, ...]]:
    found = chains(warps, ii, values, together)
    always = sum(chain.registers * (chain.lifetime_cycles // ii) for chain in found)
    rests = [(chain, chain.lifetime_cycles % ii) for chain in found if chain.lifetime_cycles % ii]
    more, who = 0, tuple[Chain, ...]()
    for chain, _ in rests:
        if chain.registers > more:
            more, who = chain.registers, (chain,)
    for (one, rest), (other, rest_of_other) in combinations(rests, 2):
        if rest + rest_of_other > ii and one.registers + other.registers > more:
            more, who = one.registers + other.registers, (one, other)
    names = [name for chain in found if chain.lifetime_cycles >= ii or chain in who for name in chain.values]
    return always + more, tuple(names)


def chains(warps: WarpLoop, ii: int, values: list[RegisterValue], together: dict[str, str]) -> list[Chain]:
    """Return the chains of values that must be in one group, with their least lifetimes."""
    return [_chain(warps, ii, links, closed=closed, together=together) for links, closed in chain_links(values)]


def chain_links(values: list[RegisterValue]) -> list[tuple[list[RegisterValue], bool]]:
    """Return the chains of values of one group as (values in order, whether the last is updated into the first)."""
    by_producer = {value.producer: value for value in values}
    follows: dict[str, RegisterValue] = {}
    for value in values:
        for reader in value.readers:
            after = by_producer.get(reader.operation)
            if reader.hold_cycles == 0 and after is not None and after.registers == value.registers:
                follows.setdefault(value.name, after)
    heads = [value for value in values if value.name not in {after.name for after in follows.values()}]
    found: list[tuple[list[RegisterValue], bool]] = []
    left = {value.name for value in values}
    for value in [*heads, *values]:
        if value.name not in left:
            continue
        links = [value]
        left.discard(value.name)
        while (after := follows.get(links[-1].name)) is not None and after.name in left:
            links.append(after)
            left.discard(after.name)
        found.append((links, after is value))
    return found


def _chain(warps: WarpLoop, ii: int, links: list[RegisterValue], *, closed: bool, together: dict[str, str]) -> Chain:
    """A closed chain (an accumulator updated in place) lives for as many intervals as its cycle has distance."""
    if closed:
        names = tuple(value.name for value in links)
        return Chain(names, links[0].registers, ii * max(1, closed_distance(links)))
    reach = _reach(warps, ii, warps.loop.index[links[0].producer])
    home = together[links[0].producer]
    least = 0
    for value in links:
        for reader in value.readers:
            path = reach[warps.loop.index[reader.operation]]
            if path is None:
                continue
            stay = path + reader.hold_cycles + ii * reader.distance
            # A reader that may be elsewhere releases the value, at the earliest, when it is handed over.
            least = max(least, stay if together[reader.operation] == home else min(stay, value.handoff_cycles))
    return Chain(tuple(value.name for value in links), links[0].registers, least)


def closed_distance(links: list[RegisterValue]) -> int:
    """Return the iterations that a closed chain goes around: the distances of its updates in place."""
    producers = {value.producer for value in links}
    return sum(
        reader.distance
        for value in links
        for reader in value.readers
        if reader.operation in producers and reader.hold_cycles == 0
    )


def _reach(warps: WarpLoop, ii: int, origin: int) -> list[int | None]:
    """Return longest paths from one operation at `ii`; None where there is none."""
    values: list[int | None] = [None] * len(warps.loop.operations)
    values[origin] = 0
    every = arcs(warps.loop)
    for _ in range(len(values) + 1):
        changed = False
        for arc in every:
            start, there = values[arc.source], values[arc.target]
            if start is not None and (there is None or start + arc.delay_cycles - ii * arc.distance > there):
                values[arc.target] = start + arc.delay_cycles - ii * arc.distance
                changed = True
        if not changed:
            break
    return values
