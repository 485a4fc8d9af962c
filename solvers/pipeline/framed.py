"""The joint model under one order of the full unit (`ir.tile.orders`): short windows in place of all the stages.

The model is that of the loop's core, so what it refutes no schedule has; a solution of it becomes a schedule when the
operations of roles (copies) are placed around it. The length of an iteration is asked of the whole loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ortools.sat.python import cp_model

from treadle.ir.tile.orders import Order, Windows, core, is_whole, orders, whole, windows
from treadle.ir.tile.stays import homes_of, stay_arcs
from treadle.ir.tile.warps import FETCH_CYCLES, WarpLoop
from treadle.solvers.modulo.model import (
    Model,
    add_arcs,
    add_full_units,
    add_memories,
    add_one_iteration_units,
    add_rings,
    add_times,
    add_units,
)
from treadle.solvers.modulo.network import Network, heads, network_of
from treadle.solvers.pipeline.assemble import add_warps
from treadle.solvers.pipeline.model import Joint
from treadle.solvers.pipeline.symmetry import half_turn


@dataclass(frozen=True, slots=True)
class Case:
    """One order of the full unit with the windows it leaves."""

    order: Order
    windows: Windows

    @property
    def room(self) -> int:
        """Cycles of all windows together: the fewer, the sooner a search is over."""
        return sum(last - first for first, last in self.windows)


@dataclass(frozen=True, slots=True)
class Framed:
    """A loop, or its core, at an interval, and the orders that paths leave."""

    warps: WarpLoop
    network: Network
    ii: int
    cases: tuple[Case, ...]
    whole: bool
    """Whether these are all operations, so that a solution is a schedule."""


def framed(warps: WarpLoop, ii: int, most_bytes: int | None = None, most_registers: int | None = None) -> Framed:
    """Return the core of a loop at an interval with the orders of its full unit that paths leave.

    Args:
        warps: the loop.
        ii: initiation interval; satisfies every recurrence.
        most_bytes: between groups in an iteration, where that is limited.
        most_registers: of a group, the fixed ones included, where they are limited further.
    """
    reduced = core(warps, ii, most_bytes)
    return _framed(reduced, ii, None, most_registers, whole=is_whole(warps, reduced))


def framed_whole(
    warps: WarpLoop,
    ii: int,
    most_bytes: int | None,
    most_registers: int | None = None,
    most_cycles: int | None = None,
) -> Framed:
    """Return the loop at an interval with the orders that paths leave to iterations of at most so many cycles."""
    return _framed(whole(warps, ii, most_bytes), ii, most_cycles, most_registers, whole=True)


def _framed(warps: WarpLoop, ii: int, most_cycles: int | None, most_registers: int | None, *, whole: bool) -> Framed:
    """Leave no case where rings, as shallow as memory makes them, or stays of values contradict the interval."""
    network = network_of(warps.loop)
    stays = stay_arcs(warps, ii, None, most_registers) if heads(network, ii) is not None else None
    if stays is None:
        return Framed(warps, network, ii, (), whole)
    found = (
        (order, windows(warps, ii, order, most_cycles, moved=not whole, stays=stays)) for order in orders(warps, ii)
    )
    return Framed(warps, network, ii, tuple(Case(order, left) for order, left in found if left is not None), whole)


def shortest_by_paths(warps: WarpLoop, ii: int, fixed: dict[str, int], low: int, high: int) -> int:
    """Return the least length in the range that paths leave to some order; `high` where they leave none below it."""
    every = whole(warps, ii, fixed.get("traffic_bytes"))
    stays = stay_arcs(every, ii, None, fixed.get("registers"))
    while stays is not None and low < high:
        middle = (low + high) // 2
        found = (windows(every, ii, o, middle, moved=False, stays=stays) for o in orders(every, ii))
        if any(left is not None for left in found):
            high = middle
        else:
            low = middle + 1
    return low


def shortened(case: Case, ii: int, intervals: int | None) -> Case:
    """Return a case with starts in so many intervals next to the operation that is held; None leaves it as it is.

    What may only come before it, so in negative cycles, is kept near the end of its window.
    """
    if intervals is None:
        return case
    width = intervals * ii
    near = (
        (max(first, last - width), last) if first < 0 else (first, min(last, first + width))
        for first, last in case.windows
    )
    return replace(case, windows=tuple(near))


def turns(frame: Framed, case: Case) -> bool:
    """Whether an order allows one of two equal sub-tiles to run half an interval after the other."""
    slots = case.order.by_name
    pairs = [(slots[name], slots[other]) for name, other in half_turn(frame.warps).items() if name in slots]
    return all((other - slot) % frame.ii == frame.ii // 2 for slot, other in pairs)


def assemble_case(frame: Framed, case: Case) -> Joint:
    """Return the joint model under one order, starts moved by whole intervals so that none is negative."""
    ii = frame.ii
    lift = -(min(first for first, _ in case.windows) // ii) * ii
    base = Model(frame.network, ii)
    add_times(base, {v: (first + lift, last + lift) for v, (first, last) in enumerate(case.windows)})
    add_arcs(base, range(len(frame.network.arcs)))
    add_units(base)
    for name, slot in case.order.slots:
        base.cp.add(base.slots[frame.warps.loop.index[name]] == slot)
    add_full_units(base, turned=False)
    add_one_iteration_units(base)
    add_rings(base)
    add_memories(base)
    joint = Joint(frame.warps, base, (max(last for _, last in case.windows) + lift) // ii + 1)
    joint.copies = copies_of(frame.warps, ii, case.windows)
    if frame.whole:
        add_stages(joint)
    add_warps(joint)
    return joint


def add_stages(joint: Joint) -> None:
    """Hold all starts within the stages there may be, from wherever the first one is."""
    base = joint.base
    first = base.cp.new_int_var(0, joint.stages * base.ii, "first start")
    joint.first = first
    for start in base.starts.values():
        base.cp.add(start >= first)
        base.cp.add(start <= first + joint.warps.limits.most_stages * base.ii - 1)


def copies_of(warps: WarpLoop, ii: int, found: Windows) -> int:
    """Return how many iterations, besides one, it takes until all values that can be alive together are there."""
    index, home = warps.loop.index, homes_of(warps, None)
    begins = [found[index[v.producer]][0] for v in warps.values]
    begins += [
        found[index[r.operation]][0] - FETCH_CYCLES
        for v in warps.values
        for r in v.readers
        if home[r.operation] != home[v.producer]
    ]
    ends = [found[index[v.producer]][1] + v.handoff_cycles for v in warps.values]
    ends += [found[index[r.operation]][1] + r.hold_cycles + ii * r.distance for v in warps.values for r in v.readers]
    return max(0, -((min(begins) - max(ends)) // ii) - 1) if begins else 0


def add_iteration(joint: Joint, most_cycles: int) -> cp_model.IntVar:
    """Add the length of an iteration of a whole loop, from wherever its first operation starts; return it."""
    base, first = joint.base, joint.first
    assert first is not None
    base.length = base.cp.new_int_var(0, most_cycles, "length")
    for vertex, start in base.starts.items():
        base.cp.add(base.length >= start + base.network.latency[vertex] - first)
    base.cp.add_min_equality(first, list(base.starts.values()))
    return base.length
