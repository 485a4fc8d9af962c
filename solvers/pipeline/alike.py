"""Schedules of two sub-tiles that do the same: a group for each, one half an interval after the other.

The sub-tiles then are one problem of half the size, whose units are busy twice an interval. Nothing here proves
anything but by bounds without search: whether another assignment, or another turn, is better stays open.

Among schedules with the fewest registers those are taken whose values stay in registers for the least time: what
stays long over other operations, compilers move behind them, and then it spills.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate
from treadle.ir.tile.warps import Issue, WarpLoop, check_warps
from treadle.solvers.modulo import model as modulo
from treadle.solvers.modulo.network import Network, network_of
from treadle.solvers.pipeline.announcements import answered
from treadle.solvers.pipeline.assemble import add_half_turn, assemble
from treadle.solvers.pipeline.bounds import interval_bound
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.model import Joint, fix_groups
from treadle.solvers.pipeline.plain_levels import levels_without_search
from treadle.solvers.pipeline.points import Point, read, value_at, warp_schedule
from treadle.solvers.pipeline.solve import OBJECTIVE, Options, Solution
from treadle.solvers.pipeline.symmetry import half_turn

REGISTERS_SHARE = 0.05
STAYS_SHARE = 0.1
"""Shares of the limit for the fewest registers at an interval, and for the shortest stays."""
HORIZONS = (1, 2)
"""Intervals beyond the longest path that are tried."""
STEP = 32
"""Intervals that are tried grow by this part of the bound."""
LONGEST = 2
"""They are at most so many times the bound."""


def schedule_alike(
    warps: WarpLoop, options: Options, tell: Callable[[str], None] | None = None, least_ii: int = 0
) -> Solution | None:
    """Return a schedule with a group for each of two equal sub-tiles.

    The interval is the least one tried, from the bound (or `least_ii`) on, at which the search finds one within its
    share. None without such sub-tiles or schedule, or for levels that others than `OBJECTIVE` are among.
    """
    tell = tell or (lambda _: None)
    groups = part_groups(warps)
    if not groups or not set(options.objective) <= set(OBJECTIVE):
        return None
    network, budget = network_of(warps.loop), Budget.of(options.limits)
    bound = interval_bound(warps, network)
    step = max(1, bound.value // STEP)
    for ii in range(max(bound.value, least_ii), LONGEST * bound.value + 1, step):
        tell(f"interval {ii}: sub-tiles half of it apart")
        point = _point(warps, network, ii, groups, budget)
        if point is not None:
            made = warp_schedule(warps, network, ii, point)
            levels = levels_without_search(warps, network, ii, bound, point, options.objective, walked=False)
            return Solution(made, Certificate(f"pipeline/{warps.loop.name}", options.cost_model, levels))
    return None


def part_groups(warps: WarpLoop) -> dict[str, int]:
    """Return groups by operation: those of roles, then one for each sub-tile; empty where that is no assignment."""
    turned = half_turn(warps)
    free = len(warps.roles)
    part = dict.fromkeys(turned, free) | dict.fromkeys(turned.values(), free + 1)
    shared = [issue.operation for issue in warps.issues if not issue.role and issue.operation not in part]
    if not turned or shared or warps.limits.most_groups < free + 2:
        return {}
    return {
        issue.operation: warps.roles.index(issue.role) if issue.role else part[issue.operation]
        for issue in warps.issues
    }


def _point(warps: WarpLoop, network: Network, ii: int, groups: dict[str, int], budget: Budget) -> Point | None:
    """Return a schedule at an interval: the fewest registers found, then the shortest stays found with them."""
    for horizon in HORIZONS:
        joint = _joint(warps, network, ii, horizon, groups, turned=True)
        assert joint.peak is not None
        joint.cp.minimize(joint.peak)
        outcome = answered(joint, budget.share(REGISTERS_SHARE), budget, modulo.TUNING)
        if outcome.solved:
            first = read(joint, outcome)
            closer = _with_short_stays(warps, network, ii, groups, first, budget)
            return next((p for p in (closer, first) if p is not None and _legal(warps, network, ii, p)), None)
    return None


def _joint(warps: WarpLoop, network: Network, ii: int, horizon: int, groups: dict[str, int], *, turned: bool) -> Joint:
    joint = assemble(warps, network, ii, horizon, turned=turned)
    fix_groups(joint, groups)
    add_half_turn(joint)
    for before, after in pairwise(issued_in_order(warps, groups)):
        joint.cp.add(joint.start(after.operation) >= joint.start(before.operation) + before.issue_cycles)
    return joint


def issued_in_order(warps: WarpLoop, groups: dict[str, int]) -> list[Issue]:
    """Return what the group of the first sub-tile issues for an iteration, as the program has it, but for its reads.

    The order keeps the search small: what is left is when, and how far iterations overlap.
    """
    fetched = {d.target for d in warps.loop.dependences if groups.get(d.source, len(warps.roles)) < len(warps.roles)}
    position = {operation.name: at for at, operation in enumerate(warps.loop.operations)}
    own = [issue for issue in warps.issues if groups[issue.operation] == len(warps.roles)]
    kept = [issue for issue in own if "." not in issue.operation or issue.operation not in fetched]
    return sorted(kept, key=lambda issue: position[issue.operation])


def _with_short_stays(
    warps: WarpLoop, network: Network, ii: int, groups: dict[str, int], first: Point, budget: Budget
) -> Point | None:
    """Return a schedule with no more registers whose values stay for few cycles, weighed by their registers."""
    joint = _joint(warps, network, ii, HORIZONS[-1], groups, turned=False)
    assert joint.peak is not None
    joint.cp.add(joint.peak <= value_at(warps, network, ii, "registers", first))
    latest = max(network.latency) + ii * (warps.limits.most_stages + 1)
    stays: list[cp_model.LinearExprT] = []
    for value in warps.values:
        end = joint.cp.new_int_var(0, 2 * latest, f"end of {value.name}")
        for reader in value.readers:
            joint.cp.add(end >= joint.start(reader.operation) + reader.hold_cycles + ii * reader.distance)
        stays.append(value.registers * (end - joint.start(value.producer)))
    length = joint.cp.new_int_var(0, latest, "length of an iteration")
    for vertex, start in joint.base.starts.items():
        joint.cp.add(length >= start + network.latency[vertex])
    joint.cp.minimize(cp_model.LinearExpr.sum([*stays, length]))
    outcome = answered(joint, budget.share(STAYS_SHARE), budget, modulo.TUNING)
    return read(joint, outcome) if outcome.solved else None


def _legal(warps: WarpLoop, network: Network, ii: int, point: Point) -> bool:
    return not check_warps(warps, warp_schedule(warps, network, ii, point))
