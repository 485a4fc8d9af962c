"""Identical sub-tiles: a way to look for schedules in which one runs half an interval after the other.

This only guides the search: such a schedule is one of all schedules, and its absence proves nothing.
"""

from __future__ import annotations

import re

from treadle.ir.tile.warps import WarpLoop

_NUMBER = re.compile(r"_([01])(?=\.|$)")


def half_turn(warps: WarpLoop) -> dict[str, str]:
    """Return which operation of sub-tile 1 does for it what each operation of sub-tile 0 does; empty without two.

    Names only suggest the pairs (`scores_0`, `scores_1`); dependences, units and times must agree.
    """
    swapped = {
        op.name: _NUMBER.sub(lambda found: f"_{1 - int(found.group(1))}", op.name) for op in warps.loop.operations
    }
    pairs = {name: other for name, other in swapped.items() if name != other}
    return {name: other for name, other in pairs.items() if "_0" in name} if _agrees(warps, swapped) else {}


def _agrees(warps: WarpLoop, swapped: dict[str, str]) -> bool:
    if set(swapped.values()) != set(swapped) or all(name == other for name, other in swapped.items()):
        return False
    kind = {op.name: (op.unit, op.occupancy_cycles, op.latency_cycles) for op in warps.loop.operations}
    edges = {(d.source, d.target, d.delay_cycles, d.distance) for d in warps.loop.dependences}
    turned = {(swapped[a], swapped[b], delay, distance) for a, b, delay, distance in edges}
    return edges == turned and all(kind[name] == kind[other] for name, other in swapped.items())
