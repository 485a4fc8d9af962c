"""A warp program unrolled for one trip count: its events and what must happen before what.

Programs have no choice in them: which arrival a wait is for follows from its iteration. So one graph of events holds
for every interleaving: the program runs to its end in all of them, or in none, when the graph has a cycle or an event
waits for one that never comes; two accesses can meet in some interleaving exactly when no path orders them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from treadle.ir.warp.program import Action, Instruction, Role, WarpProgram

Instance = tuple[str, int]
"""An operation of an iteration."""


@dataclass(frozen=True, slots=True)
class Access:
    """A read or write of a slot between two events; `value` and `iteration` say what is read or written."""

    buffer: str
    slot: int
    value: str
    iteration: int
    begin: int
    end: int
    group: int
    by: str


@dataclass
class Unrolled:
    """Events 0, 1, ... with their predecessors, and where things happen.

    An instruction is the event `issued`; an asynchronous operation also begins and ends (`spans`). Signals of channels
    are events of their own: `puts` by (channel, iteration), `releases` by (channel, iteration, group).
    """

    program: WarpProgram
    trips: int
    before: list[list[int]] = field(default_factory=list[list[int]])
    labels: list[str] = field(default_factory=list[str])
    spans: dict[Instance, tuple[int, int, int]] = field(default_factory=dict[Instance, tuple[int, int, int]])
    """Issue, begin and end of every performed operation."""
    puts: dict[Instance, int] = field(default_factory=dict[Instance, int])
    releases: dict[tuple[str, int, int], int] = field(default_factory=dict[tuple[str, int, int], int])
    gets: dict[tuple[str, int, int], int] = field(default_factory=dict[tuple[str, int, int], int])
    acquires: dict[Instance, int] = field(default_factory=dict[Instance, int])
    reads: list[Access] = field(default_factory=list[Access])
    writes: list[Access] = field(default_factory=list[Access])
    held: list[tuple[Instance, int, Instance, bool]] = field(default_factory=list[tuple[Instance, int, Instance, bool]])
    """Register reads: (value and iteration, group, reader, whether it accumulates behind it)."""
    in_registers: dict[tuple[int, Instance], list[int]] = field(default_factory=dict[tuple[int, Instance], list[int]])
    """Events at which a value comes into a group's registers, by (group, value and iteration): one for each reader."""
    faults: list[str] = field(default_factory=list[str])
    """What is wrong before any order is looked at: doubled signals, unknown names, waits for what never comes."""
    most_in_flight: dict[str, int] = field(default_factory=dict[str, int])


def unroll(program: WarpProgram, trips: int) -> Unrolled:
    """Return the events of a program that runs `trips` iterations."""
    return _Unrolling(program, trips).unrolled()


class _Unrolling:
    def __init__(self, program: WarpProgram, trips: int) -> None:
        self.program = program
        self.out = Unrolled(program, trips)
        self.buffers = {buffer.name: buffer for buffer in program.buffers}
        self.channels = {channel.name: channel for channel in program.channels}
        self.queues = {queue.name: queue for queue in program.queues}
        self.turns = {turn.name: turn for turn in program.turns}
        self.late: list[tuple[int, str, Instance | tuple[str, int, int]]] = []
        """Edges to events that may not be there yet: (target, kind, name)."""
        self.passes: dict[tuple[str, int], int] = {}
        self.taken: dict[tuple[str, int, Action], int] = defaultdict(int)
        self.flights: dict[tuple[int, str], list[int]] = defaultdict(list)
        self.over: dict[tuple[int, str], int] = defaultdict(int)
        self.chain: dict[str, int] = {}
        self.committed: dict[int, list[int]] = defaultdict(list)
        """Ends of operations without a queue that a commit of their group covers: all but copies (transactions)."""

    def unrolled(self) -> Unrolled:
        for position, group in enumerate(self.program.groups):
            last: int | None = None
            for step, instructions in self.program.steps(group, self.out.trips):
                for instruction in instructions:
                    iteration = step - instruction.stage
                    label = f"{group.name}: {instruction.action.value} {instruction.subject}, iteration {iteration}"
                    event = self._event(label, *([] if last is None else [last]))
                    self._run(position, instruction, iteration, event)
                    last = event
        self._close()
        return self.out

    def _event(self, label: str, *before: int) -> int:
        self.out.labels.append(label)
        self.out.before.append(list(before))
        return len(self.out.before) - 1

    def _fault(self, event: int, message: str) -> None:
        self.out.faults.append(f"{self.out.labels[event]}: {message}")

    def _run(self, group: int, instruction: Instruction, iteration: int, event: int) -> None:
        match instruction.action:
            case Action.PERFORM:
                self._perform(group, instruction, iteration, event)
            case Action.WRITE:
                self._write(group, instruction, iteration, event)
            case Action.READ:
                self._read(group, instruction, iteration, event)
            case Action.WAIT:
                self._wait(group, instruction, event)
            case Action.TAKE | Action.PASS:
                self._turn(group, instruction, event)
            case _:
                self._signal(group, instruction, iteration - instruction.distance, event)

    # --- operations -------------------------------------------------------------------------------------------------

    def _perform(self, group: int, instruction: Instruction, iteration: int, event: int) -> None:
        instance = (instruction.subject, iteration)
        if instance in self.out.spans:
            self._fault(event, "performed twice")
        begin = end = event
        if instruction.asynchronous:
            begin = self._event(f"{self.out.labels[event]} begins", event)
            end = self._event(f"{self.out.labels[event]} ends", begin)
            self._follow(group, instruction, begin, end)
            if not instruction.queue and not self.program.copies(instruction.subject):
                self.committed[group].append(end)
        self.out.spans[instance] = (event, begin, end)
        for source in instruction.operands:
            read = (source.value, iteration - source.distance)
            if source.invariant:
                continue
            if source.buffer:
                over = event if self.program.copies(instruction.subject) else end
                self._access(self.out.reads, source.buffer, read, min(begin, over), over, event, group)
            else:
                chained = source.role is Role.ACCUMULATOR and bool(instruction.queue)
                self.out.held.append((read, group, instance, chained))
        if instruction.result:
            self._access(self.out.writes, instruction.result, instance, begin, end, event, group)
        else:
            self.out.in_registers[group, instance] = [end]

    def _follow(self, group: int, instruction: Instruction, begin: int, end: int) -> None:
        """Order completions: within a queue, and of products that accumulate into one buffer from one group."""
        if instruction.queue:
            if instruction.queue not in self.queues:
                self._fault(begin, f"unknown queue `{instruction.queue}`")
                return
            flights = self.flights[group, instruction.queue]
            if flights:
                self.out.before[end].append(flights[-1])
            flights.append(end)
            flying = len(flights) - self.over[group, instruction.queue]
            self.out.most_in_flight[instruction.queue] = max(self.out.most_in_flight.get(instruction.queue, 0), flying)
            return
        for source in instruction.operands:
            if source.role is Role.ACCUMULATOR and source.buffer and source.buffer == instruction.result:
                key = f"{group} {instruction.result}"
                if key in self.chain:
                    self.out.before[begin].append(self.chain[key])
                self.chain[key] = end
                return
        if instruction.result:
            self.chain[f"{group} {instruction.result}"] = end

    def _access(
        self, accesses: list[Access], buffer: str, instance: Instance, begin: int, end: int, event: int, group: int
    ) -> None:
        if buffer not in self.buffers:
            self._fault(event, f"unknown buffer `{buffer}`")
            return
        slot = instance[1] % self.buffers[buffer].slots
        accesses.append(Access(buffer, slot, *instance, begin, end, group, self.out.labels[event]))

    def _write(self, group: int, instruction: Instruction, iteration: int, event: int) -> None:
        instance = (instruction.subject, iteration)
        self.out.held.append((instance, group, (f"{instruction.subject} (write)", iteration), False))
        self.out.spans[f"{instruction.subject} (write)", iteration] = (event, event, event)
        self._access(self.out.writes, instruction.result, instance, event, event, event, group)

    def _read(self, group: int, instruction: Instruction, iteration: int, event: int) -> None:
        for source in instruction.operands:
            instance = (source.value, iteration - source.distance)
            self._access(self.out.reads, source.buffer, instance, event, event, event, group)
            self.out.in_registers.setdefault((group, instance), []).append(event)
            if source.value != instruction.subject:
                self._fault(event, f"reads `{source.value}`")

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _wait(self, group: int, instruction: Instruction, event: int) -> None:
        queue = self.queues.get(instruction.subject)
        if queue is None:
            self._fault(event, "unknown queue")
            return
        if queue.drains and instruction.pending:
            self._fault(event, f"waits for all but {instruction.pending} of a queue that drains")
        flights = self.flights[group, instruction.subject]
        over = len(flights) - instruction.pending
        if over > 0:
            self.out.before[event].append(flights[over - 1])
            self.over[group, instruction.subject] = max(self.over[group, instruction.subject], over)

    def _turn(self, group: int, instruction: Instruction, event: int) -> None:
        turn = self.turns.get(instruction.subject)
        held = [] if turn is None else [at for at, holder in enumerate(turn.holders) if holder == group]
        if turn is None or not held:
            self._fault(event, "no such turn of this group")
            return
        number = self.taken[turn.name, group, instruction.action]
        self.taken[turn.name, group, instruction.action] += 1
        sequence = number // len(held) * len(turn.holders) + held[number % len(held)]
        if instruction.action is Action.PASS:
            if self.taken[turn.name, group, Action.TAKE] != number + 1:
                self._fault(event, "passes a turn it has not taken")
            self.passes[turn.name, sequence] = event
        else:
            if self.taken[turn.name, group, Action.PASS] != number:
                self._fault(event, "takes a turn it has not passed")
            if sequence:
                self.late.append((event, "pass", (turn.name, sequence - 1)))

    def _signal(self, group: int, instruction: Instruction, iteration: int, event: int) -> None:
        channel = self.channels.get(instruction.subject)
        buffer = self.buffers.get(channel.buffer) if channel else None
        if channel is None or buffer is None:
            self._fault(event, "unknown channel")
            return
        name = channel.name
        produces = instruction.action in (Action.PUT, Action.ACQUIRE)
        if (produces and channel.producer != group) or (not produces and group not in channel.consumers):
            self._fault(event, "another group's side of the channel")
            return
        match instruction.action:
            case Action.PUT:
                self._once(self.out.puts, (name, iteration), self._arrival(group, instruction, iteration, event), event)
            case Action.ACQUIRE:
                self._once(self.out.acquires, (name, iteration), event, event)
                if iteration - buffer.slots >= -channel.primed:
                    for consumer in channel.consumers:
                        self.late.append((event, "release", (name, iteration - buffer.slots, consumer)))
            case Action.GET:
                self._once(self.out.gets, (name, iteration, group), event, event)
                if iteration >= 0:
                    self.late.append((event, "put", (name, iteration)))
                elif iteration < -channel.primed:
                    self._fault(event, "gets a slot of an iteration that never was")
            case _:
                arrival = self._arrival(group, instruction, iteration + instruction.distance, event)
                if iteration < -channel.primed:
                    self._fault(event, "releases a slot of an iteration that never was")
                self._once(self.out.releases, (name, iteration, group), arrival, event)

    def _once(self, events: dict[Any, int], key: Any, value: int, event: int) -> None:
        if key in events:
            self._fault(event, "done twice for one slot")
        events[key] = value

    def _arrival(self, group: int, instruction: Instruction, iteration: int, event: int) -> int:
        """The event of a signal: the instruction itself, or the end of the operation it follows.

        But for copies, that is a commit, which comes when everything that the group issued before has ended.
        """
        if not instruction.after:
            return event
        covered = [] if self.program.copies(instruction.after) else self.committed[group]
        arrival = self._event(f"{self.out.labels[event]} arrives", event, *covered)
        self.late.append((arrival, "end", (instruction.after, iteration)))
        return arrival

    def _close(self) -> None:
        """Add the edges from events that came later in the unrolling, and see that turns end where they began."""
        for turn in self.program.turns:
            counts = [
                self.taken[turn.name, group, action] / turn.holders.count(group)
                for group in set(turn.holders)
                for action in (Action.TAKE, Action.PASS)
            ]
            if len(set(counts)) > 1:
                self.out.faults.append(f"turn `{turn.name}` is not taken and passed equally often")
        for event, kind, name in self.late:
            found: int | None
            if kind == "end":
                span = self.out.spans.get((name[0], name[1]))
                found = span[2] if span else None
            elif kind == "put":
                found = self.out.puts.get((name[0], name[1]))
            elif kind == "pass":
                found = self.passes.get((name[0], name[1]))
            else:
                found = self.out.releases.get((name[0], name[1], name[2])) if len(name) == 3 else None
            if found is None:
                self._fault(event, f"waits for a {kind} of `{name[0]}`, iteration {name[1]}, that never comes")
            else:
                self.out.before[event].append(found)


def ancestors(before: list[list[int]]) -> list[int] | None:
    """Return for every event the set of events before it, as bits; None when they wait for each other."""
    count = len(before)
    after: list[list[int]] = [[] for _ in range(count)]
    missing = [len(sources) for sources in before]
    for event, sources in enumerate(before):
        for source in sources:
            after[source].append(event)
    ready = [event for event in range(count) if not missing[event]]
    sets = [0] * count
    done = 0
    while ready:
        event = ready.pop()
        done += 1
        for target in after[event]:
            sets[target] |= sets[event] | (1 << event)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    return sets if done == count else None
