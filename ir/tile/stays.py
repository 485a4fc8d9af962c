"""How long values can stay in registers: what their group has, times the interval, less what all others need at least.

Registers times cycles of all stays of a group are at most its registers times the interval. That leaves each stay what
the least lengths of all others do not take, and so ties a value's readers to its producer from above.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from treadle.ir.tile.assignments import classes
from treadle.ir.tile.constraints import Arc, arcs
from treadle.ir.tile.register_bound import chain_links, closed_distance
from treadle.ir.tile.register_peaks import Reach
from treadle.ir.tile.warps import FETCH_CYCLES, RegisterValue, WarpLoop


def homes_of(warps: WarpLoop, groups: Mapping[str, int] | None) -> dict[str, int]:
    """Return a number for every issued operation: its group, or that of the operations it must stay together with."""
    if groups is not None:
        return {issue.operation: groups[issue.operation] for issue in warps.issues}
    return {name: number for number, names in enumerate(classes(warps)) for name in names}


def stay_arcs(
    warps: WarpLoop, ii: int, groups: Mapping[str, int] | None, most_registers: int | None = None
) -> list[Arc] | None:
    """Return arcs from readers of values back to producers in the same group; None where least stays overfill one.

    Args:
        warps: the loop; `ii` satisfies every recurrence.
        ii: initiation interval; the arcs hold at it alone.
        groups: of the issued operations; without, only of those that must stay together it is known that they do.
        most_registers: of any group, the fixed ones included.
    """
    limits = warps.limits
    most = limits.registers_per_group if most_registers is None else most_registers
    room = (most - limits.fixed_registers) * ii
    home = homes_of(warps, groups)
    roles = {home[issue.operation] for issue in warps.issues if issue.role}
    reach = Reach(warps, list(arcs(warps.loop)), ii)
    by_home: dict[int, list[RegisterValue]] = defaultdict(list)
    for value in warps.values:
        by_home[home[value.producer]].append(value)
    found: list[Arc] = []
    for number, values in by_home.items():
        if number in roles:
            continue
        rounds = _rounds(values)
        least = {v.name: _least(v, home, reach, ii, known=groups is not None) for v in values if v.name not in rounds}
        left = room - sum(rounds.values()) * ii - _visits(warps, home, number, known=groups is not None)
        left -= sum(value.registers * least.get(value.name, 0) for value in values)
        if left < 0:
            return None
        for value in values:
            longest = least[value.name] + left // value.registers if value.name in least else None
            found += [] if longest is None else _back(warps, value, home, ii, longest)
    return found


def _rounds(values: list[RegisterValue]) -> dict[str, int]:
    """Return registers of the values that are updated in place all the way round, which are always there."""
    found: dict[str, int] = {}
    for links, closed in chain_links(values):
        if closed:
            found |= {value.name: 0 for value in links}
            found[links[0].name] = links[0].registers * max(1, closed_distance(links))
    return found


def _least(value: RegisterValue, home: dict[str, int], reach: Reach, ii: int, *, known: bool) -> int:
    least = 0
    for reader in value.readers:
        path = reach(value.producer, reader.operation)
        if home[reader.operation] == home[value.producer]:
            least = max(least, 0 if path is None else path + reader.hold_cycles + ii * reader.distance)
        elif known:
            least = max(least, value.handoff_cycles)
    return least


def _visits(warps: WarpLoop, home: dict[str, int], number: int, *, known: bool) -> int:
    """Registers times cycles of values that other groups hand over, from when they are fetched until they are read."""
    if not known:
        return 0
    return sum(
        value.registers * (reader.hold_cycles + FETCH_CYCLES)
        for value in warps.values
        for reader in value.readers
        if home[value.producer] != number and home[reader.operation] == number
    )


def _back(warps: WarpLoop, value: RegisterValue, home: dict[str, int], ii: int, longest: int) -> list[Arc]:
    index = warps.loop.index
    return [
        Arc(index[r.operation], index[value.producer], r.hold_cycles + ii * r.distance - longest, 0, {})
        for r in value.readers
        if home[r.operation] == home[value.producer] and r.operation != value.producer
    ]
