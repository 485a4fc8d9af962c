"""Questions about a loop at one interval, answered order by order of its full unit (`framed`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ortools.sat.python import cp_model

from treadle.ir.certificate import Status
from treadle.ir.tile.constraints import arcs
from treadle.ir.tile.orders import Order, parts
from treadle.ir.tile.turns import Memory
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.backend import Outcome, SolverReport
from treadle.solvers.modulo import model as modulo
from treadle.solvers.modulo.network import Network
from treadle.solvers.pipeline.announcements import answered
from treadle.solvers.pipeline.assemble import add_half_turn, assemble
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.framed import (
    Case,
    Framed,
    add_iteration,
    assemble_case,
    framed,
    framed_whole,
    shortened,
    shortest_by_paths,
    turns,
)
from treadle.solvers.pipeline.model import Joint, barrier_count, fix_groups, group_count, traffic, wait_count
from treadle.solvers.pipeline.points import Point, read, value_at
from treadle.solvers.pipeline.symmetry import half_turn

TUNING: dict[str, bool | int | float] = {"linearization_level": 0, "cp_model_probing_level": 0}
"""As for loops alone; strong propagation of disjunctions costs too much with optional intervals."""
SHORTEST: dict[str, bool | int | float] = {**TUNING, "optimize_with_core": True}
"""For the length, whose least value is near what paths say: from there upwards, where other levels descend."""
EFFORTS = (0.05, 0.25, 1.0)
"""Shares of a question's limit for all its orders together, round by round."""
LEAST_SHARE = 0.3
"""Share of the effort for the least traffic there may be, which keeps most operations together."""
WIDENING = 16
"""The second range of lengths that is asked for is this part of the interval."""
STEPS = (1, 2, 8)
"""Traffic above its bound that is looked for step by step, in the fewest bytes that anything takes."""
PLACING_SHARE = 0.2
"""Share of the limit for placing the operations of roles around a core."""


@dataclass(frozen=True, slots=True)
class Refuted:
    """An order without a schedule that keeps within levels at the values of `most`, and who says so."""

    order: Order
    most: dict[str, int]
    report: SolverReport

    def covers(self, most: dict[str, int]) -> bool:
        """Whether all that keeps within `most` keeps within these levels too."""
        return all(name in most and most[name] <= limit for name, limit in self.most.items())


@dataclass(slots=True)
class Search:
    """A loop at an interval: its core under every order that is not refuted yet, and what may still be spent."""

    warps: WarpLoop
    network: Network
    ii: int
    budget: Budget
    frame: Framed
    walkable: bool
    """Whether the assignments to groups can be gone through."""
    refuted: set[Order] = field(default_factory=set[Order])
    """Orders that have no schedule at all."""
    within: list[Refuted] = field(default_factory=list["Refuted"])
    """Orders that have none within levels at some values."""
    traffic: Answer | None = None
    """What is known of the least traffic at the interval."""
    memories: dict[int, Memory] = field(default_factory=dict[int, Memory])
    """What questions over turns leave to later ones, by interval."""

    @property
    def cases(self) -> list[Case]:
        """Orders that may have a schedule."""
        return [case for case in self.frame.cases if case.order not in self.refuted]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question: a schedule, if one was found, and the value that none is below."""

    point: Point | None
    value: int | None
    bound: int | None
    """None without an objective, or where nothing is proven."""
    status: Status
    report: SolverReport | None


def searched(warps: WarpLoop, network: Network, ii: int, budget: Budget, *, walkable: bool) -> Search:
    """Return the search at an interval."""
    return Search(warps, network, ii, budget, framed(warps, ii), walkable)


def any_schedule(search: Search, groups: dict[str, int] | None, share: float) -> Answer:
    """Look for any schedule, over one assignment to groups or all of them: of the core, then of the whole loop."""
    answer = _any(search, search.frame, groups, share)
    if answer.point is None and answer.status is not Status.INFEASIBLE and not search.frame.whole:
        answer = whole_schedule(search, groups, share)
    return answer


def soon_schedule(search: Search, groups: dict[str, int], share: float) -> Answer:
    """Look for any schedule over one assignment to groups, of the core alone, in one round."""
    return _any(search, search.frame, groups, share, [Round(1.0)])


def whole_schedule(search: Search, groups: dict[str, int] | None, share: float) -> Answer:
    """Look for any schedule of the whole loop at once, over one assignment to groups or all of them."""
    return _any(search, framed_whole(search.warps, search.ii, None), groups, share)


def _any(
    search: Search,
    frame: Framed,
    groups: dict[str, int] | None,
    share: float,
    rounds: list[Round] | None = None,
) -> Answer:
    open_, report = _open(search, frame), None
    for round_ in _rounds(frame) if rounds is None else rounds:
        for case in _asked(frame, open_, round_):
            if search.budget.over:
                break
            joint = assemble_case(frame, case)
            if groups is not None:
                fix_groups(joint, _core_groups(joint, groups))
            if round_.half:
                add_half_turn(joint)
            limits = search.budget.share(share * round_.effort / max(1, len(open_)))
            tuning = TUNING if groups is None else modulo.TUNING
            outcome = answered(joint, limits, search.budget, tuning)
            report = outcome.report
            point = _placed(search, joint, outcome) if outcome.solved else None
            if point is not None:
                return Answer(point, None, None, Status.FEASIBLE, report)
            if outcome.status is Status.INFEASIBLE and round_.refutes:
                open_ = [left for left in open_ if left.order != case.order]
                search.refuted |= set() if groups is not None else {case.order}
    return Answer(None, None, None, Status.UNKNOWN if open_ else Status.INFEASIBLE, report)


@dataclass(frozen=True, slots=True)
class Round:
    """How open orders are asked: with which effort, in how many intervals beyond paths, sub-tiles half a turn apart.

    Only rounds over all intervals and without a half turn refute.
    """

    effort: float
    intervals: int | None = None
    half: bool = False

    @property
    def refutes(self) -> bool:
        """Whether an order without a schedule has none at all."""
        return self.intervals is None and not self.half


def _rounds(frame: Framed, *, closing: bool = False) -> list[Round]:
    """Return the rounds in order; `closing` where a schedule is known, and it is likely that there is none better."""
    low, middle, high = EFFORTS
    if closing:
        return [Round(low), *_rounds(frame)]
    halves = [[Round(effort, 1, half=True)] if half_turn(frame.warps) else [] for effort in (low, middle)]
    return [*halves[0], Round(low), Round(low, 1), *halves[1], Round(middle), Round(middle, 1), Round(high)]


def _asked(frame: Framed, open_: Iterable[Case], round_: Round) -> list[Case]:
    """Return the orders that a round asks for, with its windows: those first that are soon refuted, or have room."""
    cases = [case for case in open_ if not round_.half or turns(frame, case)]
    cases.sort(key=lambda case: case.room if round_.refutes else -case.room)
    return [shortened(case, frame.ii, round_.intervals) for case in cases]


def _still(frame: Framed, open_: dict[Order, int]) -> list[Case]:
    return [case for case in frame.cases if case.order in open_]


def _open(search: Search, frame: Framed) -> list[Case]:
    return [case for case in frame.cases if case.order not in search.refuted]


@dataclass(frozen=True, slots=True)
class Target:
    """A level to make small: below `below`, not below `least`, levels before it held at `fixed`."""

    name: str
    fixed: dict[str, int]
    least: int
    below: int

    @property
    def most_bytes(self) -> int | None:
        """Most bytes between groups, where they are decided or asked for."""
        return self.below - 1 if self.name == "traffic_bytes" else self.fixed.get("traffic_bytes")

    @property
    def most_registers(self) -> int | None:
        """Most registers of a group, where they are decided or asked for."""
        return self.below - 1 if self.name == "registers" else self.fixed.get("registers")


def least(search: Search, target: Target, share: float) -> Answer:
    """Look for the least value of a level; the bound is `below` where every order is refuted."""
    if target.name == "length":
        return _shortest(search, target, share)
    if target.name == "traffic_bytes" and target.below > target.least + 1:
        answer = least(search, replace(target, below=target.least + 1), share * LEAST_SHARE)
        if answer.point is not None:
            return answer
        raised = target.least if answer.bound is None else answer.bound
        target = replace(target, least=min(raised, target.below))
    return _in_range(search, target, share)


def _in_range(search: Search, target: Target, share: float) -> Answer:
    """As `least`, all values of the range at once: over the core, then over the whole loop."""
    frame = framed(search.warps, search.ii, target.most_bytes, target.most_registers)
    answer = _least(search, frame, target, share)
    if answer.bound == answer.value or search.frame.whole:
        return answer
    best = answer.value if answer.value is not None else target.below
    bound = target.least if answer.bound is None else answer.bound
    closer = replace(target, below=best, least=bound)
    frame = framed_whole(search.warps, search.ii, closer.most_bytes, closer.most_registers)
    again = _least(search, frame, closer, share)
    return again if again.point is not None else replace(again, point=answer.point)


def traffic_steps(warps: WarpLoop) -> tuple[int, ...]:
    """Return bytes above the least traffic that are asked about one after the other, the first of them none."""
    step = min((crossing.bytes for crossing in warps.crossings if crossing.bytes and crossing.allowed), default=0)
    return (0, *(width * step for width in STEPS)) if step else (0,)


def least_traffic(search: Search, least_bytes: int, share: float) -> Answer:
    """Look for the least traffic from what is known of it upwards: what stays together for few bytes is soon decided.

    The answer has no point where there is none, or none was found, within `STEPS` of wider and wider ranges.
    """
    bound, report = least_bytes, None
    for more in traffic_steps(search.warps)[1:] or (0,):
        target = Target("traffic_bytes", {}, bound, least_bytes + more + 1)
        if target.below <= bound:
            continue
        answer = _in_range(search, target, share)
        report = answer.report or report
        bound = bound if answer.bound is None else max(bound, answer.bound)
        if answer.point is not None or bound < target.below or search.budget.over:
            return replace(answer, bound=bound, report=report)
    return Answer(None, None, bound, Status.UNKNOWN, report)


def _shortest(search: Search, target: Target, share: float) -> Answer:
    """Look for the least length: from what paths say upwards, since windows are the shorter the less is asked for."""
    warps, ii = search.warps, search.ii
    low = shortest_by_paths(warps, ii, target.fixed, target.least, target.below)
    report: SolverReport | None = None
    for width in (0, ii // WIDENING, ii, target.below):
        if low == target.below:
            break
        below = min(target.below, low + width + 1)
        frame = framed_whole(warps, ii, target.most_bytes, target.most_registers, below - 1)
        answer = _least(search, frame, replace(target, least=low, below=below), share)
        report = answer.report or report
        if answer.point is not None:
            return answer
        low = low if answer.bound is None else answer.bound
    return Answer(None, target.below, low, Status.OPTIMAL if low == target.below else Status.FEASIBLE, report)


def _least(search: Search, frame: Framed, target: Target, share: float) -> Answer:
    """As `least`, over the core or the whole loop: little effort for every order first, then more for those open."""
    best, point = target.below, None
    over = [known for known in search.within if known.covers({**target.fixed, target.name: target.below - 1})]
    report = over[0].report if over else None
    gone = {known.order for known in over}
    open_ = {case.order: target.least for case in _open(search, frame) if case.order not in gone}
    closed: list[int] = []
    for round_ in _rounds(frame, closing=target.name not in ("traffic_bytes",)):
        for case in _asked(frame, _still(frame, open_), round_):
            if best <= target.least or search.budget.over:
                break
            joint = assemble_case(frame, case)
            if round_.half:
                add_half_turn(joint)
            asked, offset = best, _state(search, joint, target, best)
            limits = search.budget.share(share * round_.effort / max(1, len(open_)))
            tuning = SHORTEST if target.name == "length" else TUNING
            outcome = answered(joint, limits, search.budget, tuning)
            report = outcome.report
            found = _placed(search, joint, outcome) if outcome.solved else None
            reached = best if found is None else value_at(search.warps, search.network, search.ii, target.name, found)
            if reached < best:
                point, best = found, reached
            if not round_.refutes:
                continue
            if outcome.bound is not None:
                open_[case.order] = max(open_[case.order], -int(-outcome.bound // 1) + offset)
            if outcome.status is Status.INFEASIBLE:
                search.within.append(Refuted(case.order, {**target.fixed, target.name: asked - 1}, outcome.report))
            if outcome.status in (Status.INFEASIBLE, Status.OPTIMAL):
                proven = open_.pop(case.order)
                closed += [proven] if outcome.status is Status.OPTIMAL else []
    bound = min([*closed, *open_.values(), best])
    return Answer(point, best, bound, Status.OPTIMAL if bound == best else Status.FEASIBLE, report)


def _state(search: Search, joint: Joint, target: Target, best: int) -> int:
    """Hold levels before the target and minimize it below the best known; return what the core leaves out of it."""
    state_levels(search, joint, target.fixed)
    if target.name == "length":
        objective: cp_model.LinearExprT = add_iteration(joint, best - 1)
    else:
        objective = _expression(search.warps, joint, target.name)
    offset = _offset(search, joint, target.name)
    joint.cp.add(objective >= target.least - offset)
    joint.cp.add(objective <= best - 1 - offset)
    joint.cp.minimize(objective)
    return offset


def state_levels(search: Search, joint: Joint, most: dict[str, int]) -> None:
    """Hold levels at their values or below."""
    for level, limit in most.items():
        joint.cp.add(_expression(search.warps, joint, level) <= limit - _offset(search, joint, level))


def _offset(search: Search, joint: Joint, level: str) -> int:
    """Return what the operations that a core leaves out add to a level: crossings of roles, and their groups."""
    gone = len(search.warps.roles) - len(joint.warps.roles)
    if level == "groups":
        return gone
    if level not in ("traffic_bytes", "barriers") or not gone:
        return 0
    kept = joint.warps.loop.index
    ends = search.warps.loop.dependences
    left = [
        c for c in search.warps.crossings if not {ends[c.dependence].source, ends[c.dependence].target} <= set(kept)
    ]
    role = {issue.operation: issue.role for issue in search.warps.issues}
    across = [c for c in left if role[ends[c.dependence].source] != role[ends[c.dependence].target]]
    return sum(c.bytes if level == "traffic_bytes" else c.barriers for c in across)


def _expression(warps: WarpLoop, joint: Joint, name: str) -> cp_model.LinearExprT:
    match name:
        case "traffic_bytes":
            return traffic(joint)
        case "barriers":
            return barrier_count(joint)
        case "exposed_waits":
            return wait_count(joint, warps)
        case "groups":
            return group_count(joint)
        case "registers":
            assert joint.peak is not None
            return joint.peak
        case _:
            raise KeyError(name)


def _core_groups(joint: Joint, groups: dict[str, int]) -> dict[str, int]:
    """Return an assignment without the groups of roles that the core leaves out, groups named in order of first use."""
    core = joint.warps
    names = {groups[issue.operation]: core.roles.index(issue.role) for issue in core.issues if issue.role}
    for issue in core.issues:
        names.setdefault(groups[issue.operation], max([len(core.roles) - 1, *names.values()]) + 1)
    return {issue.operation: names[groups[issue.operation]] for issue in core.issues}


def _placed(search: Search, joint: Joint, outcome: Outcome) -> Point | None:
    """Return a schedule of the loop from one of its core: parts moved by whole intervals, roles around them."""
    found = read(joint, outcome)
    if joint.first is not None:
        return found
    warps, ii = search.warps, search.ii
    roles = {issue.operation: warps.roles.index(issue.role) for issue in warps.issues if issue.role}
    shift = len(warps.roles) - len(joint.warps.roles)
    groups = {**{name: group + shift for name, group in found.groups.items()}, **roles}
    whole = assemble(warps, search.network, ii, None, registers=False)
    fix_groups(whole, groups)
    core = joint.warps.loop
    for part in parts(core, arcs(core)):
        names = [core.operations[vertex].name for vertex in part]
        first = whole.start(names[0])
        for vertex, name in zip(part[1:], names[1:], strict=True):
            whole.cp.add(whole.start(name) == first + found.starts[vertex] - found.starts[part[0]])
        if part[0] != 0:
            turns = whole.cp.new_int_var(-whole.stages - 1, whole.stages + 1, "turns")
            other = whole.start(core.operations[0].name)
            whole.cp.add(first == other + found.starts[part[0]] - found.starts[0] + ii * turns)
    outcome = answered(whole, search.budget.share(PLACING_SHARE), search.budget, modulo.TUNING)
    return read(whole, outcome) if outcome.solved else None
