"""Groups first, time second: logic-based Benders decomposition of the joint problem.

The master problem assigns groups without time: the cheapest assignment (by the levels that an assignment alone
decides) whose issue cycles fit the interval. The subproblem schedules exactly this assignment. An assignment that has
no schedule is excluded and the next cheapest one is tried, so the first that has one is optimal, if all before it were
refuted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ortools.sat.python import cp_model

from treadle.ir.certificate import Status
from treadle.ir.tile.warps import WarpLoop, barriers, traffic_bytes
from treadle.solvers.backend import Limits, SolverReport, solve
from treadle.solvers.modulo.model import Model
from treadle.solvers.modulo.network import Network
from treadle.solvers.pipeline.model import (
    Joint,
    add_crossed,
    add_groups,
    add_issue_budget,
    barrier_count,
    group_count,
    traffic,
)

LEVELS = {"traffic_bytes": traffic, "barriers": barrier_count, "groups": group_count}
"""Levels that an assignment alone decides."""
MOST_ASSIGNMENTS = 4
"""Assignments tried before the joint model is asked: many of equal cost would have to be refuted one by one."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """An assignment that has a schedule, and the bounds proven on the way to it (empty ones: not proven)."""

    groups: dict[str, int]
    proven: dict[str, int]
    report: SolverReport


def decided_levels(order: tuple[str, ...]) -> tuple[str, ...]:
    """Return the leading levels after the interval that an assignment alone decides."""
    found: list[str] = []
    for name in order[1:]:
        if name not in LEVELS:
            break
        found.append(name)
    return tuple(found)


def assign(
    warps: WarpLoop,
    network: Network,
    ii: int,
    order: tuple[str, ...],
    limits: Limits,
    attempt: Callable[[dict[str, int]], Status],
) -> Assigned | None:
    """Return the cheapest assignment that `attempt` finds a schedule for; None when it finds none in a few tries.

    Args:
        attempt: schedules one assignment; `INFEASIBLE` excludes it for good, `UNKNOWN` ends the proof, not the search.
    """
    names = decided_levels(order)
    joint = Joint(warps, Model(network, ii), 1)
    add_groups(joint)
    add_crossed(joint)
    add_issue_budget(joint)
    joint.cp.minimize(_weighted(joint, names))
    proof = True
    for _ in range(MOST_ASSIGNMENTS):
        outcome = solve(joint.cp, limits)
        if outcome.status is not Status.OPTIMAL:
            return None
        chosen = {operation: group for (operation, group), inside in joint.inside.items() if outcome[inside]}
        answer = attempt(chosen)
        if answer in (Status.OPTIMAL, Status.FEASIBLE):
            return Assigned(chosen, _values(warps, chosen, names) if proof else {}, outcome.report)
        proof = proof and answer is Status.INFEASIBLE
        joint.cp.add_bool_or(
            [~inside for (operation, group), inside in joint.inside.items() if chosen[operation] == group]
        )
    return None


def _weighted(joint: Joint, names: tuple[str, ...]) -> cp_model.LinearExprT:
    """Return one number that orders assignments lexicographically."""
    most = {
        "traffic_bytes": sum(crossing.bytes for crossing in joint.warps.crossings),
        "barriers": sum(crossing.barriers for crossing in joint.warps.crossings),
        "groups": joint.warps.limits.most_groups,
    }
    terms: list[cp_model.LinearExprT] = []
    weight = 1
    for name in reversed(names):
        terms.append(weight * LEVELS[name](joint))
        weight *= most[name] + 1
    return sum(terms)


def _values(warps: WarpLoop, groups: dict[str, int], names: tuple[str, ...]) -> dict[str, int]:
    every = {
        "traffic_bytes": traffic_bytes(warps, groups),
        "barriers": barriers(warps, groups),
        "groups": len(set(groups.values())),
    }
    return {name: every[name] for name in names}
