"""The CP-SAT model of a loop at one initiation interval: one small function per family of constraints.

A start is `ii * stage + slot` with the slot in [0, ii); the interval is a constant, so nothing grows with it. A unit's
use modulo the interval is two copies of each operation's interval, at `slot` and at `slot + ii`, so that the second
covers what wraps around. Families may be assembled over all operations, or only over the *core*: the strongly connected
components, which alone decide whether an interval is feasible (everything else can be moved by whole intervals), and
operations of units whose occupancies differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import gcd

from ortools.sat.python import cp_model

from treadle.ir.tile.constraints import free_bytes
from treadle.ir.tile.loop import Ring
from treadle.solvers.modulo.bounds import depth_bounds, ring_limits
from treadle.solvers.modulo.network import Network

TUNING: dict[str, bool | int | float] = {
    "linearization_level": 0,
    "cp_model_probing_level": 0,
    "use_strong_propagation_in_disjunctive": True,
}
"""Cyclic scheduling is propagation on units: linear relaxations see nothing of it, probing costs more than it finds.

Measured on attention for B200 (38 operations, two full units): length proven in 0.2 s instead of 6 s.
"""

Window = tuple[int, int]
"""First and last possible start."""


@dataclass(slots=True)
class Model:
    """A CP-SAT model and its variables by operation index and ring name."""

    network: Network
    ii: int
    cp: cp_model.CpModel = field(default_factory=cp_model.CpModel)
    starts: dict[int, cp_model.IntVar] = field(default_factory=dict[int, cp_model.IntVar])
    slots: dict[int, cp_model.IntVar] = field(default_factory=dict[int, cp_model.IntVar])
    stages: dict[int, cp_model.IntVar] = field(default_factory=dict[int, cp_model.IntVar])
    depths: dict[str, cp_model.IntVar] = field(default_factory=dict[str, cp_model.IntVar])
    length: cp_model.IntVar | None = None


def add_times(model: Model, windows: dict[int, Window]) -> None:
    """Give every operation of `windows` a start, and those on limited units a slot and a stage."""
    for vertex, (first, last) in windows.items():
        start = model.cp.new_int_var(first, last, f"start {vertex}")
        model.starts[vertex] = start
        if model.network.unit_of[vertex] is not None:
            slot = model.cp.new_int_var(0, model.ii - 1, f"slot {vertex}")
            stage = model.cp.new_int_var(first // model.ii, last // model.ii, f"stage {vertex}")
            model.cp.add(start == model.ii * stage + slot)
            model.slots[vertex], model.stages[vertex] = slot, stage


def add_free_slots(model: Model, vertices: Iterable[int]) -> None:
    """Give operations a slot only: they occupy their unit, but nothing orders them."""
    for vertex in vertices:
        model.slots[vertex] = model.cp.new_int_var(0, model.ii - 1, f"slot {vertex}")


def add_arcs(model: Model, positions: Iterable[int]) -> None:
    """State difference constraints among operations that have a start."""
    for position in positions:
        arc = model.network.arcs[position]
        if arc.source in model.starts and arc.target in model.starts:
            weight = arc.delay_cycles - model.ii * arc.distance
            model.cp.add(model.starts[arc.target] >= model.starts[arc.source] + weight)


def add_units(model: Model) -> None:
    """Keep every limited unit within its instances, modulo the interval."""
    network = model.network
    for count, users in zip(network.counts, network.users, strict=True):
        placed = [vertex for vertex in users if vertex in model.slots]
        whole = sum(network.occupancy[vertex] // model.ii for vertex in users)
        partial = [vertex for vertex in placed if network.occupancy[vertex] % model.ii]
        if len(partial) <= count - whole:
            continue
        if count == 1 and all(network.occupancy[vertex] == 1 for vertex in partial):
            model.cp.add_all_different([model.slots[vertex] for vertex in partial])
        else:
            _add_circle(model, partial, count - whole)


def _add_circle(model: Model, vertices: list[int], capacity: int) -> None:
    rests = {vertex: model.network.occupancy[vertex] % model.ii for vertex in vertices}
    copies = (0, model.ii) if max(rests.values()) > 1 else (0,)
    intervals = [
        model.cp.new_fixed_size_interval_var(model.slots[vertex] + shift, rest, f"use {vertex} + {shift}")
        for vertex, rest in rests.items()
        for shift in copies
    ]
    if capacity == 1:
        model.cp.add_no_overlap(intervals)
    else:
        model.cp.add_cumulative(intervals, [1] * len(intervals), capacity)


def add_full_units(model: Model, *, turned: bool) -> int | None:
    """Redundant: on one instance without slack, starts differ by sums of occupancies, so by multiples of their gcd.

    With `turned`, time may be turned freely: the longest operation of the fullest such unit starts at slot 0; it is
    returned.
    """
    network, ii = model.network, model.ii
    full: list[tuple[int, list[int]]] = []
    for count, users in zip(network.counts, network.users, strict=True):
        placed = [vertex for vertex in users if vertex in model.slots]
        if count == 1 and len(placed) > 1 and sum(network.occupancy[vertex] for vertex in placed) == ii:
            full.append((gcd(*(network.occupancy[vertex] for vertex in placed)), placed))
    full.sort(key=lambda item: -item[0])
    anchor: int | None = None
    for rank, (step, placed) in enumerate(full):
        if rank == 0 and turned:
            anchor = max(placed, key=lambda vertex: network.occupancy[vertex])
            model.cp.add(model.slots[anchor] == 0)
        if step == 1:
            continue
        offset = 0 if rank == 0 and turned else model.cp.new_int_var(0, step - 1, f"offset {rank}")
        for vertex in placed:
            turn = model.cp.new_int_var(0, ii // step - 1, f"turn {vertex}")
            model.cp.add(model.slots[vertex] == step * turn + offset)
    return anchor


def add_one_iteration_units(model: Model) -> None:
    """Redundant: the operations of one iteration do not overlap on a unit either (strong on length)."""
    network = model.network
    for count, users in zip(network.counts, network.users, strict=True):
        placed = [vertex for vertex in users if vertex in model.starts]
        if len(placed) <= count:
            continue
        intervals = [
            model.cp.new_fixed_size_interval_var(model.starts[vertex], network.occupancy[vertex], f"busy {vertex}")
            for vertex in placed
        ]
        if count == 1:
            model.cp.add_no_overlap(intervals)
        else:
            model.cp.add_cumulative(intervals, [1] * len(intervals), count)


def add_rings(model: Model) -> None:
    """Give every ring whose users have starts a depth that covers its lifetimes."""
    network, index = model.network, model.network.loop.index
    least, limits = depth_bounds(network, model.ii), ring_limits(network)
    for ring in network.loop.rings:
        if not all(index[name] in model.starts for name in ring_users(ring)):
            continue
        depth = model.cp.new_int_var(least[ring.name], limits[ring.name], f"depth {ring.name}")
        model.depths[ring.name] = depth
        for reader in ring.readers:
            end = model.starts[index[reader.operation]] + reader.hold_cycles + model.ii * reader.distance
            model.cp.add(end - model.starts[index[ring.producer]] <= model.ii * depth)


def ring_users(ring: Ring) -> list[str]:
    """Return the names of a ring's producer and readers."""
    return [ring.producer, *(reader.operation for reader in ring.readers)]


def add_memories(model: Model) -> None:
    """Keep rings within the memories; a ring without a depth variable counts with one slot."""
    loop = model.network.loop
    for capacity in loop.capacities:
        rings = [ring for ring in loop.rings if ring.memory == capacity.memory]
        used = sum(ring.slot_bytes * model.depths.get(ring.name, 1) for ring in rings)
        if any(ring.name in model.depths for ring in rings):
            model.cp.add(used <= free_bytes(loop, capacity.memory))


def add_length(model: Model, least: int, most: int) -> cp_model.IntVar:
    """Add the length of one iteration in [least, most]."""
    model.length = model.cp.new_int_var(least, most, "length")
    for vertex, start in model.starts.items():
        model.cp.add(model.length >= start + model.network.latency[vertex])
    return model.length


def ring_bytes(model: Model) -> cp_model.LinearExprT:
    """Return the bytes of all rings."""
    return sum(ring.slot_bytes * model.depths[ring.name] for ring in model.network.loop.rings)
