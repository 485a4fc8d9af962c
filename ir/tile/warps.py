"""Warp specialization of a loop: what warps add to a cyclic scheduling problem, its schedules, and their legality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.constraints import free_bytes
from treadle.ir.tile.loop import Loop, Reader
from treadle.ir.tile.schedule import Schedule, check


@dataclass(frozen=True, slots=True)
class Issue:
    """An operation issued by a warp group, which issues nothing else for `issue_cycles` from its start.

    Operations of a non-empty `role` share one group that holds nothing else. A `synchronous` operation is done by the
    group itself, so whatever keeps the group waiting keeps the operation waiting.
    """

    operation: str
    issue_cycles: int
    role: str = ""
    synchronous: bool = True

    def __post_init__(self) -> None:
        if self.issue_cycles < 0:
            raise InvalidValue(message=f"operation `{self.operation}` has negative issue cycles")


@dataclass(frozen=True, slots=True)
class Crossing:
    """What the dependence at position `dependence` costs when its ends are in different groups.

    `delay_cycles` come on top of the dependence's own delay. With `allowed` false the ends must share a group. With
    `announced` the source's group hands the result over itself (it waits for it, writes it, arrives at a barrier), in
    order with all else it issues, so at the first moment from its end on at which nothing keeps the group; without,
    hardware signals the end (a bulk copy, a product on tensor memory).
    """

    dependence: int
    delay_cycles: int = 0
    bytes: int = 0
    barriers: int = 1
    allowed: bool = True
    announced: bool = False


FETCH_CYCLES = 1
"""A value of another group is read from its slot before its reader starts: it is there beside all that the reader
takes over when it starts."""


@dataclass(frozen=True, slots=True)
class RegisterValue:
    """A value in registers: `registers` per thread of its group, from the producer's start until its readers let go.

    A reader holds the value for `hold_cycles` from its own start; 0 means that it takes the registers over. When a
    reader is in another group, the value is handed over through memory: it stays for `handoff_cycles` after the
    producer's start at least, and takes `registers` in the reader's group from `FETCH_CYCLES` before that reader starts
    until the reader lets go.
    """

    name: str
    producer: str
    registers: int
    readers: tuple[Reader, ...]
    handoff_cycles: int = 0


@dataclass(frozen=True, slots=True)
class FlightLimit:
    """At most `most` in flight at once, from an operation's start until its result is there (`latency_cycles`).

    `operations` are asynchronous ones with how many each counts for (one committed batch of products, or so many load
    instructions of a warp). With `per_group` every group has a count of its own, as with counters of a warp; without,
    all groups share one.
    """

    name: str
    operations: tuple[tuple[str, int], ...]
    most: int
    per_group: bool = True


@dataclass(frozen=True, slots=True)
class WarpLimits:
    """Rules of a machine: most groups, registers per thread of one group, and of all groups together.

    `fixed_registers` are taken in every group (addresses, counters, loop-carried accumulators not modelled as values).
    Without `reallocation` all groups have the same number of registers, so the largest counts for each of them.
    `role_registers` is what a group with a role takes of the file. A schedule has at most `most_stages` stages: deeper
    pipelines only lengthen prologue and epilogue. `flights` may name operations that a part of a loop does not have.
    """

    most_groups: int
    registers_per_group: int
    registers_of_file: int
    fixed_registers: int = 0
    role_registers: int = 24
    reallocation: bool = True
    most_stages: int = 6
    flights: tuple[FlightLimit, ...] = ()
    handoff_memory: str = ""
    """Memory through which groups hand values over, beside the rings there; empty where their bytes are not counted."""
    release_cycles: int = 0
    """Cycles from when a group gives a slot of a handoff back until the group that fills it knows."""


@dataclass(frozen=True, slots=True)
class Handoff:
    """What handing a value over takes: bytes of a slot and fewest slots, and the operations that may read it elsewhere.

    A slot is filled `ready_cycles` after the source starts (at the earliest), and given back when the last reader in
    another group starts; a group keeps the value of an iteration for as long as any reader is behind.
    """

    source: str
    slot_bytes: int
    least_slots: int
    targets: tuple[str, ...]
    ready_cycles: int = 0
    behind: int = 0
    """Iterations that the last reader is behind."""

    @property
    def bytes(self) -> int:
        """Bytes of the fewest slots."""
        return self.slot_bytes * self.least_slots

    def slots(self, cycles: int, ii_cycles: int) -> int:
        """Return the slots needed where a reader starts so many cycles after the source, and its release is known."""
        return max(self.least_slots, -(-(cycles - self.ready_cycles) // ii_cycles) + self.behind)


@dataclass(frozen=True)
class WarpLoop:
    """A loop with warps. Valid once built: names and positions resolve, and every issued operation is issued once."""

    loop: Loop
    issues: tuple[Issue, ...]
    crossings: tuple[Crossing, ...]
    values: tuple[RegisterValue, ...]
    limits: WarpLimits

    def __post_init__(self) -> None:
        known = self.loop.index
        issued = [issue.operation for issue in self.issues]
        named = [*issued, *(v.producer for v in self.values), *(r.operation for v in self.values for r in v.readers)]
        for name in named:
            if name not in known:
                raise InvalidValue(message=f"warps of loop `{self.loop.name}` name the unknown operation `{name}`")
        for name in named[len(issued) :]:
            if name not in issued:
                raise InvalidValue(
                    message=f"`{name}` of loop `{self.loop.name}` holds registers but no group issues it"
                )
        role = {issue.operation: issue.role for issue in self.issues}
        if self.limits.most_groups < len(self.roles) + any(not name for name in role.values()):
            raise InvalidValue(message=f"loop `{self.loop.name}` needs more than {self.limits.most_groups} warp groups")
        for limit in self.limits.flights:
            for name, share in limit.operations:
                if not 0 < share <= limit.most:
                    message = f"`{name}` of loop `{self.loop.name}` counts for {share} of {limit.most} in {limit.name}"
                    raise InvalidValue(message=message)
        if len(set(issued)) != len(issued):
            raise InvalidValue(message=f"an operation of loop `{self.loop.name}` is issued twice")
        for crossing in self.crossings:
            if not 0 <= crossing.dependence < len(self.loop.dependences):
                raise InvalidValue(message=f"loop `{self.loop.name}` has no dependence {crossing.dependence}")
            ends = self.loop.dependences[crossing.dependence]
            if not crossing.allowed and role.get(ends.source) != role.get(ends.target):
                raise InvalidValue(
                    message=f"`{ends.source}` -> `{ends.target}` must share a group, but their roles differ"
                )
            if ends.source not in issued or ends.target not in issued:
                raise InvalidValue(
                    message=f"`{ends.source}` -> `{ends.target}` crosses groups, but is not issued by any"
                )

    @cached_property
    def handoffs(self) -> tuple[Handoff, ...]:
        """What may be handed over and takes memory.

        A value has one slot, or as many as iterations between it and its last reader: those are there at once. It has
        more where a slot is given back later than it is to be filled again (`handoff_slots`).
        """
        if not self.limits.handoff_memory:
            return ()
        sizes: dict[str, int] = {}
        targets: dict[str, list[str]] = defaultdict(list)
        for crossing in self.crossings:
            ends = self.loop.dependences[crossing.dependence]
            sizes[ends.source] = max(sizes.get(ends.source, 0), crossing.bytes)
            targets[ends.source].append(ends.target)
        issued = {issue.operation for issue in self.issues}
        found: list[Handoff] = []
        for name, size in sizes.items():
            read = [d for d in self.loop.dependences if d.source == name and d.target in issued]
            behind = max([0, *(d.distance for d in read)])
            ready = min(d.delay_cycles for d in read)
            if size:
                found.append(Handoff(name, size, max(1, behind), tuple(targets[name]), ready, behind))
        return tuple(found)

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the roles, in order of appearance."""
        return tuple(dict.fromkeys(issue.role for issue in self.issues if issue.role))


@dataclass(frozen=True, slots=True)
class WarpSchedule:
    """A modulo schedule with the warp group of every issued operation and the registers per thread of every group."""

    schedule: Schedule
    groups: dict[str, int]
    registers: tuple[int, ...]

    @property
    def group_count(self) -> int:
        """Number of groups."""
        return len(self.registers)


def crosses(warps: WarpLoop, groups: dict[str, int], crossing: Crossing) -> bool:
    """Whether the ends of a dependence are in different groups."""
    ends = warps.loop.dependences[crossing.dependence]
    return groups[ends.source] != groups[ends.target]


def traffic_bytes(warps: WarpLoop, groups: dict[str, int]) -> int:
    """Return the bytes handed between groups per iteration."""
    return sum(crossing.bytes for crossing in warps.crossings if crosses(warps, groups, crossing))


def barriers(warps: WarpLoop, groups: dict[str, int]) -> int:
    """Return the barriers between groups per iteration."""
    return sum(crossing.barriers for crossing in warps.crossings if crosses(warps, groups, crossing))


def handed_over(warps: WarpLoop, groups: dict[str, int]) -> Iterator[Handoff]:
    """Yield what groups hand over; operations without a group, or with a negative number for one, are left out."""
    for handoff in warps.handoffs:
        homes = {group for name in handoff.targets if (group := groups.get(name, -1)) >= 0}
        home = groups.get(handoff.source, -1)
        if home >= 0 and homes - {home}:
            yield handoff


def handoff_bytes(warps: WarpLoop, groups: dict[str, int]) -> dict[str, int]:
    """Return, by memory, the bytes of the fewest slots over which groups hand values over."""
    used = sum(handoff.bytes for handoff in handed_over(warps, groups))
    return {warps.limits.handoff_memory: used} if used else {}


def handoff_slots(warps: WarpLoop, schedule: Schedule, groups: dict[str, int]) -> dict[Handoff, int]:
    """Return what groups hand over, with the slots that the schedule needs for its pace.

    With fewer the source would wait for a reader of an earlier iteration to start, and for the release to arrive.
    """
    found: dict[Handoff, int] = {}
    for handoff in handed_over(warps, groups):
        last = max(schedule.start_cycles[n] for n in handoff.targets if groups[n] != groups[handoff.source])
        cycles = last + warps.limits.release_cycles - schedule.start_cycles[handoff.source]
        found[handoff] = handoff.slots(cycles, schedule.ii_cycles)
    return found


def exposed_waits(warps: WarpLoop, groups: dict[str, int]) -> int:
    """Return the waits for operations of roles in groups that also have synchronous work.

    Loads have a role since their latency varies: a late one stalls all that its group would do meanwhile. `groups` may
    leave out operations; with more of them there are no fewer waits.
    """
    role = {issue.operation: issue.role for issue in warps.issues}
    busy = {groups.get(issue.operation) for issue in warps.issues if issue.synchronous and not issue.role} - {None}
    return sum(groups.get(name) in busy for name in waiting(warps) if not role[name])


def waiting(warps: WarpLoop) -> list[str]:
    """Return the target of every dependence on an operation of a role, if a group issues it."""
    role = {issue.operation: issue.role for issue in warps.issues}
    return [d.target for d in warps.loop.dependences if role.get(d.source) and d.target in role]


def announced_cycle(warps: WarpLoop, schedule: Schedule, groups: dict[str, int], group: int, cycle: int) -> int:
    """Return the first cycle, from `cycle` on, at which a group is not within the issue of an operation."""
    for issue in warps.issues:
        if groups[issue.operation] == group:
            behind = (cycle - schedule.start_cycles[issue.operation]) % schedule.ii_cycles
            if 0 < behind < issue.issue_cycles:
                return cycle - behind + issue.issue_cycles
    return cycle


def handed_cycle(warps: WarpLoop, schedule: Schedule, groups: dict[str, int], crossing: Crossing) -> int:
    """Return the first cycle at which the target of a dependence that crosses groups may start."""
    ends = warps.loop.dependences[crossing.dependence]
    done = schedule.start_cycles[ends.source] + ends.delay_cycles
    if crossing.announced:
        done = announced_cycle(warps, schedule, groups, groups[ends.source], done)
    return done + crossing.delay_cycles - schedule.ii_cycles * ends.distance


def register_peaks(warps: WarpLoop, schedule: Schedule, groups: dict[str, int]) -> dict[int, int]:
    """Return the most registers per thread that are live at once in every group, `fixed_registers` included."""
    stays: dict[int, list[tuple[int, int, int]]] = {group: [] for group in set(groups.values())}
    for group, begin, length, registers in lifetimes(warps, schedule, groups):
        stays[group].append((begin, length, registers))
    return {
        group: stacked(schedule.ii_cycles, inside) + warps.limits.fixed_registers for group, inside in stays.items()
    }


def stacked(ii_cycles: int, spans: Iterable[tuple[int, int, int]]) -> int:
    """Return the most that spans (begin, length, amount), repeated every `ii_cycles`, take at once."""
    always = 0
    steps: dict[int, int] = defaultdict(int)
    for begin, length, amount in spans:
        whole, rest = divmod(length, ii_cycles)
        always += whole * amount
        slot = begin % ii_cycles
        for first, last in ((slot, min(slot + rest, ii_cycles)), (0, slot + rest - ii_cycles)):
            if first < last:
                steps[first] += amount
                steps[last] -= amount
    level = peak = 0
    for cut in sorted(steps):
        level += steps[cut]
        peak = max(peak, level)
    return peak + always


def flight_peaks(warps: WarpLoop, schedule: Schedule, groups: dict[str, int], limit: FlightLimit) -> dict[int, int]:
    """Return the most that is in flight at once in every group; in group 0 for all groups that share one limit."""
    spans: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for name, share in limit.operations:
        if name in groups:
            span = (schedule.start_cycles[name], warps.loop.operation(name).latency_cycles, share)
            spans[groups[name] if limit.per_group else 0].append(span)
    return {group: stacked(schedule.ii_cycles, inside) for group, inside in spans.items()}


def lifetimes(warps: WarpLoop, schedule: Schedule, groups: dict[str, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (group, begin, length, registers) of every stay of a value in a group's registers, in one iteration."""
    starts = schedule.start_cycles
    for value in warps.values:
        home, begin = groups[value.producer], starts[value.producer]
        end = begin
        for reader in value.readers:
            if groups[reader.operation] == home:
                end = max(end, starts[reader.operation] + reader.hold_cycles + schedule.ii_cycles * reader.distance)
            else:
                end = max(end, begin + value.handoff_cycles)
                fetched = starts[reader.operation] - FETCH_CYCLES
                yield groups[reader.operation], fetched, reader.hold_cycles + FETCH_CYCLES, value.registers
        yield home, begin, end - begin, value.registers


def least_flight_intervals(warps: WarpLoop) -> list[tuple[FlightLimit, int]]:
    """Return the least interval that every limit of flights allows: cycles in flight over all that may be, and each
    operation's own.
    """
    roles = {issue.operation: issue.role for issue in warps.issues}
    free = warps.limits.most_groups - len(warps.roles)
    found: list[tuple[FlightLimit, int]] = []
    for limit in warps.limits.flights:
        cycles = {name: warps.loop.operation(name).latency_cycles for name, _ in limit.operations if name in roles}
        homes = len({roles[name] for name in cycles} - {""}) + (free if any(not roles[name] for name in cycles) else 0)
        total = sum(cycles[name] * share for name, share in limit.operations if name in cycles)
        alone = [-(-cycles[name] // (limit.most // share)) for name, share in limit.operations if name in cycles]
        room = limit.most * (max(1, homes) if limit.per_group else 1)
        found.append((limit, max([-(-total // room), *alone])))
    return found


def check_warps(warps: WarpLoop, made: WarpSchedule) -> list[Finding]:
    """Return every reason why `made` is not a legal schedule of `warps`; an empty list means legal.

    Codes: those of `schedule.check`; TRD408 stages, TRD415 groups, TRD416 crossing, TRD417 issue, TRD418 registers,
    TRD419 roles, TRD600 operations in flight, TRD608 memory of handoffs.
    """
    findings = check(warps.loop, made.schedule) or _check_groups(warps, made)
    if findings:
        return findings
    return [
        *_check_stages(warps, made),
        *_check_roles(warps, made),
        *_check_crossings(warps, made),
        *_check_issue(warps, made),
        *_check_registers(warps, made),
        *_check_flights(warps, made),
        *_check_handoffs(warps, made),
    ]


def _check_groups(warps: WarpLoop, made: WarpSchedule) -> list[Finding]:
    where = warps.loop.name
    issued = {issue.operation for issue in warps.issues}
    if issued != set(made.groups):
        return [Finding("TRD415", where, f"groups differ: {', '.join(sorted(issued ^ set(made.groups))[:5])}")]
    used = set(made.groups.values())
    if used != set(range(made.group_count)):
        expected = f"0 to {made.group_count - 1}, all used"
        return [Finding("TRD415", where, "groups are not numbered in order", expected, str(sorted(used)))]
    if made.group_count > warps.limits.most_groups:
        most = f"<= {warps.limits.most_groups}"
        return [Finding("TRD415", where, "too many groups", most, str(made.group_count))]
    return []


def _check_stages(warps: WarpLoop, made: WarpSchedule) -> list[Finding]:
    if made.schedule.stages > warps.limits.most_stages:
        most = f"<= {warps.limits.most_stages}"
        return [Finding("TRD408", warps.loop.name, "too many stages", most, str(made.schedule.stages))]
    return []


def _check_roles(warps: WarpLoop, made: WarpSchedule) -> list[Finding]:
    """Operations of a role are in one group, and nothing else is in it."""
    findings: list[Finding] = []
    for group in range(made.group_count):
        inside = [issue for issue in warps.issues if made.groups[issue.operation] == group]
        for role in sorted({issue.role for issue in inside} - {""}):
            others = [issue.operation for issue in inside if issue.role != role]
            if others:
                own = ", ".join(f"`{issue.operation}`" for issue in inside if issue.role == role)
                where = f"{warps.loop.name}, group {group}"
                rest = f" and {len(others) - 1} more" if len(others) > 1 else ""
                findings.append(Finding("TRD419", where, f"role `{role}` ({own}) shares it with `{others[0]}`{rest}"))
    for role in warps.roles:
        homes = {made.groups[issue.operation] for issue in warps.issues if issue.role == role}
        if len(homes) > 1:
            where = f"{warps.loop.name}.{role}"
            findings.append(Finding("TRD419", where, "role has more than one group", "1", str(len(homes))))
    return findings


def _check_crossings(warps: WarpLoop, made: WarpSchedule) -> list[Finding]:
    findings: list[Finding] = []
    schedule = made.schedule
    for crossing in warps.crossings:
        if not crosses(warps, made.groups, crossing):
            continue
        ends = warps.loop.dependences[crossing.dependence]
        where = f"{warps.loop.name}: {ends.source} -> {ends.target} (distance {ends.distance})"
        if not crossing.allowed:
            findings.append(Finding("TRD416", where, "must not cross groups"))
            continue
        earliest = handed_cycle(warps, schedule, made.groups, crossing)
        if schedule.start_cycles[ends.target] < earliest:
            found = str(schedule.start_cycles[ends.target])
            findings.append(Finding("TRD416", where, "starts before the handoff is done", f">= {earliest}", found))
    return findings


def _check_issue(warps: WarpLoop, made: WarpSchedule) -> list[Finding]:
    """No two operations of a group issue at once, modulo the interval."""
    findings: list[Finding] = []
    period = made.schedule.ii_cycles
    for group in range(made.group_count):
        slots = sorted(
            (made.schedule.slot(issue.operation), issue.issue_cycles, issue.operation)
            for issue in warps.issues
            if issue.issue_cycles and made.groups[issue.operation] == group
        )
        if not slots:
            continue
        first = slots[0]
        for (begin, length, name), (after, _, other) in pairwise([*slots, (first[0] + period, first[1], first[2])]):
            if begin + length > after:
                where = f"{warps.loop.name}, group {group}"
                message = f"`{name}` still issues when `{other}` starts"
                findings.append(Finding("TRD417", where, message, f">= {begin + length}", str(after)))
    return findings


def _check_registers(warps: WarpLoop, made: WarpSchedule) -> list[Finding]:
    findings: list[Finding] = []
    limits = warps.limits
    peaks = register_peaks(warps, made.schedule, made.groups)
    roles = {made.groups[issue.operation] for issue in warps.issues if issue.role}
    for group, stated in enumerate(made.registers):
        expected = limits.role_registers if group in roles else peaks[group]
        where = f"{warps.loop.name}, group {group}"
        if stated != expected:
            findings.append(
                Finding("TRD418", where, "registers are not those of the values", str(expected), str(stated))
            )
        if expected > limits.registers_per_group:
            most = f"<= {limits.registers_per_group}"
            findings.append(Finding("TRD418", where, "too many registers", most, str(expected)))
    total = sum(made.registers) if limits.reallocation else max(made.registers) * made.group_count
    if total > limits.registers_of_file:
        most = f"<= {limits.registers_of_file}"
        findings.append(Finding("TRD418", warps.loop.name, "register file is overfull", most, str(total)))
    return findings


def _check_flights(warps: WarpLoop, made: WarpSchedule) -> list[Finding]:
    findings: list[Finding] = []
    for limit in warps.limits.flights:
        for group, peak in sorted(flight_peaks(warps, made.schedule, made.groups, limit).items()):
            if peak > limit.most:
                where = f"{warps.loop.name}, group {group}" if limit.per_group else warps.loop.name
                message = f"too many operations in flight ({limit.name})"
                findings.append(Finding("TRD600", where, message, f"<= {limit.most}", str(peak)))
    return findings


def _check_handoffs(warps: WarpLoop, made: WarpSchedule) -> list[Finding]:
    """What groups hand over has room beside the rings, in as many slots as the schedule needs."""
    memory = warps.limits.handoff_memory
    slots = handoff_slots(warps, made.schedule, made.groups)
    needed = sum(handoff.slot_bytes * count for handoff, count in slots.items())
    depths = made.schedule.ring_depths
    rings = sum(ring.slot_bytes * depths[ring.name] for ring in warps.loop.rings if ring.memory == memory)
    left = free_bytes(warps.loop, memory) - rings
    if needed <= left or not slots:
        return []
    where = f"{warps.loop.name}.{memory}"
    named = ", ".join(f"`{handoff.source}` {count}" for handoff, count in slots.items())
    found = f"{needed} bytes (slots: {named})"
    return [Finding("TRD608", where, "handoffs find no room", f"<= {left} bytes", found)]
