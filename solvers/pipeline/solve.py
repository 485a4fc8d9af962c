"""Schedules a loop over warp groups: interval, traffic, barriers, groups, registers, length - each level certified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.tile.conflict import smallest_conflict
from treadle.ir.tile.register_bound import register_bound as least_registers
from treadle.ir.tile.turn_search import MOST_NODES
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.solvers.backend import Limits, SolverReport
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.modulo.interval import serial_interval
from treadle.solvers.modulo.network import Network, network_of
from treadle.solvers.pipeline.attempts import quick_schedule, thorough_schedule
from treadle.solvers.pipeline.bounds import (
    forced_bound,
    group_bound,
    interval_bound,
    length_bound,
    register_bound,
    wait_bound,
)
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.closing import Found, closed_in
from treadle.solvers.pipeline.errors import GroupsExceeded, NoWarpSchedule, RegistersExceeded
from treadle.solvers.pipeline.fallback import any_interval
from treadle.solvers.pipeline.held import shortest_held
from treadle.solvers.pipeline.late import with_late_copies
from treadle.solvers.pipeline.levels import closed_level, solver_first
from treadle.solvers.pipeline.logs import with_logs
from treadle.solvers.pipeline.observed import Observe, as_observed
from treadle.solvers.pipeline.points import Point, value_at, warp_schedule
from treadle.solvers.pipeline.restating import restated
from treadle.solvers.pipeline.search import (
    Answer,
    Search,
    Target,
    any_schedule,
    least,
    least_traffic,
    searched,
    soon_schedule,
    traffic_steps,
)
from treadle.solvers.pipeline.short import close_to_paths, short_schedule
from treadle.solvers.pipeline.turning import (
    CHEAPEST_NODES,
    INTERVAL_NODES,
    Turned,
    ordered,
    turned,
)
from treadle.solvers.pipeline.walks import (
    UNREACHED,
    decided_levels,
    paced_bound,
    passed_by_walk,
    raised,
    refuted_by_walk,
    survivors,
    walked_bound,
)

OBJECTIVE = ("ii", "traffic_bytes", "barriers", "groups", "registers", "length")
"""Levels in the order they have by default."""
LEVELS = ("ii", "traffic_bytes", "exposed_waits", "barriers", "groups", "registers", "length")
"""All levels there are."""
UNITS = {"ii": "cycles", "traffic_bytes": "bytes", "length": "cycles"}
INFINITE_S = 1e9
MOST_SINGLE_STEPS = 16
"""Refuted intervals after which the proof is given up for a schedule."""
FEW_NODES = 6_000
"""Nodes of the question for a schedule over the few assignments that are the least in all they decide."""
SOON_SHARE = 0.003
ASSIGNMENT_SHARE = 0.03
FIRST_SHARE = 0.03
LEVEL_SHARE = 0.3
OPEN_SHARE = 0.1
BOUND_SHARE = 0.25
INTERVAL_SHARE = 0.08
STEPS_SHARE = 0.1
"""Shares of the limit: for whether an assignment is soon refuted, for an assignment, any schedule, a level, a level
where the interval is open (and none can be the best of all schedules), all questions about the bound itself, about any
longer interval, and about all intervals that are refuted one by one after the first."""


@dataclass(frozen=True, slots=True)
class Options:
    """Limits (`budget.Budget.of` says what they are for a whole solve), and the levels in their order."""

    limits: Limits = field(default_factory=lambda: Limits(deterministic_s=0.5))
    objective: tuple[str, ...] = OBJECTIVE
    cost_model: str = "cycles of the loop as given"
    observe: Observe | None = None
    """How schedules run, for those whose interval is not proven least."""


@dataclass(frozen=True, slots=True)
class Solution:
    """A legal warp schedule and what is proven of it."""

    schedule: WarpSchedule
    certificate: Certificate


def schedule(warps: WarpLoop, options: Options | None = None, tell: Callable[[str], None] | None = None) -> Solution:
    """Return the best joint schedule, lexicographically by `options.objective`.

    Raises:
        MemoryExceeded, RingTooShallow: no interval is feasible for the loop itself.
        RegistersExceeded: values that must share a group do not fit its registers at any interval.
        GroupsExceeded: no assignment to groups fits registers and memory at any interval.
        NoWarpSchedule: none was found.
    """
    options = options or Options()
    tell = tell or (lambda _: None)
    network = network_of(warps.loop)
    bound = interval_bound(warps, network)
    longest = max(bound.value, serial_interval(network))
    _refuse_too_many_registers(warps, longest)
    bound, walkable = paced_bound(warps, bound, 2 * longest)
    if bound.value >= 2 * longest:
        _refuse_unassignable(warps, 2 * longest)
    first = searched(warps, network, bound.value, Budget.of(options.limits), walkable=walkable)
    search, point, bound = _least_interval(first, bound, options, tell)
    ii = search.ii
    share = LEVEL_SHARE if bound.value == ii else OPEN_SHARE
    bounds: dict[str, Bound] = {}
    fixed: dict[str, int] = {}
    for name in options.objective[1:]:
        plain = _bound(warps, network, ii, name, fixed)
        value, point, bounds[name] = _next_level(search, name, plain, fixed, point, tell, share)
        fixed[name] = value
    point = with_late_copies(warps, network, ii, point, tuple(bounds))
    # A later level may have found better values of earlier ones whose optimum was left open.
    decided = {name: value_at(warps, network, ii, name, point) for name in bounds}
    levels = [_level("ii", ii, bound)]
    levels += [_level(name, value, restated(warps, ii, name, bounds[name], decided)) for name, value in decided.items()]
    levels = with_logs(warps, ii, levels)
    certificate = Certificate(f"pipeline/{warps.loop.name}", options.cost_model, tuple(levels))
    return Solution(warp_schedule(warps, network, ii, point), certificate)


def _walked(warps: WarpLoop, ii: int, name: str, bound: Bound, fixed: dict[str, int], value: int) -> Bound:
    """Return the better of a bound and what the assignments say."""
    if bound.value >= value:
        return bound
    walked = walked_bound(warps, ii, name, fixed, value)
    return walked if walked is not None and walked.value > bound.value else bound


def _passed(bound: Bound, ii: int, passed: int) -> Bound:
    """Return the bound above a range of intervals that walks over the assignments refute."""
    for interval in range(ii, passed):
        if bound.proof is ProofKind.SOLVER:
            bound = _refuted(bound, interval, None)
        else:
            refuted = bound.evidence.get("refuted", []) if bound.proof is ProofKind.ENUMERATION else []
            bound = raised(bound, interval + 1, [*refuted, interval])
    return bound


def _refuted(bound: Bound, ii: int, report: SolverReport | None) -> Bound:
    """Return the bound above an interval that orders (without a report) or the solver refute, on the first basis."""
    plain = bound.proof not in (ProofKind.SOLVER, ProofKind.ENUMERATION)
    basis = {"value": bound.value, "proof": bound.proof.value, "evidence": bound.evidence}
    evidence = {
        "basis": basis if plain else bound.evidence["basis"],
        "refuted": [ii] if plain else [*bound.evidence["refuted"], ii],
    }
    if bound.proof is ProofKind.SOLVER:
        answer = {name: value for name, value in bound.evidence.items() if name not in ("basis", "refuted")}
        return Bound(ii + 1, ProofKind.SOLVER, {**evidence, **answer})
    if report is None:
        return Bound(ii + 1, ProofKind.ENUMERATION, {**evidence, "orders": True})
    return Bound(ii + 1, ProofKind.SOLVER, {**evidence, **report.evidence()})


def _turned(bound: Bound, ii: int, ranges: list[tuple[int, int]]) -> Bound:
    """Return the bound above ranges of intervals that searches over turns refute at once."""
    refuted = list(range(ii, ranges[-1][1] + 1))
    plain = bound.proof not in (ProofKind.SOLVER, ProofKind.ENUMERATION)
    basis = {"value": bound.value, "proof": bound.proof.value, "evidence": bound.evidence}
    before: dict[str, Any] = {"basis": basis, "refuted": []} if plain else bound.evidence
    evidence = {**before, "refuted": [*before["refuted"], *refuted]}
    if bound.proof is not ProofKind.SOLVER:
        evidence["turns"] = [*evidence.get("turns", []), *ranges]
    kind = ProofKind.SOLVER if bound.proof is ProofKind.SOLVER else ProofKind.ENUMERATION
    return Bound(refuted[-1] + 1, kind, evidence)


def _turned_cheaply(search: Search, options: Options) -> Turned:
    """Look for a schedule with the least traffic there may be, then for any.

    Where a full unit has several orders, with little more than the least: it is soon found, and the least soon proven.
    """
    if options.objective[1:2] == ("traffic_bytes",):
        walked = walked_bound(search.warps, search.ii, "traffic_bytes", {}, UNREACHED) if search.walkable else None
        least_bytes = forced_bound(search.warps, count_bytes=True).value if walked is None else walked.value
        steps = traffic_steps(search.warps)
        most = steps[len(steps) // 2] if ordered(search) else 0
        answer = turned(search, {"traffic_bytes": least_bytes + most}, CHEAPEST_NODES)
        if answer.point is not None:
            return answer
    return turned(search, {}, INTERVAL_NODES)


def refuse_impossible(warps: WarpLoop) -> None:
    """Refuse, without search, a loop that no interval lets run over warp groups; raises as `schedule`."""
    network = network_of(warps.loop)
    longest = max(interval_bound(warps, network).value, serial_interval(network))
    _refuse_too_many_registers(warps, longest)
    _refuse_unassignable(warps, 2 * longest)


def _refuse_unassignable(warps: WarpLoop, long_ii: int) -> None:
    """Refuse a loop whose operations fit no groups however long the interval is, by the fewest that do not."""
    if not refuted_by_walk(warps, long_ii):
        return
    found = smallest_conflict(warps, long_ii)
    if found is None:
        raise NoWarpSchedule(loop=warps.loop.name, groups=warps.limits.most_groups, ii=long_ii)
    limits = warps.limits
    raise GroupsExceeded(
        loop=warps.loop.name,
        operations=", ".join(f"`{name}`" for name in found.operations),
        needed=found.registers,
        most=limits.registers_per_group,
        file=limits.registers_of_file,
        free=found.handoff_bytes,
        memory=limits.handoff_memory or "shared",
    )


def _refuse_too_many_registers(warps: WarpLoop, long_ii: int) -> None:
    """Refuse values that overlap however long the interval is."""
    limits = warps.limits
    needed, values = least_registers(warps, long_ii, None)
    room = min(limits.registers_per_group, limits.registers_of_file - limits.role_registers * len(warps.roles))
    if needed > room:
        raise RegistersExceeded(
            loop=warps.loop.name,
            values=", ".join(f"`{name}`" for name in values),
            needed=needed - limits.fixed_registers,
            free=room - limits.fixed_registers,
            fixed=limits.fixed_registers,
            factor=(needed - limits.fixed_registers) / max(1, room - limits.fixed_registers),
        )


def _least_interval(
    first: Search, bound: Bound, options: Options, tell: Callable[[str], None]
) -> tuple[Search, Point, Bound]:
    """Try the bound, which refuted intervals raise; where it is open, any interval that has a schedule.

    What takes more nodes to refute, together, than a checker repeats is left open.
    """
    warps, network, budget = first.warps, first.network, first.budget
    ii, last = bound.value, serial_interval(network) * 2
    steps_end_s: float | None = None
    known: Found | None = None
    claimed = 0
    for _ in range(MOST_SINGLE_STEPS):
        if ii > last or budget.over or (steps_end_s is not None and budget.spent_s > steps_end_s):
            break
        passed = passed_by_walk(warps, ii, last) if first.walkable else ii
        if passed > ii:
            bound = _passed(bound, ii, passed)
            ii = passed
            continue
        tell(f"interval {ii}: searching")
        search = searched(warps, network, ii, budget, walkable=first.walkable)
        short = None if known is not None or ordered(search) else short_schedule(search, options.objective)
        if short is not None:
            return search, short, bound
        few = _over_few(search, options) if known is None and ordered(search) else None
        if few is not None:
            return search, few, bound
        before = budget.nodes
        at_once = Turned() if known is not None else _turned_cheaply(search, options)
        if at_once.point is not None:
            return search, at_once.point, bound
        spent = before - budget.nodes
        if at_once.refuted and claimed + 2 * spent > MOST_NODES:
            break
        if at_once.refuted:
            closed = closed_in(search, ii + 1, last, spent, tell, claimed)
            claimed = closed.nodes
            ranges = [(ii, ii), *closed.ranges]
            bound, ii, known = _turned(bound, ii, ranges), ranges[-1][1] + 1, closed.found
            if known is not None and known.ii == ii:
                return searched(warps, network, ii, budget, walkable=first.walkable), known.point, bound
            continue
        budget.slice(INTERVAL_SHARE if ii > first.ii else BOUND_SHARE)
        answer = cheapest(search, options) or _by_traffic(search, options) or _any(search)
        budget.slice(None)
        if answer.point is not None:
            return search, answer.point, bound
        if answer.status is not Status.INFEASIBLE:
            break
        bound = _refuted(bound, ii, answer.report)
        ii += 1
        steps_end_s = steps_end_s or budget.spent_s + STEPS_SHARE * (budget.limits.deterministic_s or INFINITE_S)
    found = known if known is not None else any_interval(first, ii, last, tell)
    if found is None:
        raise NoWarpSchedule(loop=warps.loop.name, groups=warps.limits.most_groups, ii=last)
    if options.observe is not None:
        found = as_observed(first, found, bound.value, options.observe)
    return searched(warps, network, found.ii, budget, walkable=first.walkable), found.point, bound


def cheapest(search: Search, options: Options) -> Answer | None:
    """Schedule the cheapest assignments that nothing refutes; None when they are many or have no schedule."""
    for groups in _cheapest(search, options)[1]:
        answer = any_schedule(search, groups, ASSIGNMENT_SHARE)
        if answer.point is not None:
            return answer
    return None


def _cheapest(search: Search, options: Options) -> tuple[dict[str, int], list[dict[str, int]]]:
    """Return the least levels that assignments decide, and those that have them; none when they are many."""
    fixed: dict[str, int] = {}
    for name in decided_levels(options.objective) if search.walkable else ():
        bound = walked_bound(search.warps, search.ii, name, fixed, UNREACHED)
        if bound is None or bound.value == UNREACHED:
            return {}, []
        fixed[name] = bound.value
    return fixed, (survivors(search.warps, search.ii, fixed) or []) if fixed else []


def _over_few(search: Search, options: Options) -> Point | None:
    """Return a schedule of one of the cheapest assignments, asked about as whole loops where they are few.

    Copies may have to find room, on their unit and in memory, that a core knows nothing of: then every schedule of the
    core fails. So cores are asked only whether they are soon refuted, or have one.
    """
    fixed, every = _cheapest(search, options)
    left: list[dict[str, int]] = []
    for groups in every:
        answer = soon_schedule(search, groups, SOON_SHARE)
        if answer.point is not None:
            return answer.point
        left += [groups] if answer.status is not Status.INFEASIBLE else []
    return close_to_paths(search, left, fixed) or (turned(search, fixed, FEW_NODES).point if left else None)


def _by_traffic(search: Search, options: Options) -> Answer | None:
    """Look for the least traffic at once, where a full unit has orders and traffic is the next level."""
    has_orders = any(case.order.slots for case in search.frame.cases)
    if not (has_orders and search.walkable and options.objective[1:2] == ("traffic_bytes",)):
        return None
    walked = walked_bound(search.warps, search.ii, "traffic_bytes", {}, UNREACHED)
    if walked is None or walked.value >= UNREACHED:
        return None
    search.traffic = least_traffic(search, walked.value, LEVEL_SHARE)
    return search.traffic if search.traffic.point is not None else None


def _any(search: Search) -> Answer:
    """Look for any schedule: in few intervals, with the least traffic, by orders and windows, over all starts."""
    answer = quick_schedule(search)
    if answer.point is not None:
        return answer
    traffic = walked_bound(search.warps, search.ii, "traffic_bytes", {}, UNREACHED) if search.walkable else None
    if traffic is not None and traffic.value < UNREACHED:
        target = Target("traffic_bytes", {}, traffic.value, traffic.value + 1)
        answer = least(search, target, ASSIGNMENT_SHARE)
        if answer.point is not None:
            return answer
    answer = any_schedule(search, None, FIRST_SHARE)
    if answer.point is not None or answer.status is Status.INFEASIBLE:
        return answer
    return thorough_schedule(search)


def _next_level(
    search: Search,
    name: str,
    bound: Bound,
    fixed: dict[str, int],
    point: Point,
    tell: Callable[[str], None],
    share: float,
) -> tuple[int, Point, Bound]:
    """Return the least value found of a level, its schedule, and the bound on it."""
    warps, ii = search.warps, search.ii
    value = value_at(warps, search.network, ii, name, point)
    bound = _walked(warps, ii, name, bound, fixed, value)
    if name == "traffic_bytes" and not fixed and search.traffic is not None:
        bound = _raised(bound, min(search.traffic.bound or 0, value), search.traffic.report)
    if value == bound.value:
        return value, point, bound
    tell(f"interval {ii}: {name} {value}, at least {bound.value}")
    bound, better = closed_level(search, name, fixed, bound, value, soon=True)
    if better is not None:
        value, point = value_at(warps, search.network, ii, name, better), better
    if value == bound.value:
        return value, point, bound
    value, point, bound = _solved_level(search, Target(name, fixed, bound.value, value), point, bound, share)
    if value > bound.value and solver_first(search):
        bound, better = closed_level(search, name, fixed, bound, value)
        if better is not None:
            value, point = value_at(warps, search.network, ii, name, better), better
    return value, point, bound


def _solved_level(search: Search, target: Target, point: Point, bound: Bound, share: float) -> tuple[int, Point, Bound]:
    """Return what the solver says of a level: the least value found, its schedule, and the bound on it."""
    value, answer = target.below, _least(search, target, share)
    if answer.point is not None and answer.value is not None:
        value, point = answer.value, answer.point
    proven = min(answer.bound or 0, value)
    if proven > bound.value and answer.report is None:
        evidence = {"interval": search.ii, "most": dict(target.fixed), "refuted": proven - 1, "orders": True}
        return value, point, Bound(proven, ProofKind.ENUMERATION, evidence)
    return value, point, _raised(bound, proven, answer.report)


def _least(search: Search, target: Target, share: float) -> Answer:
    """Look for the least value of a level: the length first over one assignment at a time, where these are few."""
    held = shortest_held(search, target, share) if target.name == "length" and not ordered(search) else None
    if held is None or held.value is None or held.bound is None or held.report is None:
        return least(search, target, share)
    if held.bound == held.value:
        return held
    again = least(search, replace(target, least=held.bound, below=held.value), share)
    return again if again.point is not None else replace(again, point=held.point)


def schedule_groups(warps: WarpLoop, ii: int, groups: dict[str, int], options: Options) -> WarpSchedule | None:
    """Return a schedule of one assignment to groups at an interval, None when none is found within the limits."""
    network = network_of(warps.loop)
    search = searched(warps, network, ii, Budget.of(options.limits), walkable=False)
    point = any_schedule(search, groups, ASSIGNMENT_SHARE).point
    return None if point is None else warp_schedule(warps, network, ii, point)


def _raised(bound: Bound, proven: int, report: SolverReport | None) -> Bound:
    """Return the better of a bound without search and what the solver proved."""
    if proven <= bound.value or report is None:
        return bound
    basis = {"value": bound.value, "proof": bound.proof.value, "evidence": bound.evidence}
    return Bound(proven, ProofKind.SOLVER, {"basis": basis, **report.evidence()})


def _bound(warps: WarpLoop, network: Network, ii: int, name: str, fixed: dict[str, int]) -> Bound:
    match name:
        case "traffic_bytes":
            return forced_bound(warps, count_bytes=True)
        case "barriers":
            return forced_bound(warps, count_bytes=False)
        case "exposed_waits":
            return wait_bound(warps)
        case "groups":
            return group_bound(warps, ii)
        case "registers":
            return register_bound(warps, ii, fixed.get("traffic_bytes"))
        case _:
            return length_bound(network, ii)


def _level(name: str, value: int, bound: Bound) -> Level:
    status = Status.OPTIMAL if bound.value == value else Status.FEASIBLE
    return Level(name, UNITS.get(name, "1"), value, bound.value, status, bound.proof, bound.evidence)
