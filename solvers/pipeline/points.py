"""Solutions in raw form: read from an outcome, given back as a hint, and what they are worth at each level."""

from __future__ import annotations

from dataclasses import dataclass

from ortools.sat.python import cp_model

from treadle.ir.tile.schedule import Schedule, length_of
from treadle.ir.tile.warp_claims import value_of
from treadle.ir.tile.warps import WarpLoop, WarpSchedule, register_peaks
from treadle.solvers.backend import Outcome
from treadle.solvers.modulo.bounds import depth_bounds
from treadle.solvers.modulo.interval import depths_of
from treadle.solvers.modulo.network import Network
from treadle.solvers.modulo.place import normalized
from treadle.solvers.pipeline.model import Joint


@dataclass(frozen=True, slots=True)
class Point:
    """A solution in raw form: starts by vertex, groups by operation."""

    starts: tuple[int, ...]
    groups: dict[str, int]


def value_at(warps: WarpLoop, network: Network, ii: int, name: str, point: Point) -> int:
    """Return what a solution is worth at a level."""
    return value_of(warps, warp_schedule(warps, network, ii, point), name)


def hint(joint: Joint, point: Point) -> list[tuple[cp_model.IntVar, int]]:
    """Return a solution as values to try first, turned as the model wants it."""
    turn = 0 if joint.anchor is None else -point.starts[joint.anchor] % joint.base.ii
    hints = {variable.index: (variable, point.starts[vertex] + turn) for vertex, variable in joint.base.starts.items()}
    for (name, group), variable in joint.inside.items():
        hints[variable.index] = (variable, int(point.groups[name] == group))
    return list(hints.values())


def read(joint: Joint, outcome: Outcome) -> Point:
    """Return the solution of an outcome, counted from its first operation."""
    starts = normalized([outcome[joint.base.starts[vertex]] for vertex in range(joint.base.network.size)])
    groups = {name: group for (name, group), inside in joint.inside.items() if outcome[inside]}
    return Point(tuple(starts), groups)


def warp_schedule(warps: WarpLoop, network: Network, ii: int, point: Point) -> WarpSchedule:
    """Return the schedule of a solution, with ring depths and register peaks counted."""
    loop = warps.loop
    starts = {op.name: start for op, start in zip(loop.operations, point.starts, strict=True)}
    depths = {
        name: max(depth, least)
        for (name, depth), least in zip(
            depths_of(network, ii, point.starts).items(), depth_bounds(network, ii).values(), strict=True
        )
    }
    made = Schedule(loop.name, ii, starts, length_of(loop, starts), depths)
    peaks = register_peaks(warps, made, point.groups)
    roles = {point.groups[issue.operation] for issue in warps.issues if issue.role}
    registers = tuple(warps.limits.role_registers if group in roles else peaks[group] for group in sorted(peaks))
    return WarpSchedule(made, point.groups, registers)
