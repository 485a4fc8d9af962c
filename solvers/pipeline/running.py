"""A schedule whose warp program runs at its interval, where that of the schedule found does not.

Programs keep rules that the scheduling problem leaves out, since they bind few loops: a slot of a ring is given back to
another group in order with all else that the reader's group issues, and the signal takes time; of a queue that can only
be waited for as a whole (`tcgen05.wait`) nothing may be in flight when something of it is waited for. With groups and
levels held, both are few differences of starts, and whatever bound the levels is true of the schedule found here, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, Status
from treadle.ir.tile.loop import Reader, Ring
from treadle.ir.tile.warps import WarpLoop, WarpSchedule, check_warps
from treadle.ir.warp.facts import Facts
from treadle.solvers.backend import Limits
from treadle.solvers.interruption import requested
from treadle.solvers.modulo import model as modulo
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.modulo.network import Network, network_of
from treadle.solvers.pipeline.announcements import add_handoff_slots, answered
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.closing import Found
from treadle.solvers.pipeline.compaction import Arc, ordered_arcs
from treadle.solvers.pipeline.framed import Case, Framed, add_iteration, assemble_case, framed_whole
from treadle.solvers.pipeline.model import Joint, fix_groups
from treadle.solvers.pipeline.observed import Observe, as_observed
from treadle.solvers.pipeline.plain_levels import levels_without_search
from treadle.solvers.pipeline.points import Point, hint, read, value_at, warp_schedule
from treadle.solvers.pipeline.search import searched, state_levels
from treadle.solvers.pipeline.solve import Solution

TOLERANCE = 0.01
"""Share of the interval by which a program may be slower, or faster."""
LONGER = 1.5
"""Longest iterations that are asked for, over that of the solution: only where length is the last level."""
SHARE = 0.1
"""Share of the limit that a question may take."""
PARTS = 4
"""Parts of what a program is slower by, that longer intervals are tried in."""
MOST_ROUNDS = 5
"""How often a schedule is changed for the way it runs."""

Tell = Callable[[str], None]


def at_pace(
    warps: WarpLoop, solution: Solution, facts: Facts, observe: Observe, limits: Limits, tell: Tell
) -> Solution:
    """Return a solution of the same groups and levels whose program runs at the interval; the given one if none is.

    Where only a longer iteration does, and length is the last level, its value is that, and its bound what it was. An
    interval that is not proven least and that its program is faster than becomes shorter; one that no program keeps
    becomes as long as it takes.

    Args:
        warps: the loop.
        solution: a schedule with its certificate.
        facts: what operations read and write, in the schedule's groups.
        observe: how schedules run.
        limits: as of a solve.
        tell: is told what is looked for.
    """
    network, budget = network_of(warps.loop), Budget.of(limits)
    kept = changed = solution
    longest = int(LONGER * solution.schedule.schedule.length_cycles)
    longest = min(
        [longest, *(2 * int(level.bound or 0) for level in solution.certificate.levels if level.name == "length")]
    )
    for _ in range(MOST_ROUNDS):
        ii = changed.schedule.schedule.ii_cycles
        seen = observe(changed.schedule)
        if seen is not None and seen[0] <= (1 + TOLERANCE) * ii:
            kept = changed
        if seen is None or abs(seen[0] / ii - 1) <= TOLERANCE or requested():
            break
        tell(f"interval {ii}: runs at {seen[0]}, looking for a schedule that is kept")
        ask = _Asked(warps, network, changed, facts, budget, longest)
        other = (
            (_slower(ask, observe) or _longer(ask, seen[0], observe)) if seen[0] > ii else _shorter(ask, seen, observe)
        )
        if other is None:
            break
        changed = other
    return kept


@dataclass(frozen=True, slots=True)
class _Asked:
    """A solution that does not run at its interval, and what another one is asked for with."""

    warps: WarpLoop
    network: Network
    solution: Solution
    facts: Facts
    budget: Budget
    longest: int
    """Cycles that an iteration may have."""

    @property
    def made(self) -> WarpSchedule:
        """The schedule."""
        return self.solution.schedule

    @property
    def ii(self) -> int:
        """Its interval."""
        return self.made.schedule.ii_cycles

    def level(self, name: str) -> int:
        """Return the value of a level, the length also where it is none."""
        values = {level.name: int(level.value) for level in self.solution.certificate.levels}
        return values.get(name, self.made.schedule.length_cycles)

    def most(self, length_cycles: int) -> dict[str, int]:
        """Return the levels beside interval and length, and so long an iteration."""
        names = [level.name for level in self.solution.certificate.levels if level.name not in ("ii", "length")]
        return {**{name: self.level(name) for name in names}, "length": length_cycles}

    def known(self) -> Point:
        """Return the schedule in raw form."""
        starts = self.made.schedule.start_cycles
        return Point(tuple(starts[operation.name] for operation in self.warps.loop.operations), self.made.groups)


def _slower(ask: _Asked, observe: Observe) -> Solution | None:
    """Return a schedule within the levels whose program is not slower than the interval; None if none is found."""
    last = ask.solution.certificate.levels[-1].name == "length"
    for longer in (False, True) if last else (False,):
        most = ask.most(ask.longest if longer else ask.level("length"))
        point = _point(ask, ask.ii, most, shortest=False)
        other = None if point is None else warp_schedule(ask.warps, ask.network, ask.ii, point)
        seen = None if other is None else observe(other)
        if point is not None and other is not None and seen is not None and seen[0] <= (1 + TOLERANCE) * ask.ii:
            return Solution(other, _restated(ask, point))
    return None


def _longer(ask: _Asked, pace: int, observe: Observe) -> Solution | None:
    """Return a schedule at an interval below the pace that its program keeps; None where the interval is proven."""
    first = ask.solution.certificate.levels[0]
    bound = Bound(int(first.bound or 0), first.proof, first.evidence)
    for part in range(1, PARTS) if first.name == "ii" and bound.value < ask.ii else ():
        ii = ask.ii + (pace - ask.ii) * part // PARTS
        point = _point(ask, ii, ask.most(ask.longest), shortest=False)
        seen = None if point is None else observe(warp_schedule(ask.warps, ask.network, ii, point))
        if point is not None and seen is not None and seen[0] <= (1 + TOLERANCE) * ii:
            return _at(ask, Found(ii, point), bound)
    return None


def _at(ask: _Asked, found: Found, bound: Bound) -> Solution:
    """Return a schedule at another interval as a solution, with bounds that need no search."""
    order = tuple(level.name for level in ask.solution.certificate.levels)
    levels = levels_without_search(ask.warps, ask.network, found.ii, bound, found.point, order, walked=True)
    other = warp_schedule(ask.warps, ask.network, found.ii, found.point)
    return Solution(other, replace(ask.solution.certificate, levels=levels))


def _shorter(ask: _Asked, seen: tuple[int, dict[str, int]], observe: Observe) -> Solution | None:
    """Return the schedule that a faster program is, at its shorter interval; None where that is proven least.

    The orders of its run are packed; where that is far from its pace, starts are asked for at that.
    """
    pace, starts = seen
    first = ask.solution.certificate.levels[0]
    bound = Bound(int(first.bound or 0), first.proof, first.evidence)
    if first.name != "ii" or bound.value >= ask.ii:
        return None
    search = searched(ask.warps, ask.network, ask.ii, ask.budget, walkable=False)
    found = as_observed(search, Found(ask.ii, ask.known()), bound.value, observe)
    if pace < (1 - TOLERANCE) * found.ii:
        orders = Point(tuple(starts[operation.name] for operation in ask.warps.loop.operations), ask.made.groups)
        found = _asked_for(ask, pace, orders, bound.value, found.ii) or found
    if found.ii >= ask.ii:
        return None
    return _at(ask, found, bound)


def _asked_for(ask: _Asked, pace: int, orders: Point, least: int, below: int) -> Found | None:
    """Return starts at a pace, or at longer intervals up to one that there are starts at, in the orders of a run or in
    any.
    """
    kept = tuple(ordered_arcs(ask.warps, ask.network, pace, orders))
    near = max(pace, least), max(int(pace / (1 - TOLERANCE)), least)
    for ii, arcs in product(dict.fromkeys((*near, (near[1] + below) // 2)), (kept, ())):
        if ii < below:
            point = _point(ask, ii, ask.most(ask.longest), arcs, shortest=False)
            if point is not None:
                within = ask.most(value_at(ask.warps, ask.network, ii, "length", point))
                return Found(ii, _point(ask, ii, within, arcs, shortest=True) or point)
    return None


def _restated(ask: _Asked, point: Point) -> Certificate:
    """Return the certificate with the values of a solution that is no better at any level."""
    levels: list[Level] = []
    for level in ask.solution.certificate.levels:
        value = ask.ii if level.name == "ii" else value_at(ask.warps, ask.network, ask.ii, level.name, point)
        status = Status.OPTIMAL if level.bound == value else Status.FEASIBLE
        levels.append(replace(level, value=value, status=status))
    return replace(ask.solution.certificate, levels=tuple(levels))


def _point(ask: _Asked, ii: int, most: dict[str, int], arcs: tuple[Arc, ...] = (), *, shortest: bool) -> Point | None:
    """Return a legal schedule within levels whose program keeps its rules and orders, None if none is found.

    With `shortest` the iteration is to be short.
    """
    warps, budget = ask.warps, ask.budget
    search = searched(warps, ask.network, ii, budget, walkable=False)
    levels = {name: value for name, value in most.items() if name != "length"}
    made = replace(ask.made, schedule=replace(ask.made.schedule, ii_cycles=ii))
    frame = framed_whole(warps, ii, levels.get("traffic_bytes"), levels.get("registers"), most["length"])
    for case in frame.cases:
        if budget.over:
            break
        joint = _joint(frame, case, made, ask.facts)
        for source, target, delay, distance in arcs:
            joint.cp.add(joint.base.starts[target] >= joint.base.starts[source] + delay - ii * distance)
        state_levels(search, joint, levels)
        length = add_iteration(joint, most["length"])
        if shortest:
            joint.cp.minimize(length)
        for variable, value in hint(joint, ask.known()):
            joint.cp.add_hint(variable, value)
        outcome = answered(joint, budget.share(SHARE), budget, modulo.TUNING)
        point = read(joint, outcome) if outcome.solved else None
        if point is not None and not check_warps(warps, warp_schedule(warps, ask.network, ii, point)):
            return point
    return None


def _joint(frame: Framed, case: Case, made: WarpSchedule, facts: Facts) -> Joint:
    joint = assemble_case(frame, case)
    fix_groups(joint, made.groups)
    add_handoff_slots(joint)
    moments: dict[int, list[cp_model.IntVar]] = defaultdict(list)
    for ring, reader in _given_back(frame.warps, made, facts):
        at = joint.start(reader.operation) + reader.hold_cycles
        if not _by_hardware(facts, reader.operation):
            at, slot = _announced(joint, at)
            moments[made.groups[reader.operation]].append(slot)
        signal = frame.warps.limits.release_cycles
        filled = joint.start(ring.producer) + frame.ii * (joint.base.depths[ring.name] - reader.distance)
        joint.cp.add(filled >= at + signal)
    _add_between_issues(joint, made, moments)
    for (waiting, later), flying, cycles in _drained(frame.warps, made, facts):
        turn = joint.cp.new_int_var(-joint.stages - 1, joint.stages + 1, f"{flying} before {waiting}")
        ahead = joint.start(waiting) + later - joint.start(flying)
        joint.cp.add(ahead >= frame.ii * turn + cycles)
        joint.cp.add(ahead <= frame.ii * (turn + 1))
    return joint


def _given_back(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> Iterator[tuple[Ring, Reader]]:
    """Yield the rings with the readers in other groups, which give slots back through barriers."""
    for ring in warps.loop.rings:
        for reader in ring.readers:
            if made.groups.get(reader.operation, -1) not in (-1, made.groups.get(ring.producer, -1)):
                yield ring, reader


def _by_hardware(facts: Facts, operation: str) -> bool:
    """Whether hardware gives a slot back at the end of an operation."""
    performed = facts.of(operation)
    return performed.asynchronous and not performed.queue and not performed.transaction


def _announced(joint: Joint, at: cp_model.LinearExpr) -> tuple[cp_model.LinearExpr, cp_model.IntVar]:
    """Return a moment from `at` on at which a group gives a signal, and its slot in the interval."""
    ii = joint.base.ii
    longest = max(issue.issue_cycles for issue in joint.warps.issues)
    wait = joint.cp.new_int_var(0, max(0, longest - 1), "release waits")
    slot = joint.cp.new_int_var(0, ii - 1, "release")
    turn = joint.cp.new_int_var(0, 2 * joint.stages + 2, "")
    joint.cp.add(at + wait == ii * turn + slot)
    return at + wait, slot


def _add_between_issues(joint: Joint, made: WarpSchedule, moments: dict[int, list[cp_model.IntVar]]) -> None:
    """Let no moment of a group lie within an issue of it, modulo the interval."""
    ii, cp = joint.base.ii, joint.cp
    for group, slots in moments.items():
        own = [issue for issue in joint.warps.issues if made.groups[issue.operation] == group and issue.issue_cycles]
        taken = [(joint.slot(issue.operation), issue.issue_cycles) for issue in own] + [(slot, 0) for slot in slots]
        for_group = [
            cp.new_fixed_size_interval_var(slot + shift, cycles, "between")
            for slot, cycles in taken
            for shift in (0, ii)
        ]
        cp.add_no_overlap(for_group)


def _drained(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> Iterator[tuple[tuple[str, int], str, int]]:
    """Yield when a group waits for a queue as a whole, an operation of the queue, and how long that is in flight.

    A group waits so many cycles after an operation starts: when a result is first read, or a slot that was read is to
    be given back.
    """
    latency = {operation.name: operation.latency_cycles for operation in warps.loop.operations}
    holds = {r.operation: r.hold_cycles for ring in warps.loop.rings for r in ring.readers}
    for queue in facts.queues:
        of_groups: dict[int, list[str]] = defaultdict(list)
        for performed in facts.operations if queue.drains else ():
            if performed.queue == queue.name:
                of_groups[made.groups[performed.operation]].append(performed.operation)
        for group, flying in of_groups.items():
            moments = dict.fromkeys(
                (reader, 0) for name in flying for reader in _first_readers(facts, made, name, group)
            )
            moments |= dict.fromkeys((name, holds[name]) for name in flying if name in holds)
            every = [name for name in flying if latency[name] <= made.schedule.ii_cycles]
            yield from ((moment, name, latency[name]) for moment in moments for name in every)


def _first_readers(facts: Facts, made: WarpSchedule, name: str, group: int) -> list[str]:
    """Return the readers of a result within its group that no other reader always comes before."""
    reads = {p.operation: {s.value for s in p.operands if not s.distance} for p in facts.operations}
    readers = [
        p.operation
        for p in facts.operations
        if made.groups[p.operation] == group and any(s.value == name for s in p.operands)
    ]

    def before(reader: str) -> set[str]:
        found: set[str] = set()
        left = [reader]
        while left:
            more = reads.get(left.pop(), set()) - found
            found |= more
            left += more
        return found

    return [reader for reader in readers if not before(reader).intersection(set(readers) - {reader})]
