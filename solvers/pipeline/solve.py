"""Schedules a loop over warp groups: interval, traffic, barriers, groups, registers, length - each level certified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.tile.register_bound import register_bound as least_registers
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.solvers.backend import Limits, Outcome, SolverReport, solve
from treadle.solvers.modulo import model as modulo
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.modulo.interval import serial_interval
from treadle.solvers.modulo.model import (
    add_length,
)
from treadle.solvers.modulo.network import Network, network_of
from treadle.solvers.pipeline.assemble import add_half_turn, assemble
from treadle.solvers.pipeline.bounds import forced_bound, group_bound, interval_bound, length_bound, register_bound
from treadle.solvers.pipeline.errors import NoWarpSchedule, RegistersExceeded
from treadle.solvers.pipeline.logs import with_logs
from treadle.solvers.pipeline.model import (
    Joint,
    barrier_count,
    fix_groups,
    group_count,
    traffic,
)
from treadle.solvers.pipeline.partition import assign, decided_levels
from treadle.solvers.pipeline.points import Point, hint, read, value_at, warp_schedule
from treadle.solvers.pipeline.symmetry import half_turn
from treadle.solvers.pipeline.walks import (
    UNREACHED,
    paced_bound,
    raised,
    refuted_by_walk,
    survivors,
    walked_bound,
)

OBJECTIVE = ("ii", "traffic_bytes", "barriers", "groups", "registers", "length")
UNITS = {"ii": "cycles", "traffic_bytes": "bytes", "length": "cycles"}
SHORT_HORIZONS = (1, 2)
"""Intervals beyond the longest path that are tried before all the stages there may be."""
MOST_INTERVALS = 32
"""Intervals tried before giving up."""
MOST_SINGLE_STEPS = 16
"""Refuted intervals after which the search goes on in larger steps, giving up the proof for a schedule."""
ROUNDS = (0.02, 0.1, 0.3)
"""Shares of the limit that one attempt gets, round by round."""
MOST_DECISIONS = 4
"""Lesser values that are asked for one after the other, when the least one is not found at once."""
HALF_SHARE = 0.5
"""Share of the limit for improving a level among schedules whose sub-tiles run half an interval apart."""
TUNING: dict[str, bool | int | float] = {"linearization_level": 0, "cp_model_probing_level": 0}
"""As for loops alone; strong propagation of disjunctions costs too much with optional intervals."""


@dataclass(frozen=True, slots=True)
class Options:
    """Limits per question to the solver, and the levels after the interval in their order."""

    limits: Limits = field(default_factory=lambda: Limits(deterministic_s=10.0))
    objective: tuple[str, ...] = OBJECTIVE
    cost_model: str = "cycles of the loop as given"


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
        NoWarpSchedule: none was found.
    """
    options = options or Options()
    tell = tell or (lambda _: None)
    network = network_of(warps.loop)
    bound = interval_bound(warps, network)
    longest = max(bound.value, serial_interval(network))
    _refuse_too_many_registers(warps, longest)
    bound = paced_bound(warps, bound, 2 * longest)
    ii, found, bound = _least_interval(warps, network, bound, options, tell)
    point = found.point
    bounds: dict[str, Bound] = {}
    fixed: dict[str, int] = {}
    for name in options.objective[1:]:
        least = _bound(warps, network, ii, name, fixed)
        if name in found.proven:
            value = found.proven[name]
            least = _raised(_walked(warps, ii, name, least, fixed, value), value, found.report)
        else:
            value, point, least = _next_level(warps, network, ii, name, least, fixed, point, options, tell)
        fixed[name] = value
        bounds[name] = least
    # A later level may have found better values of earlier ones whose optimum was left open.
    levels = [_level("ii", ii, bound)]
    levels += [_level(name, value_at(warps, network, ii, name, point), bounds[name]) for name in bounds]
    levels = with_logs(warps, ii, levels)
    certificate = Certificate(f"pipeline/{warps.loop.name}", options.cost_model, tuple(levels))
    return Solution(warp_schedule(warps, network, ii, point), certificate)


def _walked(warps: WarpLoop, ii: int, name: str, bound: Bound, fixed: dict[str, int], value: int) -> Bound:
    """Return the better of a bound and what the assignments say."""
    if bound.value >= value:
        return bound
    walked = walked_bound(warps, ii, name, fixed, value)
    return walked if walked is not None and walked.value > bound.value else bound


def _refuted(bound: Bound, ii: int, report: SolverReport) -> Bound:
    """Return the bound above an interval that the solver refutes, with the basis below the first one."""
    plain = bound.proof not in (ProofKind.SOLVER, ProofKind.ENUMERATION)
    basis = {"value": bound.value, "proof": bound.proof.value, "evidence": bound.evidence}
    evidence = {
        "basis": basis if plain else bound.evidence["basis"],
        "refuted": [ii] if plain else [*bound.evidence["refuted"], ii],
        **report.evidence(),
    }
    return Bound(ii + 1, ProofKind.SOLVER, evidence)


def refuse_impossible(warps: WarpLoop) -> None:
    """Refuse, without search, a loop that no interval lets run over warp groups; raises as `schedule`."""
    network = network_of(warps.loop)
    longest = max(interval_bound(warps, network).value, serial_interval(network))
    _refuse_too_many_registers(warps, longest)
    if refuted_by_walk(warps, 2 * longest):
        raise NoWarpSchedule(loop=warps.loop.name, groups=warps.limits.most_groups, ii=2 * longest)


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


@dataclass(frozen=True, slots=True)
class _Found:
    """A first schedule at an interval, and the levels proven optimal on the way to it."""

    point: Point
    proven: dict[str, int]
    report: SolverReport | None


def _least_interval(
    warps: WarpLoop, network: Network, bound: Bound, options: Options, tell: Callable[[str], None]
) -> tuple[int, _Found, Bound]:
    """Try the bound, then grow; refuted intervals right above the bound raise it."""
    ii, last = bound.value, serial_interval(network) * 2
    for _ in range(MOST_INTERVALS):
        if ii > last:
            break
        if bound.value == ii and bound.proof is not ProofKind.SOLVER and refuted_by_walk(warps, ii):
            refuted = bound.evidence.get("refuted", []) if bound.proof is ProofKind.ENUMERATION else []
            bound = raised(bound, ii + 1, [*refuted, ii])
            ii += 1
            continue
        tell(f"interval {ii}: searching")
        found = _by_walk(warps, network, ii, options) or _by_assignment(warps, network, ii, options)
        if found is not None:
            return ii, found, bound
        outcome, point = _first(warps, network, ii, options)
        if point is not None:
            return ii, _Found(point, {}, outcome.report), bound
        step = max(1, ii // 16)
        if outcome.status is Status.INFEASIBLE and bound.value == ii:
            bound = _refuted(bound, ii, outcome.report)
            step = 1 if len(bound.evidence["refuted"]) < MOST_SINGLE_STEPS else step
        ii += step
    raise NoWarpSchedule(loop=warps.loop.name, groups=warps.limits.most_groups, ii=ii)


def _by_walk(warps: WarpLoop, network: Network, ii: int, options: Options) -> _Found | None:
    """Schedule the cheapest assignments that nothing refutes; None when they are many or have no schedule."""
    fixed: dict[str, int] = {}
    for name in decided_levels(options.objective):
        bound = walked_bound(warps, ii, name, fixed, UNREACHED)
        if bound is None or bound.value == UNREACHED:
            return None
        fixed[name] = bound.value
    for groups in survivors(warps, ii, fixed) or ():
        point = _schedule_groups(warps, network, ii, groups, options)[1]
        if point is not None:
            return _Found(point, {}, None)
    return None


def _by_assignment(warps: WarpLoop, network: Network, ii: int, options: Options) -> _Found | None:
    """Groups first, time second; None when no assignment tried has a schedule."""
    points: list[Point] = []

    def attempt(groups: dict[str, int]) -> Status:
        status, point = _schedule_groups(warps, network, ii, groups, options)
        points.extend([point] if point else [])
        return status

    assigned = assign(warps, network, ii, options.objective, options.limits, attempt)
    return _Found(points[-1], assigned.proven, assigned.report) if assigned else None


def _schedule_groups(
    warps: WarpLoop, network: Network, ii: int, groups: dict[str, int], options: Options
) -> tuple[Status, Point | None]:
    """Schedule one assignment: a short horizon for a schedule, then all stages for a refutation."""
    status = Status.UNKNOWN
    for intervals, share in ((1, 0.05), (2, 0.1), (None, 0.2)):
        limit = None if options.limits.deterministic_s is None else options.limits.deterministic_s * share
        joint = assemble(warps, network, ii, intervals, turned=True)
        fix_groups(joint, groups)
        outcome = solve(joint.cp, replace(options.limits, deterministic_s=limit), tuning=modulo.TUNING)
        if outcome.solved:
            return Status.FEASIBLE, read(joint, outcome)
        if intervals is None and outcome.status is Status.INFEASIBLE:
            return Status.INFEASIBLE, None
    return status, None


def schedule_groups(
    warps: WarpLoop, network: Network, ii: int, groups: dict[str, int], options: Options
) -> WarpSchedule | None:
    """Return a schedule of one assignment to groups at an interval, None when none is found within the limits."""
    point = _schedule_groups(warps, network, ii, groups, options)[1]
    return None if point is None else warp_schedule(warps, network, ii, point)


def _first(warps: WarpLoop, network: Network, ii: int, options: Options) -> tuple[Outcome, Point | None]:
    """Ask for any schedule at `ii`: short ones first, in rounds of growing effort; only all stages can refute.

    The time to a first schedule is heavy-tailed, so several small attempts beat one long one.
    """
    halves = (True, False) if half_turn(warps) else (False,)
    attempts = [
        (intervals, turned, half) for half in halves for intervals in SHORT_HORIZONS for turned in (True, False)
    ]
    for share in ROUNDS:
        limit = None if options.limits.deterministic_s is None else options.limits.deterministic_s * share
        for attempt in list(attempts):
            joint = assemble(warps, network, ii, attempt[0], turned=attempt[1])
            if attempt[2]:
                add_half_turn(joint)
            outcome = solve(joint.cp, replace(options.limits, deterministic_s=limit), tuning=TUNING)
            if outcome.solved:
                return outcome, read(joint, outcome)
            if outcome.status is Status.INFEASIBLE:
                attempts.remove(attempt)
    joint = assemble(warps, network, ii, None)
    outcome = solve(joint.cp, options.limits, tuning=TUNING)
    return outcome, read(joint, outcome) if outcome.solved else None


def _next_level(
    warps: WarpLoop,
    network: Network,
    ii: int,
    name: str,
    bound: Bound,
    fixed: dict[str, int],
    point: Point,
    options: Options,
    tell: Callable[[str], None],
) -> tuple[int, Point, Bound]:
    value = value_at(warps, network, ii, name, point)
    if value == bound.value:
        return value, point, bound
    bound = _walked(warps, ii, name, bound, fixed, value)
    if value == bound.value:
        return value, point, bound
    tell(f"interval {ii}: {name} {value}, at least {bound.value}")
    question = _Question(warps, network, ii, name, fixed, options)
    if half_turn(warps) and _is_half_turned(warps, network, ii, point):
        value, point, _, _ = _improve(question, bound.value, value, point, None, half=True)
        if value == bound.value:
            return value, point, bound
    left = survivors(warps, ii, {**fixed, name: value - 1})
    if left is None:
        value, point, proven, report = _improve(question, bound.value, value, point, None)
        return value, point, _raised(bound, min(proven, value), report)
    answers: list[tuple[int, SolverReport | None]] = []
    shared = replace(question, options=replace(options, limits=_share(options.limits, 1 / max(1, len(left)))))
    for groups in left:
        value, point, proven, report = _improve(shared, bound.value, value, point, groups)
        for _ in range(MOST_DECISIONS):
            if proven >= value:
                break
            before = value
            value, point, proven, report = _improve(shared, bound.value, value, point, groups, decide=True)
            if value == before:
                break
        answers.append((proven, report))
    weakest, answered = min(answers, key=lambda answer: answer[0], default=(value, None))
    return value, point, _raised(bound, min(weakest, value), answered)


def _share(limits: Limits, share: float) -> Limits:
    """Return a share of the deterministic time."""
    return replace(limits, deterministic_s=None if limits.deterministic_s is None else limits.deterministic_s * share)


def _is_half_turned(warps: WarpLoop, network: Network, ii: int, point: Point) -> bool:
    index = warps.loop.index
    return all(
        point.starts[index[other]] == point.starts[index[name]] + ii // 2 for name, other in half_turn(warps).items()
    )


@dataclass(frozen=True, slots=True)
class _Question:
    """A level to improve at an interval, the levels before it held."""

    warps: WarpLoop
    network: Network
    ii: int
    name: str
    fixed: dict[str, int]
    options: Options


def _improve(
    question: _Question,
    least: int,
    value: int,
    point: Point,
    groups: dict[str, int] | None,
    *,
    half: bool = False,
    decide: bool = False,
) -> tuple[int, Point, int, SolverReport]:
    """Look for a lesser value, over one assignment or all; return the best one, and what it cannot be less than.

    With `decide` for any lesser value, not for the least: often refuted at once where the minimum is never proven.
    """
    warps, network, ii, name = question.warps, question.network, question.ii, question.name
    intervals = None if name != "length" else -(-value // ii)
    joint = assemble(warps, network, ii, intervals, turned=name != "length")
    if groups is not None:
        fix_groups(joint, groups)
    if half:
        add_half_turn(joint)
    for before, limit in question.fixed.items():
        joint.cp.add(_expression(joint, before) <= limit)
    objective = _expression(joint, name)
    joint.cp.add(objective >= least)
    joint.cp.add(objective <= (value if groups is None else value - 1))
    if not decide:
        joint.cp.minimize(objective)
    first = hint(joint, point) if groups in (None, point.groups) else []
    limits = _share(question.options.limits, HALF_SHARE) if half else question.options.limits
    outcome = solve(joint.cp, limits, hint=first, tuning=TUNING if groups is None else modulo.TUNING)
    if outcome.status is Status.INFEASIBLE:
        return value, point, value, outcome.report
    if outcome.solved:
        found = read(joint, outcome)
        reached = value_at(warps, network, ii, name, found)
        if reached <= value:
            point, value = found, reached
    proven = outcome.value if outcome.status is Status.OPTIMAL and not decide else outcome.bound
    return value, point, least if proven is None else max(least, -int(-proven // 1)), outcome.report


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
        case "groups":
            return group_bound(warps, ii)
        case "registers":
            return register_bound(warps, ii, fixed.get("traffic_bytes"))
        case _:
            return length_bound(network, ii)


def _expression(joint: Joint, name: str) -> cp_model.LinearExprT:
    match name:
        case "traffic_bytes":
            return traffic(joint)
        case "barriers":
            return barrier_count(joint)
        case "groups":
            return group_count(joint)
        case "registers":
            assert joint.peak is not None
            return joint.peak
        case _:
            network = joint.base.network
            if joint.base.length is None:
                most = (joint.stages + 1) * joint.base.ii + max(network.latency)
                add_length(joint.base, 0, most)
            assert joint.base.length is not None
            return joint.base.length


def _level(name: str, value: int, bound: Bound) -> Level:
    status = Status.OPTIMAL if bound.value == value else Status.FEASIBLE
    return Level(name, UNITS.get(name, "1"), value, bound.value, status, bound.proof, bound.evidence)
