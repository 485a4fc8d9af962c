"""The joint CP-SAT model at one initiation interval: the modulo model, and one small function per family of warps.

Groups 0 to R - 1 belong to the roles; the others are numbered by their first operation, since their names mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ortools.sat.python import cp_model

from treadle.ir.tile.constraints import free_bytes
from treadle.ir.tile.warps import FETCH_CYCLES, RegisterValue, WarpLoop, waiting
from treadle.solvers.modulo.model import Model

GroupKey = tuple[str, int]


@dataclass(slots=True)
class Joint:
    """The modulo model and the variables of warps: `inside[operation, group]`, `crossed[crossing position]`, ..."""

    warps: WarpLoop
    base: Model
    stages: int
    """A number of stages that no schedule of the model exceeds."""
    anchor: int | None = None
    """Operation that starts at slot 0, time being turned."""
    copies: int | None = None
    """Iterations, besides one, after which all values that can be alive together are there; None to count stages."""
    first: cp_model.IntVar | None = None
    """Where it is stated: no start is before it."""
    inside: dict[GroupKey, cp_model.IntVar] = field(default_factory=dict[GroupKey, cp_model.IntVar])
    crossed: dict[int, cp_model.IntVar] = field(default_factory=dict[int, cp_model.IntVar])
    used: dict[int, cp_model.IntVar] = field(default_factory=dict[int, cp_model.IntVar])
    peaks: dict[int, cp_model.IntVar] = field(default_factory=dict[int, cp_model.IntVar])
    peak: cp_model.IntVar | None = None
    """Registers per thread of the largest group, the fixed ones included."""

    @property
    def cp(self) -> cp_model.CpModel:
        """The CP-SAT model."""
        return self.base.cp

    @property
    def free_groups(self) -> range:
        """Groups without a role."""
        return range(len(self.warps.roles), self.warps.limits.most_groups)

    def start(self, operation: str) -> cp_model.IntVar:
        """Start variable of an operation."""
        return self.base.starts[self.warps.loop.index[operation]]

    def slot(self, operation: str) -> cp_model.IntVar:
        """Slot variable of an operation, made when it has none yet."""
        vertex = self.warps.loop.index[operation]
        if vertex not in self.base.slots:
            slot = self.cp.new_int_var(0, self.base.ii - 1, f"slot {vertex}")
            stage = self.cp.new_int_var(0, self.stages, f"stage {vertex}")
            self.cp.add(self.base.starts[vertex] == self.base.ii * stage + slot)
            self.base.slots[vertex], self.base.stages[vertex] = slot, stage
        return self.base.slots[vertex]

    def groups_of(self, operation: str) -> list[int]:
        """Groups the operation may be in."""
        return [group for name, group in self.inside if name == operation]


def add_groups(joint: Joint) -> None:
    """Put every issued operation in one group: its role's, or one of the others in order of first use.

    Operations that must stay together share their variables.
    """
    roles = joint.warps.roles
    together = _classes(joint.warps)
    for issue in joint.warps.issues:
        first = together[issue.operation]
        groups = [roles.index(issue.role)] if issue.role else list(joint.free_groups)
        if first == issue.operation:
            for group in groups:
                joint.inside[first, group] = joint.cp.new_bool_var(f"{first} in {group}")
            joint.cp.add_exactly_one(joint.inside[first, group] for group in groups)
        for group in groups:
            joint.inside[issue.operation, group] = joint.inside[first, group]
    free = [
        issue.operation
        for issue in joint.warps.issues
        if not issue.role and together[issue.operation] == issue.operation
    ]
    for group in joint.free_groups:
        joint.used[group] = joint.cp.new_bool_var(f"group {group} used")
        joint.cp.add_max_equality(joint.used[group], [joint.inside[name, group] for name in free])
        if group - 1 in joint.used:
            for position, name in enumerate(free):
                joint.cp.add_bool_or(
                    [~joint.inside[name, group], *(joint.inside[before, group - 1] for before in free[:position])]
                )


def _classes(warps: WarpLoop) -> dict[str, str]:
    """Return, per issued operation, the first of those it must share a group with (in order of issue)."""
    leader = {issue.operation: issue.operation for issue in warps.issues}
    order = {name: position for position, name in enumerate(leader)}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for crossing in warps.crossings:
        if not crossing.allowed:
            ends = warps.loop.dependences[crossing.dependence]
            first, second = sorted((find(ends.source), find(ends.target)), key=order.__getitem__)
            leader[second] = first
    return {name: find(name) for name in leader}


def add_crossed(joint: Joint) -> None:
    """Say which dependences cross groups; those that may not share their group already."""
    loop = joint.warps.loop
    for position, crossing in enumerate(joint.warps.crossings):
        if not crossing.allowed:
            continue
        ends = loop.dependences[crossing.dependence]
        crossed = joint.cp.new_bool_var(f"crossed {position}")
        joint.crossed[position] = crossed
        for group in joint.groups_of(ends.source):
            there = joint.inside[ends.source, group]
            here = joint.inside.get((ends.target, group))
            joint.cp.add_bool_or([~there, crossed] if here is None else [~there, here, crossed])
            if here is not None:
                joint.cp.add_bool_or([~there, ~here, ~crossed])


def add_handoffs(joint: Joint) -> None:
    """Keep what groups hand over within the memory that rings leave."""
    loop, memory = joint.warps.loop, joint.warps.limits.handoff_memory
    sources = [loop.dependences[crossing.dependence].source for crossing in joint.warps.crossings]
    used: list[cp_model.LinearExpr] = []
    for handoff in joint.warps.handoffs:
        crossed = [joint.crossed[p] for p, name in enumerate(sources) if name == handoff.source and p in joint.crossed]
        if crossed:
            handed = joint.cp.new_bool_var(f"{handoff.source} is handed over")
            joint.cp.add_max_equality(handed, crossed)
            used.append(handoff.bytes * handed)
    rings = [ring for ring in loop.rings if ring.memory == memory]
    if used:
        slots = sum(ring.slot_bytes * joint.base.depths.get(ring.name, 1) for ring in rings)
        joint.cp.add(sum(used) + slots <= free_bytes(loop, memory))


def add_crossing_delays(joint: Joint) -> None:
    """Make dependences that cross groups pay their delay."""
    loop = joint.warps.loop
    for position, crossed in joint.crossed.items():
        crossing = joint.warps.crossings[position]
        ends = loop.dependences[crossing.dependence]
        weight = ends.delay_cycles + crossing.delay_cycles - joint.base.ii * ends.distance
        joint.cp.add(joint.start(ends.target) >= joint.start(ends.source) + weight).only_enforce_if(crossed)


def add_issue_budget(joint: Joint) -> None:
    """Redundant: the issue cycles of a group fit the interval."""
    for group in range(joint.warps.limits.most_groups):
        cycles = [
            issue.issue_cycles * joint.inside[issue.operation, group]
            for issue in joint.warps.issues
            if (issue.operation, group) in joint.inside
        ]
        if cycles:
            joint.cp.add(sum(cycles) <= joint.base.ii)


def add_issue(joint: Joint) -> None:
    """Let no two operations of a group issue at once, modulo the interval."""
    ii = joint.base.ii
    for group in range(joint.warps.limits.most_groups):
        intervals: list[cp_model.IntervalVar] = []
        for issue in joint.warps.issues:
            inside = joint.inside.get((issue.operation, group))
            if inside is None or issue.issue_cycles == 0:
                continue
            slot = joint.slot(issue.operation)
            intervals += [
                joint.cp.new_optional_fixed_size_interval_var(slot + shift, issue.issue_cycles, inside, "issue")
                for shift in (0, ii)
            ]
        if intervals:
            joint.cp.add_no_overlap(intervals)


def fix_groups(joint: Joint, groups: dict[str, int]) -> None:
    """Hold every operation in the group of an assignment."""
    for (operation, group), inside in joint.inside.items():
        joint.cp.add(inside == int(groups[operation] == group))


def add_registers(joint: Joint) -> None:
    """Keep the live values of every group within its registers, and all groups within the file."""
    limits = joint.warps.limits
    room = limits.registers_per_group - limits.fixed_registers
    lengths = {value.name: _stay(joint, value) for value in joint.warps.values}
    _add_volumes(joint, room, lengths)
    for group in joint.free_groups:
        peak = joint.cp.new_int_var(0, max(room, 0), f"registers of {group}")
        joint.peaks[group] = peak
        _add_group_registers(joint, group, peak, lengths)
    joint.peak = joint.cp.new_int_var(0, limits.registers_per_group, "registers")
    for group, peak in joint.peaks.items():
        joint.cp.add(joint.peak >= peak + limits.fixed_registers).only_enforce_if(joint.used[group])
    _add_register_file(joint)


def _add_volumes(joint: Joint, room: int, lengths: dict[str, cp_model.IntVar]) -> None:
    """Redundant: registers times cycles of values that must share a group fit the interval."""
    together = _classes(joint.warps)
    for first in dict.fromkeys(together.values()):
        inside = [value for value in joint.warps.values if together[value.producer] == first]
        if inside:
            used = sum(value.registers * lengths[value.name] for value in inside)
            joint.cp.add(used <= max(room, 0) * joint.base.ii)


def _stay(joint: Joint, value: RegisterValue) -> cp_model.IntVar:
    """Return how long a value stays in its producer's group: until readers there let go, or it is handed over."""
    ii = joint.base.ii
    length = joint.cp.new_int_var(0, ii * _copies(joint, value), f"stay of {value.name}")
    for reader in value.readers:
        end = joint.start(reader.operation) + reader.hold_cycles + ii * reader.distance
        for group in joint.groups_of(value.producer):
            there = joint.inside[value.producer, group]
            here = joint.inside.get((reader.operation, group))
            if here is not None and here.index == there.index:
                joint.cp.add(length >= end - joint.start(value.producer))
                break
            if here is not None:
                joint.cp.add(length >= end - joint.start(value.producer)).only_enforce_if([there, here])
                joint.cp.add(length >= value.handoff_cycles).only_enforce_if([there, ~here])
            else:
                joint.cp.add(length >= value.handoff_cycles).only_enforce_if(there)
    return length


def _copies(joint: Joint, value: RegisterValue) -> int:
    """Return how many iterations of a value can be alive at once."""
    latest = max([value.handoff_cycles, *(reader.hold_cycles for reader in value.readers)])
    return joint.stages + max(reader.distance for reader in value.readers) - (-latest // joint.base.ii)


def _add_group_registers(joint: Joint, group: int, peak: cp_model.IntVar, lengths: dict[str, cp_model.IntVar]) -> None:
    """Overlap as many successive iterations as can be alive at once: where all are there, it is the steady state."""
    ii, cp = joint.base.ii, joint.cp
    intervals: list[cp_model.IntervalVar] = []
    demands: list[int] = []
    stages = max((_copies(joint, value) for value in joint.warps.values), default=0)
    copies = stages if joint.copies is None else joint.copies
    for value in joint.warps.values:
        home = joint.inside.get((value.producer, group))
        if home is not None:
            start, length = joint.start(value.producer), lengths[value.name]
            end = cp.new_int_var(0, 2 * ii * (stages + 1), f"end of {value.name} in {group}")
            for copy in range(copies + 1):
                shift = ii * copy
                intervals.append(cp.new_optional_interval_var(start + shift, length, end + shift, home, value.name))
                demands.append(value.registers)
        for reader in value.readers:
            visit = _visit(joint, value, reader.operation, group)
            if visit is None:
                continue
            held = reader.hold_cycles + FETCH_CYCLES
            for copy in range(copies + 1):
                begin = joint.start(reader.operation) + ii * copy - FETCH_CYCLES
                intervals.append(cp.new_optional_fixed_size_interval_var(begin, held, visit, "visit"))
                demands.append(value.registers)
    cp.add_cumulative(intervals, demands, peak)


def _visit(joint: Joint, value: RegisterValue, reader: str, group: int) -> cp_model.IntVar | None:
    """Return whether a reader in `group` holds a value that another group produced; None if it never does."""
    here = joint.inside.get((reader, group))
    home = joint.inside.get((value.producer, group))
    if here is None or home is None or here.index == home.index:
        return None if here is None or home is not None else here
    visit = joint.cp.new_bool_var(f"{value.name} visits {group}")
    joint.cp.add_bool_or([~here, home, visit])
    joint.cp.add_implication(visit, here)
    joint.cp.add_implication(visit, ~home)
    return visit


def _add_register_file(joint: Joint) -> None:
    limits = joint.warps.limits
    assert joint.peak is not None
    roles = len(joint.warps.roles)
    if limits.reallocation:
        total = sum(joint.peaks[group] + limits.fixed_registers * joint.used[group] for group in joint.peaks)
        joint.cp.add(total + limits.role_registers * roles <= limits.registers_of_file)
        return
    for count in range(1, len(joint.peaks) + 1):
        group = list(joint.peaks)[count - 1]
        joint.cp.add(joint.peak <= limits.registers_of_file // (count + roles)).only_enforce_if(joint.used[group])


def add_flights(joint: Joint) -> None:
    """Keep the asynchronous operations of a group, or of all, within what may be in flight, modulo the interval."""
    ii = joint.base.ii
    for limit in joint.warps.limits.flights:
        every = [(name, share) for name, share in limit.operations if name in joint.warps.loop.index]
        latency = {name: joint.warps.loop.operation(name).latency_cycles for name, _ in every}
        if sum(-(-latency[name] // ii) * share for name, share in every) <= limit.most:
            continue
        for group in range(joint.warps.limits.most_groups) if limit.per_group else (None,):
            inside = [(name, share, _flies(joint, name, group)) for name, share in every]
            _add_flights(joint, [item for item in inside if item[2] is not None], latency, limit.most)


def _flies(joint: Joint, name: str, group: int | None) -> cp_model.IntVar | None:
    """Return whether an operation counts in a group, None where it cannot be in it."""
    return joint.cp.new_constant(1) if group is None else joint.inside.get((name, group))


def _add_flights(
    joint: Joint, every: list[tuple[str, int, cp_model.IntVar | None]], latency: dict[str, int], most: int
) -> None:
    ii, cp = joint.base.ii, joint.cp
    intervals: list[cp_model.IntervalVar] = []
    demands: list[int] = []
    always: list[cp_model.LinearExpr] = []
    for name, share, inside in every:
        assert inside is not None
        whole, rest = divmod(latency[name], ii)
        always.append(whole * share * inside)
        for shift in (0, ii) if rest else ():
            begin = joint.slot(name) + shift
            intervals.append(cp.new_optional_fixed_size_interval_var(begin, rest, inside, "flight"))
            demands.append(share)
    room = cp.new_int_var(0, most, "flights")
    cp.add(room + sum(always) == most)
    cp.add_cumulative(intervals, demands, room)


def traffic(joint: Joint) -> cp_model.LinearExprT:
    """Bytes handed between groups per iteration."""
    return sum(
        c.bytes * joint.crossed[position] for position, c in enumerate(joint.warps.crossings) if c.bytes and c.allowed
    )


def barrier_count(joint: Joint) -> cp_model.LinearExprT:
    """Barriers between groups per iteration."""
    return sum(
        c.barriers * joint.crossed[position]
        for position, c in enumerate(joint.warps.crossings)
        if c.barriers and c.allowed
    )


def wait_count(joint: Joint, warps: WarpLoop) -> cp_model.LinearExprT:
    """Waits for operations of roles in groups with synchronous work (`exposed_waits`); the model may leave out roles.

    Both sides are only pushed up: the count is exact where something holds it down.
    """
    busy = {group: joint.cp.new_bool_var(f"group {group} is synchronous") for group in joint.free_groups}
    for issue in warps.issues:
        for group in joint.groups_of(issue.operation) if issue.synchronous and not issue.role else ():
            joint.cp.add_implication(joint.inside[issue.operation, group], busy[group])
    exposed: list[cp_model.IntVar] = []
    for name in waiting(warps):
        wait = joint.cp.new_bool_var(f"{name} waits exposed")
        exposed.append(wait)
        for group in joint.groups_of(name):
            if group in busy:
                joint.cp.add_bool_or([~joint.inside[name, group], ~busy[group], wait])
    return sum(exposed)


def group_count(joint: Joint) -> cp_model.LinearExprT:
    """Number of groups."""
    return len(joint.warps.roles) + sum(joint.used.values())
