"""Copies as late as they can be: the same schedule, with fewer slots of rings in use.

A search has no reason to start a copy late where no level pays for it, but the slots that early copies hold are those
that values handed between groups find no room in. Copies move by whole intervals, so that whatever was free stays free.
"""

from __future__ import annotations

from treadle.ir.tile.assignments import assigned_arcs
from treadle.ir.tile.warps import WarpLoop, check_warps
from treadle.solvers.modulo.network import Network
from treadle.solvers.modulo.place import normalized
from treadle.solvers.pipeline.points import Point, value_at, warp_schedule


def with_late_copies(warps: WarpLoop, network: Network, ii: int, point: Point, levels: tuple[str, ...]) -> Point:
    """Return the schedule with operations of roles moved later; the given one where that is illegal or worth less."""
    index, starts = warps.loop.index, list(point.starts)
    copies = sorted((index[issue.operation] for issue in warps.issues if issue.role), key=lambda v: -starts[v])
    every = assigned_arcs(warps, point.groups)
    for vertex in copies:
        latest = [
            starts[arc.target] - arc.delay_cycles + ii * arc.distance
            for arc in every
            if arc.source == vertex and arc.target != vertex and arc.reference.get("ring") is None
        ]
        if latest and min(latest) > starts[vertex]:
            starts[vertex] += (min(latest) - starts[vertex]) // ii * ii
    moved = Point(tuple(normalized(starts)), point.groups)
    if moved == point or check_warps(warps, warp_schedule(warps, network, ii, moved)):
        return point
    before, after = ([value_at(warps, network, ii, name, each) for name in levels] for each in (point, moved))
    return moved if after <= before else point
