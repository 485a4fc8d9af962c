"""Bounds of the joint problem that need no search."""

from __future__ import annotations

from treadle.ir.certificate import ProofKind
from treadle.ir.tile.register_bound import register_bound as least_registers
from treadle.ir.tile.register_bound import single_group_bound
from treadle.ir.tile.stays import homes_of
from treadle.ir.tile.warps import WarpLoop, exposed_waits, least_flight_intervals
from treadle.solvers.modulo.bounds import Bound, length_bounds
from treadle.solvers.modulo.interval import interval_bounds
from treadle.solvers.modulo.network import Network


def interval_bound(warps: WarpLoop, network: Network) -> Bound:
    """Return the largest of the loop's own bounds, of issue cycles over the most groups, and of flights."""
    cycles = free_issue_cycles(warps)
    groups = warps.limits.most_groups - len(warps.roles)
    issue = Bound(-(-cycles // groups), ProofKind.RESOURCE, {"issue_cycles": cycles, "groups": groups})
    longest = max((issue.issue_cycles for issue in warps.issues), default=0)
    single = Bound(longest, ProofKind.RESOURCE, {"longest_issue_cycles": longest})
    flights = [
        Bound(value, ProofKind.RESOURCE, {"flights": limit.name}) for limit, value in least_flight_intervals(warps)
    ]
    return max([*interval_bounds(network), issue, single, *flights], key=lambda bound: bound.value)


def free_issue_cycles(warps: WarpLoop) -> int:
    """Return the issue cycles of the operations without a role."""
    return sum(issue.issue_cycles for issue in warps.issues if not issue.role)


def wait_bound(warps: WarpLoop) -> Bound:
    """Exposed waits of operations that must share a group."""
    forced = exposed_waits(warps, homes_of(warps, None))
    return Bound(forced, ProofKind.COUNT, {"forced": forced})


def group_bound(warps: WarpLoop, ii: int) -> Bound:
    """Return the fewest groups: one per role and issue cycles over the interval, or two where registers need them."""
    cycles, roles = free_issue_cycles(warps), len(warps.roles)
    free = any(not issue.role for issue in warps.issues)
    value = roles + max(int(free), -(-cycles // ii))
    registers, names = single_group_bound(warps, ii)
    if value < roles + 2 and registers > warps.limits.registers_per_group:
        evidence = {"interval": ii, "registers": registers, "values": list(names), "roles": roles}
        return Bound(roles + 2, ProofKind.CAPACITY, evidence)
    return Bound(value, ProofKind.RESOURCE, {"interval": ii, "issue_cycles": cycles, "roles": roles})


def forced_bound(warps: WarpLoop, *, count_bytes: bool) -> Bound:
    """Return the traffic (bytes or barriers) of dependences between operations of different roles."""
    role = {issue.operation: issue.role for issue in warps.issues}
    ends = warps.loop.dependences
    forced = [c for c in warps.crossings if role[ends[c.dependence].source] != role[ends[c.dependence].target]]
    return Bound(sum(c.bytes if count_bytes else c.barriers for c in forced), ProofKind.COUNT, {"forced": len(forced)})


def register_bound(warps: WarpLoop, ii: int, traffic_bytes: int | None) -> Bound:
    """Return the registers of values that must share a group and overlap in time (`ir.tile.register_bound`)."""
    value, names = least_registers(warps, ii, traffic_bytes)
    evidence = {"interval": ii, "traffic_bytes": traffic_bytes, "values": list(names)}
    return Bound(value, ProofKind.CAPACITY, evidence)


def length_bound(network: Network, ii: int) -> Bound:
    """Return the bound on the length of one iteration without warps, which warps only lengthen."""
    return length_bounds(network, ii)[0]
