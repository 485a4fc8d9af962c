"""Levels of a schedule that was not made level by level, with the bounds that need no search."""

from __future__ import annotations

from treadle.ir.certificate import Level, Status
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.modulo.network import Network
from treadle.solvers.pipeline.bounds import forced_bound, group_bound, length_bound, register_bound, wait_bound
from treadle.solvers.pipeline.points import Point, value_at
from treadle.solvers.pipeline.solve import UNITS
from treadle.solvers.pipeline.walks import walked_bound


def levels_without_search(
    warps: WarpLoop, network: Network, ii: int, bound: Bound, point: Point, order: tuple[str, ...], *, walked: bool
) -> tuple[Level, ...]:
    """Return the levels of a solution in their order.

    Args:
        warps: the loop.
        network: of the loop.
        ii: its interval.
        bound: on the interval.
        point: the solution.
        order: names of the levels, the interval first.
        walked: whether bounds may come from walks over assignments.
    """
    values = {name: value_at(warps, network, ii, name, point) for name in order[1:]}
    bounds: dict[str, Bound] = {}
    for name, value in values.items():
        known = _plain(warps, network, ii, name, values.get("traffic_bytes"))
        if walked and known.value < value:
            fixed = {before: values[before] for before in bounds}
            better = walked_bound(warps, ii, name, fixed, value)
            known = better if better is not None and better.value > known.value else known
        bounds[name] = known
    every = (("ii", ii, bound), *((name, values[name], bounds[name]) for name in values))
    return tuple(
        Level(
            name,
            UNITS.get(name, "1"),
            value,
            known.value,
            Status.OPTIMAL if known.value == value else Status.FEASIBLE,
            known.proof,
            known.evidence,
        )
        for name, value, known in every
    )


def _plain(warps: WarpLoop, network: Network, ii: int, name: str, traffic_bytes: int | None) -> Bound:
    match name:
        case "traffic_bytes" | "barriers":
            return forced_bound(warps, count_bytes=name == "traffic_bytes")
        case "exposed_waits":
            return wait_bound(warps)
        case "groups":
            return group_bound(warps, ii)
        case "registers":
            return register_bound(warps, ii, traffic_bytes)
        case _:
            return length_bound(network, ii)
