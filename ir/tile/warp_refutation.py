"""What a proof log has to refute for a claim about a loop over warp groups, whose assignment to groups is given.

With the groups given, crossings have their delays, and what one group issues is one after the other: a problem of times
alone. Whatever it leaves out (the register file that groups share; how long values really stay, unless asked for) gives
it more solutions than there are schedules, so refuting it says more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from treadle.ir.proof_log.problem import Problem, Term
from treadle.ir.tile.assignments import assignments
from treadle.ir.tile.constraints import arcs
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.refutation import Draft, draft
from treadle.ir.tile.register_peaks import Reach
from treadle.ir.tile.warps import WarpLoop


def questions(
    warps: WarpLoop, ii: int, decided: dict[str, int], level: str, bound: int, *, exact: bool
) -> list[Problem]:
    """Return what has to be refuted for `level` to be at least `bound` at `ii`, given the levels decided before.

    One problem for each assignment to groups that counting leaves with a lesser value of the level (`assignments`);
    those that paths or values alone refute are left out. `exact` as in `shorter_over_groups`.

    Raises:
        WalkTooLong: there are too many assignments.
    """
    most = {**decided, level: bound - 1}
    registers = most.get("registers", warps.limits.registers_per_group)
    problems = (
        shorter_over_groups(warps, needs.groups, ii, most.get("length"), registers, exact=exact)
        for needs in assignments(warps, ii, most)
    )
    return [problem for problem in problems if problem is not None]


def shorter_over_groups(
    warps: WarpLoop, groups: dict[str, int], ii: int, most_cycles: int | None, most_registers: int, *, exact: bool
) -> Problem | None:
    """Return the problem of a schedule at interval `ii` over the given groups, no longer than `most_cycles`.

    Without a length, schedules have the stages there may be, and may begin anywhere in the first interval, so the
    operation that is longest on its unit is held at slot 0. `most_registers` are those of any group without a role, the
    fixed ones included; unless `exact`, values take theirs only for as long as longest paths say at least. Returns None
    where paths alone leave no start to some operation, or values alone need more registers. Raises InvalidValue as
    `refutation.shorter`.
    """
    loop = crossed_loop(warps, groups)
    turned = warps.limits.most_stages * ii + ii - 2 + max(o.latency_cycles for o in loop.operations)
    found = draft(loop, ii, turned if most_cycles is None else most_cycles)
    if found is None:
        return None
    if most_cycles is None:
        anchor = max(range(len(loop.operations)), key=lambda vertex: loop.operations[vertex].occupancy_cycles)
        found.problem.equal([found.slot(anchor)], 0)
    roles = {groups[issue.operation] for issue in warps.issues if issue.role}
    for group in sorted(set(groups.values())):
        _add_issue(found, warps, groups, group)
    stays = _stays(warps, loop, groups, ii)
    room = most_registers - warps.limits.fixed_registers
    for group in sorted(set(groups.values()) - roles):
        if not _add_least_registers(found, warps, stays[group], room):
            return None
        if exact:
            _add_registers(found, warps, stays[group], room)
    return found.problem


def crossed_loop(warps: WarpLoop, groups: dict[str, int]) -> Loop:
    """Return the loop with the delays of crossings between groups added to its dependences."""
    dependences = list(warps.loop.dependences)
    for crossing in warps.crossings:
        ends = dependences[crossing.dependence]
        if groups[ends.source] != groups[ends.target]:
            delayed = replace(ends, delay_cycles=ends.delay_cycles + crossing.delay_cycles)
            dependences[crossing.dependence] = delayed
    return replace(warps.loop, dependences=tuple(dependences))


def _add_issue(found: Draft, warps: WarpLoop, groups: dict[str, int], group: int) -> None:
    """Let the group issue one operation at a time modulo the interval: every issue twice, at its slot and one later."""
    issued = [issue for issue in warps.issues if groups[issue.operation] == group and issue.issue_cycles]
    if len(issued) < 2:
        return
    slots = [found.slot(warps.loop.index[issue.operation]) for issue in issued]
    again = [Term(slot.variable, 1, slot.offset + found.ii) for slot in slots]
    cycles = [issue.issue_cycles for issue in issued]
    found.problem.cumulative([*slots, *again], [*cycles, *cycles], 1)


@dataclass(frozen=True, slots=True)
class Stay:
    """A stay of a value in registers, from the start of an operation until the ends: (operation, cycles after it)."""

    begin: str
    ends: tuple[tuple[str, int], ...]
    least_cycles: int
    registers: int


def _stays(warps: WarpLoop, loop: Loop, groups: dict[str, int], ii: int) -> dict[int, list[Stay]]:
    """Return the stays of values in every group's registers, with what longest paths make them at least."""
    reach = Reach(warps, list(arcs(loop)), ii)
    stays: dict[int, list[Stay]] = {group: [] for group in set(groups.values())}
    for value in warps.values:
        home, producer = groups[value.producer], value.producer
        ends = [(producer, 0)]
        least = 0
        for reader in value.readers:
            if groups[reader.operation] != home:
                ends.append((producer, value.handoff_cycles))
                held = reader.hold_cycles
                visit = Stay(reader.operation, ((reader.operation, held),), held, value.registers)
                stays[groups[reader.operation]].append(visit)
                least = max(least, value.handoff_cycles)
                continue
            after = reader.hold_cycles + ii * reader.distance
            ends.append((reader.operation, after))
            if (path := reach(producer, reader.operation)) is not None:
                least = max(least, path + after)
        stays[home].append(Stay(producer, tuple(dict.fromkeys(ends)), least, value.registers))
    return stays


def _add_least_registers(found: Draft, warps: WarpLoop, stays: list[Stay], room: int) -> bool:
    """Keep stays of least length within `room` modulo the interval; False where whole intervals overfill it."""
    ii, index = found.ii, warps.loop.index
    partial = [stay for stay in stays if stay.least_cycles % ii]
    left = room - sum(stay.least_cycles // ii * stay.registers for stay in stays)
    if left < max((stay.registers for stay in partial), default=0):
        return False
    if sum(stay.registers for stay in partial) > left:
        slots = [found.slot(index[stay.begin]) for stay in partial]
        again = [Term(slot.variable, 1, slot.offset + ii) for slot in slots]
        cycles, registers = [stay.least_cycles % ii for stay in partial], [stay.registers for stay in partial]
        found.problem.cumulative([*slots, *again], [*cycles, *cycles], left, [*registers, *registers])
    return True


def _add_registers(found: Draft, warps: WarpLoop, stays: list[Stay], room: int) -> None:
    """Keep the stays of one group within `room`: they are fullest when some stay begins, so they are counted there."""
    for begin in dict.fromkeys(stay.begin for stay in stays):
        counts = [term for stay in stays for term in _there(found, warps.loop.index, stay, begin)]
        found.problem.at_most(counts, room)


def _there(found: Draft, index: dict[str, int], stay: Stay, begin: str) -> list[Term]:
    """Return the registers of all iterations of a stay that are there when the operation `begin` starts.

    With t that start: iterations up to `begun` have begun, start + begun * ii <= t < start + (begun + 1) * ii; those up
    to `over` are over, every end + over * ii <= t; so begun - over of them are there.
    """
    ii, at, first = found.ii, index[begin], index[stay.begin]
    now, start = found.starts[at], found.starts[first]
    (earliest, latest), (least, most) = found.windows[at], found.windows[first]
    begun: Term | None = None
    highest = 0
    if at != first:
        highest = (latest - least) // ii
        begun = found.problem.variable((earliest - most) // ii, highest)
        found.problem.at_most([start, Term(begun.variable, ii), Term(now.variable, -1)], 0)
        found.problem.at_most([now, Term(start.variable, -1), Term(begun.variable, -ii)], ii - 1)
    longest = max(found.windows[index[name]][1] + after for name, after in stay.ends)
    over = found.problem.variable((earliest - longest) // ii, highest)
    for name, after in dict.fromkeys(stay.ends):
        end = found.starts[index[name]]
        same = end.variable == now.variable
        terms = [Term(over.variable, ii)] if same else [end, Term(over.variable, ii), Term(now.variable, -1)]
        found.problem.at_most(terms, -after)
    if begun is None:
        return [Term(over.variable, -stay.registers)]
    found.problem.at_most([over, Term(begun.variable, -1)], 0)
    return [Term(begun.variable, stay.registers), Term(over.variable, -stay.registers)]
