"""Runs a warp program in cycles: in-order issue per group, queues at units, barriers with latency.

The stand-in for hardware where there is none. A group issues its instructions in order; a synchronous operation waits
for its operands and its unit, an asynchronous one is issued once its operands are there and queues at its unit, first
come first served. What products read from shared memory they fetch ahead, whenever the accesses of warps leave the
port free; the next product begins when the fetches of the last one are through. Costs are those of the loop: issue
cycles, occupancies, latencies, crossings. Nothing is taken from the schedule, so the pace the simulator finds confirms
the schedule's interval, or contradicts it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from treadle.costmodels.warp_interpreter import Stuck
from treadle.ir.tile.warps import WarpLoop
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.lower import ready_cycles
from treadle.ir.warp.program import Action, Instruction, Source, WarpProgram

SLICE = 8
"""Cycles of a synchronous operation after which its unit may go to another group: warps issue instruction by
instruction, and schedulers switch between them; a tile operation never holds a unit to its end."""

SETTLED = 24
"""Iterations after which the pace is taken to be steady; twice as many more are averaged."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a run of a warp program took: start of every operation by (name, iteration), and the end of it all."""

    trips: int
    starts: dict[tuple[str, int], int]
    cycles: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Cycles of a loop beyond the schedule: steady pace, and what filling and draining add to `trips` times the pace.

    `short_cycles` are the totals of 0, 1, 2, ... iterations.
    """

    steady_cycles: float
    overhead_cycles: float
    short_cycles: tuple[int, ...]

    def total_cycles(self, trips: int) -> float:
        """Cycles of a loop of `trips` iterations."""
        if trips < len(self.short_cycles):
            return self.short_cycles[trips]
        return self.overhead_cycles + trips * self.steady_cycles


def steady_cycles(program: WarpProgram, warps: WarpLoop, facts: Facts, settled: int = SETTLED) -> float:
    """Return the cycles of an iteration after `settled` of them, averaged over twice as many; raises Stuck."""
    return _steady(program, simulate(program, warps, facts, _long(program, settled)), settled)


def _long(program: WarpProgram, settled: int) -> int:
    return 3 * settled + max(group.stages for group in program.groups)


def _steady(program: WarpProgram, run: Simulation, settled: int) -> float:
    last = run.trips - max(group.stages for group in program.groups) - 1
    names = {name for name, _ in run.starts}
    return max((run.starts[name, last] - run.starts[name, settled]) / (last - settled) for name in names)


def measure_pace(program: WarpProgram, warps: WarpLoop, facts: Facts) -> Pace:
    """Return the pace of a warp program; raises Stuck when it does not end."""
    stages = max(group.stages for group in program.groups)
    long = simulate(program, warps, facts, _long(program, SETTLED))
    steady = _steady(program, long, SETTLED)
    short = tuple(simulate(program, warps, facts, trips).cycles for trips in range(stages + 3))
    return Pace(steady, long.cycles - steady * long.trips, short)


def simulate(program: WarpProgram, warps: WarpLoop, facts: Facts, trips: int) -> Simulation:
    """Run a program for `trips` iterations from an idle machine.

    Raises:
        Stuck: groups wait for each other.
    """
    return _Machine(program, warps, facts, trips).run()


@dataclass
class Port:
    """A unit that warps use directly, and products in the background: when and how long the last product needs it."""

    begin: int = 0
    needs: int = 0
    accesses: deque[tuple[int, int]] = field(default_factory=lambda: deque[tuple[int, int]]())
    """Times (begin, end) of the accesses of warps."""

    def fetch(self, begin: int, cycles: int) -> None:
        """Let a product begin that needs the port for so many cycles; the one before it must be through."""
        self.begin, self.needs = begin, cycles

    def through(self, cycle: int) -> int:
        """Return the first cycle, from `cycle` on, at which the last product has what it needs."""
        while self.accesses and self.accesses[0][1] <= self.begin:
            self.accesses.popleft()
        end = max(cycle, self.begin + self.needs)
        while True:
            taken = sum(max(0, min(last, end) - max(first, self.begin)) for first, last in self.accesses)
            lacking = self.needs - (end - self.begin - taken)
            if lacking <= 0:
                return end
            end += lacking


@dataclass
class _Group:
    """Where a group is: its next instruction, and the cycle from which it can issue."""

    lines: list[tuple[Instruction, int]]
    at: int = 0
    free: int = 0
    committed: int = 0
    """End of all products that were issued and are waited for through barriers."""
    done: int = 0
    """Cycles of the next instruction that have run on its unit."""
    flights: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Ends of the operations of every queue, in order of issue."""


class _Machine:
    def __init__(self, program: WarpProgram, warps: WarpLoop, facts: Facts, trips: int) -> None:
        self.program, self.trips, self.signal = program, trips, facts.signal_cycles
        self.turn_cycles = facts.turn_cycles
        loop = warps.loop
        self.operations = {operation.name: operation for operation in loop.operations}
        self.issue = {issue.operation: issue.issue_cycles for issue in warps.issues}
        self.delay = {(d.source, d.target, d.distance): d.delay_cycles for d in loop.dependences}
        self.bound = fetches_of(warps)
        self.staged = {performed.operation for performed in facts.operations if performed.staged}
        homes = {i.subject: at for at, g in enumerate(program.groups) for i in g.steady if i.action is Action.PERFORM}
        self.ready = ready_cycles(warps, homes)
        self.counts = {unit.name: unit.count for unit in loop.units}
        self.crossing: dict[tuple[str, str], int] = {}
        for crossing in warps.crossings:
            ends = loop.dependences[crossing.dependence]
            key = (ends.source, ends.target)
            self.crossing[key] = max(self.crossing.get(key, 0), crossing.delay_cycles)
        self.slots = {c.name: program.buffer(c.buffer).slots for c in program.channels}
        self.channels = {channel.name: channel for channel in program.channels}
        own = [ring for ring in loop.rings if ring.producer not in self.channels]
        self.own_slots = {ring.producer: program.buffer(ring.name).slots for ring in own}
        self.own_readers = {ring.producer: ring.readers for ring in own}
        self.units: dict[str, list[int]] = {
            unit.name: [0] * (unit.count or 1) for unit in loop.units if unit.count is not None
        }
        self.groups = [
            _Group([(i, step - i.stage) for step, line in program.steps(group, trips) for i in line])
            for group in program.groups
        ]
        fetches = [self.operations[name] for names in self.bound.values() for name in names]
        self.ports = {fetch.unit: Port() for fetch in fetches if fetch.unit in self.units and fetch.occupancy_cycles}
        self.flights = warps.limits.flights
        self.flying: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        """Ends and shares of operations in flight, by limit and group."""
        self.starts: dict[tuple[str, int], int] = {}
        self.puts: dict[tuple[str, int], int] = {}
        self.releases: dict[tuple[str, int, int], int] = {}
        self.passes: dict[str, list[int]] = defaultdict(list)
        self.taken: dict[tuple[str, int], int] = defaultdict(int)
        self.delays = {
            (name, group): self._handoff(name, group) for name in self.channels for group in range(len(self.groups))
        }

    def run(self) -> Simulation:
        while True:
            due = [
                (cycle, position)
                for position, group in enumerate(self.groups)
                if group.at < len(group.lines) and (cycle := self._when(position, group)) is not None
            ]
            if not due:
                break
            cycle, position = min(due)
            self._do(position, self.groups[position], cycle)
        left = [group for group in self.groups if group.at < len(group.lines)]
        if left:
            where = ", ".join(f"{g.lines[g.at][0].action.value} {g.lines[g.at][0].subject}" for g in left)
            raise Stuck(program=self.program.name, trips=self.trips, where=where)
        ends = [start + self.operations[name].latency_cycles for (name, _), start in self.starts.items()]
        return Simulation(self.trips, self.starts, max(ends, default=0))

    # --- when an instruction can go ---------------------------------------------------------------------------------

    def _when(self, position: int, group: _Group) -> int | None:
        """Return the cycle at which the next instruction can be issued, None while that is not known."""
        instruction, iteration = group.lines[group.at]
        name = instruction.subject
        match instruction.action:
            case Action.PERFORM:
                ready = max(group.free, self._operands(position, instruction, iteration), self._read(name, iteration))
                return self._room_in_flight(position, name, ready)
            case Action.WRITE:
                return max(group.free, self.starts[name, iteration] + self.ready[name])
            case Action.WAIT:
                ends = group.flights[name]
                over = len(ends) - instruction.pending
                return max(group.free, ends[over - 1]) if over > 0 else group.free
            case Action.GET:
                made = iteration - instruction.distance
                put = 0 if made < 0 else self.puts.get((name, made))
                return None if put is None else max(group.free, put + (self.delays[name, position] if made >= 0 else 0))
            case Action.ACQUIRE:
                return self._acquired(name, iteration, group)
            case Action.TAKE:
                turn = self.program.turn(name)
                number = len(self.passes[name])
                mine = turn.holders[number % len(turn.holders)] == position
                last = self.passes[name][-1] + self.turn_cycles if number else 0
                return max(group.free, last) if mine else None
            case _:
                return group.free

    def _operands(self, position: int, instruction: Instruction, iteration: int) -> int:
        """Cycle at which operands made by the group itself are there; those of others are waited for by gets."""
        ready = 0
        for source in instruction.operands:
            made = (source.value, iteration - source.distance)
            if source.invariant or made[1] < 0 or not self._own(position, source, made):
                continue
            delay = self.delay[source.value, instruction.subject, source.distance]
            ready = max(ready, self.starts[made] + delay)
        return ready

    def _read(self, name: str, iteration: int) -> int:
        """Cycle at which the slot that an operation fills has been read, where no barrier but its own group says so."""
        slots = self.own_slots.get(name, 0)
        reads = [
            self.starts[reader.operation, before] + reader.hold_cycles
            for reader in self.own_readers.get(name, ())
            if (reader.operation, before := iteration - slots + reader.distance) in self.starts
        ]
        return max(reads, default=0)

    def _room_in_flight(self, position: int, name: str, cycle: int) -> int:
        """Return the first cycle, from `cycle` on, at which no limit of operations in flight holds one back."""
        for number, limit in enumerate(self.flights):
            share = dict(limit.operations).get(name)
            if share is None:
                continue
            flying = self.flying[number, position if limit.per_group else 0]
            for end, _ in sorted(flying):
                if sum(other for until, other in flying if until > cycle) + share <= limit.most:
                    break
                cycle = max(cycle, end)
        return cycle

    def _own(self, position: int, source: Source, made: tuple[str, int]) -> bool:
        channel = self.channels.get(source.value)
        return channel is None or channel.producer == position

    def _acquired(self, name: str, iteration: int, group: _Group) -> int | None:
        channel, before = self.channels[name], iteration - self.slots[name]
        cycle = group.free
        if before < -channel.primed:
            return cycle
        for consumer in channel.consumers:
            release = self.releases.get((name, before, consumer))
            if release is None:
                return None
            cycle = max(cycle, release + (self.signal if consumer != channel.producer else 0))
        return cycle

    # --- what it does -----------------------------------------------------------------------------------------------

    def _do(self, position: int, group: _Group, cycle: int) -> None:
        instruction, iteration = group.lines[group.at]
        name, slot = instruction.subject, iteration - instruction.distance
        if instruction.action is Action.PERFORM and self._slice(group, instruction, iteration, cycle):
            return
        group.at += 1
        group.free = cycle
        match instruction.action:
            case Action.PERFORM if not group.done:
                self._perform(group, instruction, iteration, cycle)
                self._take_off(position, name, iteration)
            case Action.PERFORM:
                self._last_slice(group, instruction, iteration)
            case Action.PUT:
                self.puts[name, slot] = self._signalled(group, instruction, iteration, cycle)
            case Action.RELEASE:
                self.releases[name, slot, position] = self._signalled(group, instruction, iteration, cycle)
            case Action.PASS:
                self.passes[name].append(self._passed(group, cycle))
            case _:
                pass

    def _slice(self, group: _Group, instruction: Instruction, iteration: int, cycle: int) -> bool:
        """Run the next slice of an operation that groups share their unit for; False when none is left."""
        name = instruction.subject
        operation = self.operations[name]
        shared = operation.unit in self.units and not instruction.asynchronous and name not in self.bound
        if not shared or self.issue[name] < operation.occupancy_cycles or group.done >= operation.occupancy_cycles:
            return False
        length = min(SLICE, operation.occupancy_cycles - group.done)
        group.free = self._take(operation.unit, cycle, length) + length
        group.done += length
        return True

    def _last_slice(self, group: _Group, instruction: Instruction, iteration: int) -> None:
        """An operation cut into slices counts from where it would have started alone."""
        operation = self.operations[instruction.subject]
        self.starts[operation.name, iteration] = group.free - operation.occupancy_cycles
        group.free += self.issue[operation.name] - operation.occupancy_cycles
        group.done = 0

    def _passed(self, group: _Group, cycle: int) -> int:
        """Cycle at which a turn is passed: turns only keep an order, so within a synchronous operation (a run of many
        instructions) it is passed early enough for the signal to arrive at its end."""
        for before, iteration in reversed(group.lines[: group.at - 1]):
            if before.action is Action.PERFORM:
                early = cycle if before.asynchronous else cycle - self.turn_cycles
                return max(early, self.starts[before.subject, iteration])
        return cycle

    def _signalled(self, group: _Group, instruction: Instruction, iteration: int, cycle: int) -> int:
        """Cycle at which a signal is given: by hardware at the end of a copy, or of all products issued (a commit)."""
        if not instruction.after:
            return cycle
        end = self.starts[instruction.after, iteration] + self.operations[instruction.after].latency_cycles
        return max(cycle, end if self.program.copies(instruction.after) else max(end, group.committed))

    def _perform(self, group: _Group, instruction: Instruction, iteration: int, cycle: int) -> None:
        name = instruction.subject
        start = self._begin(name, cycle)
        self.starts[name, iteration] = start
        group.free = (cycle if instruction.asynchronous else start) + self.issue[name]
        if instruction.asynchronous and not instruction.queue and not self.program.copies(name):
            group.committed = max(group.committed, start + self.operations[name].latency_cycles)
        if instruction.queue:
            ends = group.flights[instruction.queue]
            taken = (
                self.operations[name].occupancy_cycles if name in self.staged else self.operations[name].latency_cycles
            )
            ends.append(max([start + taken, *ends[-1:]]))

    def _take_off(self, position: int, name: str, iteration: int) -> None:
        """Note when an operation that a limit counts is no longer in flight; what has landed before is left out."""
        begin = self.starts[name, iteration]
        for number, limit in enumerate(self.flights):
            share = dict(limit.operations).get(name)
            if share is not None:
                key = number, position if limit.per_group else 0
                left = [flight for flight in self.flying[key] if not limit.per_group or flight[0] > begin]
                self.flying[key] = [*left, (begin + self.operations[name].latency_cycles, share)]

    def _begin(self, name: str, cycle: int) -> int:
        """Return when an operation starts: its unit is free, and the port through which it fetches its operands."""
        operation, start = self.operations[name], cycle
        fetches = [fetch for other in self.bound.get(name, ()) if (fetch := self.operations[other]).unit in self.ports]
        for fetch in fetches:
            start = self.ports[fetch.unit].through(start)
        if operation.unit in self.units and operation.occupancy_cycles:
            start = self._take(operation.unit, start, operation.occupancy_cycles)
        for fetch in fetches:
            self.ports[fetch.unit].fetch(start, fetch.occupancy_cycles)
        return start

    def _take(self, unit: str, cycle: int, length: int) -> int:
        """Take the instance of a unit that is free first, and return when it is, from `cycle` on."""
        instances = self.units[unit]
        start = max(cycle, min(instances))
        instances[instances.index(min(instances))] = start + length
        if unit in self.ports:
            self.ports[unit].accesses.append((start, start + length))
        return start

    def _handoff(self, channel: str, group: int) -> int:
        """Cycles from a put until a group's first reader has the value."""
        if self.channels[channel].producer == group:
            return 0
        readers = {
            instruction.subject
            for instruction in self.program.groups[group].steady
            if instruction.action is Action.PERFORM and any(source.value == channel for source in instruction.operands)
        }
        return max((self.crossing.get((channel, reader), 0) for reader in readers), default=0)


def fetches_of(warps: WarpLoop) -> dict[str, list[str]]:
    """Return the operations that nobody issues by the issued one whose start they share."""
    issued = {issue.operation for issue in warps.issues}
    pairs = {(d.source, d.target) for d in warps.loop.dependences if d.delay_cycles == 0 and d.distance == 0}
    found: dict[str, list[str]] = defaultdict(list)
    for source, target in pairs:
        if source in issued and target not in issued and (target, source) in pairs:
            found[source].append(target)
    return found
