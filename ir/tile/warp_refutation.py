"""What a proof log has to refute for a claim about a loop over warp groups, whose assignment to groups is given.

With the groups given, crossings have their delays, and what one group issues is one after the other: a problem of times
alone. Whatever it leaves out (how long values really stay, unless asked for) gives it more solutions than there are
schedules, so refuting it says more. What groups need at least limits what the register file leaves each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from treadle.ir.proof_log.problem import Problem, Term
from treadle.ir.tile.assignments import assignments, longest
from treadle.ir.tile.constraints import arcs
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.orders import Order, Windows, core, orders, whole, windows
from treadle.ir.tile.refutation import Draft, drafted
from treadle.ir.tile.register_peaks import Reach, least_peaks
from treadle.ir.tile.stays import stay_arcs
from treadle.ir.tile.warps import FETCH_CYCLES, WarpLoop


@dataclass(frozen=True, slots=True)
class Question:
    """An assignment to groups under one order of the full unit, with the windows that paths leave to all starts.

    `most_cycles` is None where the length does not matter; then `warps` is the core of the loop.
    """

    warps: WarpLoop
    groups: dict[str, int]
    ii: int
    order: Order
    windows: Windows
    most_cycles: int | None
    most_registers: int

    def problem(self, *, exact: bool) -> Problem | None:
        """Return the times that must not exist; None where values alone need more registers.

        Unless `exact`, values take registers only for as long as longest paths say at least.
        """
        return _problem(self, exact=exact)


def questions(warps: WarpLoop, ii: int, most: dict[str, int]) -> Iterator[Question]:
    """Yield what has to be refuted for no schedule at `ii` to keep within `most`, levels with their values.

    One question for each assignment to groups that counting leaves (`assignments`) and each order of the full unit that
    paths leave.

    Raises:
        WalkTooLong: there are too many assignments.
    """
    length, registers = most.get("length"), most.get("registers", warps.limits.registers_per_group)
    reduced = whole if length is not None else core
    known = reduced(warps, ii, most.get("traffic_bytes"))
    for needs in assignments(warps, ii, most):
        yield from over_groups(known, needs.groups, ii, length, registers)


def refuted_by_orders(warps: WarpLoop, ii: int, most: dict[str, int]) -> bool:
    """Whether paths leave no order of the full unit to any schedule at `ii` within `most`, whatever the groups are."""
    bytes_ = most.get("traffic_bytes")
    if "length" not in most and _no_order(core(warps, ii, bytes_), ii, most, moved=True):
        return True
    return _no_order(whole(warps, ii, bytes_), ii, most, moved=False)


def _no_order(known: WarpLoop, ii: int, most: dict[str, int], *, moved: bool) -> bool:
    if longest(len(known.loop.operations), list(arcs(known.loop)), ii) is None:
        return True
    stays = stay_arcs(known, ii, None, most.get("registers"))
    return stays is None or all(
        windows(known, ii, order, most.get("length"), moved=moved, stays=stays) is None for order in orders(known, ii)
    )


def refuted_by_counting(warps: WarpLoop, ii: int, most: dict[str, int]) -> bool:
    """Whether orders and assignments leave nothing to be searched at `ii` within `most`; raises as `questions`."""
    return refuted_by_orders(warps, ii, most) or next(questions(warps, ii, most), None) is None


def over_groups(
    warps: WarpLoop, groups: dict[str, int], ii: int, most_cycles: int | None, most_registers: int
) -> Iterator[Question]:
    """Yield the questions of one assignment: schedules of at most so many cycles and registers in any group.

    Args:
        warps: the loop as `orders.whole` has it, or its core where the length does not matter.
        groups: group of every issued operation; more operations than those of the loop do not matter.
        ii: initiation interval; satisfies every recurrence.
        most_cycles: length of an iteration; None for any in the stages there may be.
        most_registers: of any group without a role, the fixed ones included.
    """
    crossed = replace(warps, loop=crossed_loop(warps, groups), crossings=())
    if longest(len(crossed.loop.operations), list(arcs(crossed.loop)), ii) is None:
        return
    stays = stay_arcs(crossed, ii, groups, most_registers)
    for order in orders(crossed, ii) if stays is not None else ():
        left = windows(crossed, ii, order, most_cycles, moved=most_cycles is None, stays=stays or ())
        if left is not None:
            yield Question(crossed, groups, ii, order, left, most_cycles, most_registers)


def _problem(question: Question, *, exact: bool) -> Problem | None:
    warps, groups, ii = question.warps, question.groups, question.ii
    found = drafted(warps.loop, ii, question.windows, question.order.by_name)
    if question.most_cycles is not None:
        _add_iteration(found, warps.loop, question.most_cycles)
    homes = {issue.operation: groups[issue.operation] for issue in warps.issues}
    roles = {homes[issue.operation] for issue in warps.issues if issue.role}
    for group in sorted(set(homes.values())):
        _add_issue(found, warps, homes, group)
    stays = _stays(warps, warps.loop, homes, ii)
    rooms = _rooms(question, homes)
    if any(least > most for least, most in rooms.values()):
        return None
    fixed = warps.limits.fixed_registers
    for group in sorted(rooms):
        if not _add_least_registers(found, warps, stays[group], rooms[group][1] - fixed):
            return None
    if exact:
        peaks = {group: found.problem.variable(*rooms[group]) for group in sorted(rooms)}
        for group, peak in peaks.items():
            _add_registers(found, warps, stays[group], peak)
        _add_register_file(found, warps, peaks, len(roles))
    return found.problem


def _rooms(question: Question, homes: dict[str, int]) -> dict[int, tuple[int, int]]:
    """Return the registers of every group without a role: at least by paths, at most beside the least of all others."""
    warps = question.warps
    limits, roles = warps.limits, len(warps.roles)
    least = least_peaks(warps, homes, list(arcs(warps.loop)), question.ii)
    if not limits.reallocation:
        each = min(question.most_registers, limits.registers_of_file // max(1, len(least) + roles))
        return {group: (peak, each) for group, peak in least.items()}
    left = limits.registers_of_file - roles * limits.role_registers - sum(least.values())
    return {group: (peak, min(question.most_registers, peak + left)) for group, peak in least.items()}


def _add_register_file(found: Draft, warps: WarpLoop, peaks: dict[int, Term], roles: int) -> None:
    """Let the groups that differ in registers fit the register file together."""
    limits = warps.limits
    most = limits.registers_of_file - roles * limits.role_registers
    if limits.reallocation and sum(found.problem.bounds[peak.variable][1] for peak in peaks.values()) > most:
        found.problem.at_most(list(peaks.values()), most)


def _add_iteration(found: Draft, loop: Loop, most_cycles: int) -> None:
    """Let all operations start and end within so many cycles, from wherever the first one starts."""
    first = found.problem.variable(min(w[0] for w in found.windows), max(w[1] for w in found.windows))
    for (earliest, latest), start, operation in zip(found.windows, found.starts, loop.operations, strict=True):
        bounds = found.problem.bounds[first.variable]
        if bounds[1] > earliest:
            found.problem.at_most([first, Term(start.variable, -1, -start.offset)], 0)
        most = most_cycles - operation.latency_cycles
        if latest - bounds[0] > most:
            found.problem.at_most([start, Term(first.variable, -1)], most)


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
    """A stay of a value in registers, from a moment until the ends: (operation, cycles after its start)."""

    begin: str
    ends: tuple[tuple[str, int], ...]
    least_cycles: int
    registers: int
    lead_cycles: int = 0
    """The stay begins so long before the operation `begin` starts."""


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
                until = ((reader.operation, held),)
                visit = Stay(reader.operation, until, held + FETCH_CYCLES, value.registers, FETCH_CYCLES)
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
        lead = max(stay.lead_cycles for stay in partial)
        slots = [found.slot(index[stay.begin]) for stay in partial]
        slots = [
            Term(slot.variable, 1, slot.offset + lead - stay.lead_cycles)
            for slot, stay in zip(slots, partial, strict=True)
        ]
        again = [Term(slot.variable, 1, slot.offset + ii) for slot in slots]
        cycles, registers = [stay.least_cycles % ii for stay in partial], [stay.registers for stay in partial]
        found.problem.cumulative([*slots, *again], [*cycles, *cycles], left, [*registers, *registers])
    return True


def _add_registers(found: Draft, warps: WarpLoop, stays: list[Stay], peak: Term) -> None:
    """Keep the stays of one group within its `peak`, the fixed registers included: they are fullest when some stay
    begins, so they are counted there."""
    for begin, lead in dict.fromkeys((stay.begin, stay.lead_cycles) for stay in stays):
        counts = [term for stay in stays for term in _there(found, warps.loop.index, stay, begin, lead)]
        found.problem.at_most([*counts, Term(peak.variable, -1)], -warps.limits.fixed_registers)


def _there(found: Draft, index: dict[str, int], stay: Stay, begin: str, lead: int) -> list[Term]:
    """Return the registers of all iterations of a stay that are there `lead` cycles before the operation `begin`.

    With t that moment: iterations up to `begun` have begun, start + begun * ii <= t < start + (begun + 1) * ii; those
    up to `over` are over, every end + over * ii <= t; so begun - over of them are there.
    """
    ahead = stay.lead_cycles - lead
    ii, at, first = found.ii, index[begin], index[stay.begin]
    now, start = found.starts[at], found.starts[first]
    (earliest, latest), (least, most) = found.windows[at], found.windows[first]
    begun: Term | None = None
    highest = ahead // ii
    if at != first:
        highest = (latest - least + ahead) // ii
        begun = found.problem.variable((earliest - most + ahead) // ii, highest)
        found.problem.at_most([start, Term(begun.variable, ii), Term(now.variable, -1)], ahead)
        found.problem.at_most([now, Term(start.variable, -1), Term(begun.variable, -ii)], ii - 1 - ahead)
    longest = max(found.windows[index[name]][1] + after for name, after in stay.ends)
    over = found.problem.variable((earliest - lead - longest) // ii, highest)
    for name, after in dict.fromkeys(stay.ends):
        end = found.starts[index[name]]
        same = end.variable == now.variable
        terms = [Term(over.variable, ii)] if same else [end, Term(over.variable, ii), Term(now.variable, -1)]
        found.problem.at_most(terms, -after - lead)
    if begun is None:
        return [Term(over.variable, -stay.registers, stay.registers * highest)]
    found.problem.at_most([over, Term(begun.variable, -1)], 0)
    return [Term(begun.variable, stay.registers), Term(over.variable, -stay.registers)]
