"""The joint model of a loop at an interval: what is stated of loops alone, and what warp groups add."""

from __future__ import annotations

from treadle.ir.tile.warps import WarpLoop
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
from treadle.solvers.modulo.network import Network, heads
from treadle.solvers.pipeline.model import (
    Joint,
    add_crossed,
    add_crossing_delays,
    add_flights,
    add_groups,
    add_handoffs,
    add_issue,
    add_issue_budget,
    add_registers,
)
from treadle.solvers.pipeline.symmetry import half_turn


def assemble(
    warps: WarpLoop, network: Network, ii: int, intervals: int | None, *, turned: bool = True, registers: bool = True
) -> Joint:
    """Return the joint model: starts up to `intervals` beyond the longest path, or in all the stages there may be.

    With `turned` a full unit's operation is held at slot 0 (all slots may be turned together), for which starts get one
    interval more; without, starts count from the first operation, as the length needs it. `registers`: see there.
    """
    head = heads(network, ii)
    assert head is not None
    last = warps.limits.most_stages * ii - 1
    if intervals is not None:
        last = min(last, max(head) + intervals * ii)
    last += ii - 1 if turned else 0
    base = Model(network, ii)
    add_times(base, {vertex: (head[vertex], max(head[vertex], last)) for vertex in range(network.size)})
    add_arcs(base, range(len(network.arcs)))
    add_units(base)
    anchor = add_full_units(base, turned=turned)
    add_one_iteration_units(base)
    add_rings(base)
    add_memories(base)
    joint = Joint(warps, base, last // ii + 1, anchor)
    if max(head) > last:
        base.cp.add_bool_or([])
    if turned:
        _add_span(joint)
    add_warps(joint, registers=registers)
    return joint


def add_warps(joint: Joint, *, registers: bool = True) -> None:
    """State what warp groups add: groups, crossings, issue, flights, registers (unless they are known to fit)."""
    add_groups(joint)
    add_crossed(joint)
    add_handoffs(joint)
    add_crossing_delays(joint)
    add_issue(joint)
    add_issue_budget(joint)
    add_flights(joint)
    if registers:
        add_registers(joint)


def _add_span(joint: Joint) -> None:
    """Hold all starts within the stages there may be, from wherever the first one is."""
    ii = joint.base.ii
    first = joint.cp.new_int_var(0, ii - 1, "first start")
    for start in joint.base.starts.values():
        joint.cp.add(start >= first)
        joint.cp.add(start <= first + joint.warps.limits.most_stages * ii - 1)


def add_half_turn(joint: Joint) -> None:
    """Let one of two identical sub-tiles run half an interval after the other."""
    for name, other in half_turn(joint.warps).items():
        joint.cp.add(joint.start(other) == joint.start(name) + joint.base.ii // 2)
