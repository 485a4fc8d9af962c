"""Identical sub-tiles: what exchanges them, and schedules in which one runs half an interval after the other.

Half a turn only guides the search: such a schedule is one of all schedules, and its absence proves nothing. A mirror
proves: it maps all that a loop states onto itself, and so schedules onto schedules that are worth the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import replace

from treadle.ir.tile.loop import Reader
from treadle.ir.tile.warps import WarpLoop

_NUMBER = re.compile(r"_([01])(?=\.|$)")


def half_turn(warps: WarpLoop) -> dict[str, str]:
    """Return which operation of sub-tile 1 does for it what each operation of sub-tile 0 does; empty without two.

    Names only suggest the pairs (`scores_0`, `scores_1`); dependences, units and times must agree.
    """
    swapped = _swapped(warps)
    pairs = {name: other for name, other in swapped.items() if name != other}
    return {name: other for name, other in pairs.items() if "_0" in name} if _agrees(warps, swapped) else {}


def mirror(warps: WarpLoop) -> dict[str, str]:
    """Return, for every operation, the one that takes its place where two equal sub-tiles are exchanged.

    All that is stated of the loop is the same after the exchange: units and times, dependences and what it costs to
    cross, issue, registers, rings, handoffs and flights. Empty where there is no such exchange.
    """
    swapped = _swapped(warps)
    if not _agrees(warps, swapped):
        return {}
    unmoved = {name: name for name in swapped}
    return swapped if _stated(warps, swapped) == _stated(warps, unmoved) else {}


def _swapped(warps: WarpLoop) -> dict[str, str]:
    return {op.name: _NUMBER.sub(lambda found: f"_{1 - int(found.group(1))}", op.name) for op in warps.loop.operations}


def _agrees(warps: WarpLoop, swapped: Mapping[str, str]) -> bool:
    if set(swapped.values()) != set(swapped) or all(name == other for name, other in swapped.items()):
        return False
    kind = {op.name: (op.unit, op.occupancy_cycles, op.latency_cycles) for op in warps.loop.operations}
    edges = {(d.source, d.target, d.delay_cycles, d.distance) for d in warps.loop.dependences}
    turned = {(swapped[a], swapped[b], delay, distance) for a, b, delay, distance in edges}
    return edges == turned and all(kind[name] == kind[other] for name, other in swapped.items())


def _stated(warps: WarpLoop, named: Mapping[str, str]) -> Counter[Hashable]:
    """Return all that is stated of the operations of a loop, each under another name; order means nothing."""

    def reading(readers: tuple[Reader, ...]) -> Hashable:
        return frozenset(Counter(replace(reader, operation=named[reader.operation]) for reader in readers).items())

    loop = warps.loop
    ends = [(named[d.source], named[d.target], d.delay_cycles, d.distance) for d in loop.dependences]
    found: Counter[Hashable] = Counter(replace(operation, name=named[operation.name]) for operation in loop.operations)
    found.update(ends)
    found.update((replace(c, dependence=0), ends[c.dependence]) for c in warps.crossings)
    found.update(replace(issue, operation=named[issue.operation]) for issue in warps.issues)
    found.update((v.registers, v.handoff_cycles, named[v.producer], reading(v.readers)) for v in warps.values)
    found.update((r.memory, r.slot_bytes, r.max_depth, named[r.producer], reading(r.readers)) for r in loop.rings)
    for handoff in warps.handoffs:
        targets = frozenset(named[name] for name in handoff.targets)
        found[replace(handoff, source=named[handoff.source], targets=()), targets] += 1
    for limit in warps.limits.flights:
        shares = frozenset((named[name], share) for name, share in limit.operations if name in named)
        found[limit.name, limit.most, limit.per_group, shares] += 1
    return found
