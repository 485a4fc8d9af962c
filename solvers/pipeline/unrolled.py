"""The joint model over given groups in iterations of bounded length: successive iterations one after the other.

What an iteration of at most so many cycles can meet are the next few iterations. Stating every operation once for each
of these, in cycles since the first one begins, keeps units and groups apart with neither slots nor stages: no operation
loses its place in time to a remainder. Where a unit is full, starts on it differ by multiples of what all its
occupancies are multiples of; time is moved so that they are such multiples, which leaves a dozen places for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd

from treadle.ir.tile.assignments import assigned_arcs
from treadle.ir.tile.orders import Order, Windows, whole, windows
from treadle.ir.tile.stays import stay_arcs
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.modulo.model import Model, add_arcs, add_memories, add_rings
from treadle.solvers.modulo.network import Network, network_of
from treadle.solvers.pipeline.framed import add_iteration, add_stages, copies_of
from treadle.solvers.pipeline.model import (
    Joint,
    add_crossed,
    add_crossing_delays,
    add_groups,
    add_handoffs,
    add_registers,
    fix_groups,
)


def unrolled(warps: WarpLoop, ii: int, groups: Mapping[str, int], most: Mapping[str, int]) -> Joint | None:
    """Return the model of all schedules over an assignment whose length, and registers, keep within `most`.

    The length is `joint.base.length`. None where paths and the stays of values leave nothing.
    """
    loop = whole(warps, ii, most.get("traffic_bytes"))
    arcs = assigned_arcs(loop, dict(groups))
    stays = stay_arcs(loop, ii, groups, most.get("registers"))
    found = None if stays is None else windows(loop, ii, Order(), most["length"], moved=False, stays=(*arcs, *stays))
    if found is None:
        return None
    network = network_of(loop.loop)
    step, full = _grid(network, ii)
    lift = -(min(first for first, _ in found) // ii) * ii
    places = tuple((first + lift, last + lift + step - 1) for first, last in found)
    base = Model(network, ii)
    for vertex, (first, last) in enumerate(places):
        base.starts[vertex] = base.cp.new_int_var(first, last, f"start {vertex}")
    joint = Joint(loop, base, max(last for _, last in places) // ii + 1)
    joint.copies = copies_of(loop, ii, places)
    _add_grid(joint, places, step, full)
    add_arcs(base, range(len(network.arcs)))
    add_rings(base)
    add_memories(base)
    add_stages(joint)
    _add_units(joint, places)
    for add in (add_groups, add_crossed, add_handoffs, add_crossing_delays):
        add(joint)
    _add_issues(joint, places, groups)
    _add_flights(joint, places, groups)
    add_registers(joint)
    fix_groups(joint, dict(groups))
    if "registers" in most and joint.peak is not None:
        base.cp.add(joint.peak <= most["registers"])
    add_iteration(joint, most["length"])
    return joint


def _grid(network: Network, ii: int) -> tuple[int, tuple[int, ...]]:
    """Return what starts on a full unit are multiples of, if time is moved so, and the operations of that unit."""
    grids: list[tuple[int, tuple[int, ...]]] = [(1, ())]
    for count, users in zip(network.counts, network.users, strict=True):
        cycles = [network.occupancy[vertex] for vertex in users]
        if count == 1 and sum(cycles) == ii:
            grids.append((gcd(*cycles), users))
    return max(grids)


def _add_grid(joint: Joint, places: Windows, step: int, full: Sequence[int]) -> None:
    for vertex in full:
        first, last = places[vertex]
        turn = joint.cp.new_int_var(-(-first // step), last // step, f"turn {vertex}")
        joint.cp.add(joint.base.starts[vertex] == step * turn)


def _add_units(joint: Joint, places: Windows) -> None:
    network = joint.base.network
    for count, users in zip(network.counts, network.users, strict=True):
        _add_successive(joint, places, {vertex: network.occupancy[vertex] for vertex in users}, count)


def _add_issues(joint: Joint, places: Windows, groups: Mapping[str, int]) -> None:
    index = joint.warps.loop.index
    for group in set(groups.values()):
        inside = [issue for issue in joint.warps.issues if groups[issue.operation] == group and issue.issue_cycles]
        _add_successive(joint, places, {index[issue.operation]: issue.issue_cycles for issue in inside}, 1)


def _add_flights(joint: Joint, places: Windows, groups: Mapping[str, int]) -> None:
    index, latency, ii = joint.warps.loop.index, joint.base.network.latency, joint.base.ii
    for limit in joint.warps.limits.flights:
        shares = {index[name]: share for name, share in limit.operations if name in index}
        homes = {index[name]: group for name, group in groups.items()}
        for group in set(groups.values()) if limit.per_group else (None,):
            inside = {v: share for v, share in shares.items() if group is None or homes[v] == group}
            if sum(-(-latency[v] // ii) * share for v, share in inside.items()) > limit.most:
                _add_successive(joint, places, {v: latency[v] for v in inside}, limit.most, inside)


def _add_successive(
    joint: Joint, places: Windows, cycles: Mapping[int, int], most: int, shares: Mapping[int, int] | None = None
) -> None:
    """Let no more than `most` be there at once, in as many iterations as can meet."""
    if not cycles:
        return
    ii = joint.base.ii
    span = max(places[vertex][1] + length for vertex, length in cycles.items()) - min(places[v][0] for v in cycles)
    copies = [(vertex, ii * copy) for vertex in cycles for copy in range(-(-span // ii))]
    intervals = [
        joint.cp.new_fixed_size_interval_var(joint.base.starts[vertex] + shift, cycles[vertex], "use")
        for vertex, shift in copies
    ]
    if most == 1 and shares is None:
        joint.cp.add_no_overlap(intervals)
    else:
        joint.cp.add_cumulative(intervals, [1 if shares is None else shares[vertex] for vertex, _ in copies], most)
