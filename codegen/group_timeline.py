"""A schedule over warp groups as a kernel whose units are the groups, so that every timeline can draw it.

A row per group shows for how long each operation keeps the group from issuing anything else; what runs on after its
issue (copies, products) has a row per unit below, its operations marked with `*`.
"""

from __future__ import annotations

from dataclasses import replace

from treadle.ir.tile.kernel import KernelPlan, WarpPlan
from treadle.ir.tile.loop import Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.schedule import Schedule, length_of

RUNS_ON = "*"
"""Mark of the work of an operation after its issue."""


def group_names(plan: WarpPlan) -> tuple[str, ...]:
    """Return the names of the groups in order: those of their roles, and `group N` for the others."""
    role_of = {plan.schedule.groups[issue.operation]: issue.role for issue in plan.warps.issues if issue.role}
    return tuple(role_of.get(group) or f"group {group}" for group in range(plan.schedule.group_count))


def by_groups(kernel: KernelPlan) -> KernelPlan:
    """Return a kernel for drawing: groups and the units of asynchronous work in the place of units.

    Raises ValueError for a kernel without warp groups.
    """
    if kernel.groups is None:
        raise ValueError(f"kernel `{kernel.name}` has no warp groups")
    plan, names = kernel.groups, group_names(kernel.groups)
    made = plan.schedule.schedule
    issued = {issue.operation: issue for issue in plan.warps.issues}
    operations: list[Operation] = []
    starts: dict[str, int] = {}
    for operation in kernel.loop.operations:
        issue = issued.get(operation.name)
        if issue is not None:
            group = names[plan.schedule.groups[operation.name]]
            operations.append(Operation(operation.name, group, issue.issue_cycles, operation.latency_cycles))
            starts[operation.name] = made.start_cycles[operation.name]
        if issue is None or operation.occupancy_cycles > issue.issue_cycles:
            operations.append(replace(operation, name=operation.name + RUNS_ON))
            starts[operation.name + RUNS_ON] = made.start_cycles[operation.name]
    used = {operation.unit for operation in operations}
    units = (*(Unit(name, 1) for name in names), *(unit for unit in kernel.loop.units if unit.name in used))
    here = {operation.name for operation in operations}
    rings = tuple(_renamed(ring, here) for ring in kernel.loop.rings)
    loop = Loop(kernel.loop.name, units, tuple(operations), (), rings, kernel.loop.capacities)
    schedule = Schedule(made.loop, made.ii_cycles, starts, length_of(loop, starts), made.ring_depths)
    return replace(
        kernel, loop=loop, schedule=schedule, certificate=plan.certificate, program=None, siblings=(), groups=None
    )


def _renamed(ring: Ring, known: set[str]) -> Ring:
    def name(operation: str) -> str:
        return operation if operation in known else operation + RUNS_ON

    readers = tuple(Reader(name(r.operation), r.hold_cycles, r.distance) for r in ring.readers)
    return replace(ring, producer=name(ring.producer), readers=readers)
