"""A schedule of a loop over warp groups becomes a warp program.

Every instruction gets the cycle at which the schedule has it: operations at their starts; gets, reads and waits right
before the operation that needs them; puts, writes and releases when the operation they follow is done. Within a group,
a step is the II cycles from the group's *cut*, and the instructions of a step are ordered by those cycles. So the
schedule's order is the program's order, and what overlaps in the schedule overlaps in the program.
"""

from __future__ import annotations

from dataclasses import replace

from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.tile.loop import Ring
from treadle.ir.tile.program import Memory
from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.warps import WarpLoop, WarpSchedule, announced_cycle, register_peaks
from treadle.ir.warp.facts import MEMORIES, Facts, Performed
from treadle.ir.warp.order import Cut, Order, Timed, assemble_group, ranks, step_cut
from treadle.ir.warp.program import Action, Buffer, Channel, Instruction, Role, Source, WarpProgram
from treadle.ir.warp.turns import TurnPlan, plan_turns


class NoRoomForHandoffs(TreadleError):
    """Values handed between groups need shared memory that rings have taken."""

    code = "TRD523"
    template = "the handoffs of warp program `{program}` need {needed} bytes of {memory} memory; {free} are left"
    hint = "schedule with fewer ring slots, or with less traffic between groups"
    exit_code = ExitCode.UNMET

    @property
    def needed_bytes(self) -> int:
        """Bytes that the handoffs need beside the rings."""
        needed = self.fields["needed"]
        assert isinstance(needed, int)
        return needed


def lower_schedule(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> WarpProgram:
    """Return the warp program of a legal schedule; `facts` say what operations read and where results go.

    Raises:
        NoRoomForHandoffs: values handed over do not fit beside the rings.
    """
    return _Lowering(warps, made, facts).program()


def ungrouped(warps: WarpLoop, schedule: Schedule) -> WarpSchedule:
    """Return a schedule of the loop alone as one of warps: a group for each role, and one for everything else.

    Issue and registers of that one group are no concern of a schedule made without groups, so the result may break
    their rules (`check_warps`), and its program may run slower than the interval.
    """
    free = len(warps.roles)
    homes = {issue.operation: warps.roles.index(issue.role) if issue.role else free for issue in warps.issues}
    peaks = register_peaks(warps, schedule, homes)
    registers = tuple(warps.limits.role_registers if group < free else peaks[group] for group in sorted(peaks))
    return WarpSchedule(schedule, homes, registers)


def ready_cycles(warps: WarpLoop, groups: dict[str, int]) -> dict[str, int]:
    """Return when, after its start, each operation's result is handed to other groups: as the earliest reader asks."""
    ready = {operation.name: operation.latency_cycles for operation in warps.loop.operations}
    crossing: dict[str, int] = {}
    for dependence in warps.loop.dependences:
        if groups.get(dependence.source) != groups.get(dependence.target) and dependence.target in groups:
            before = crossing.get(dependence.source, dependence.delay_cycles)
            crossing[dependence.source] = min(before, dependence.delay_cycles)
    return ready | crossing


class _Lowering:
    """One lowering in progress: buffers, channels and the timed instructions of every group."""

    def __init__(self, warps: WarpLoop, made: WarpSchedule, facts: Facts) -> None:
        self.warps, self.made, self.facts = warps, made, facts
        self.ii = made.schedule.ii_cycles
        self.start = made.schedule.start_cycles
        self.ready = ready_cycles(warps, made.groups)
        self.ranks = ranks(warps, made.schedule)
        self.rings = {ring.name: ring for ring in warps.loop.rings}
        self.performed = {performed.operation: performed for performed in facts.operations}
        self.timed: list[list[Timed]] = [[] for _ in range(made.group_count)]
        self.channels: dict[str, Channel] = {}
        self.buffers = {buffer.name: buffer for buffer in facts.buffers}

    def program(self) -> WarpProgram:
        depths = self.made.schedule.ring_depths
        for ring in self.warps.loop.rings:
            memory = MEMORIES.get(ring.memory, Memory.SHARED)
            self.buffers[ring.name] = Buffer(ring.name, memory, depths[ring.name], ring.slot_bytes)
        self._make_channels()
        self._deepen()
        for performed in self.facts.operations:
            self._perform(performed)
        for channel in self.channels.values():
            self._put(channel)
            for consumer in channel.consumers:
                self._consume(channel, consumer)
        turns, cuts = self._turns()
        ahead = max(last - first for _, first, last in cuts)
        groups = tuple(
            assemble_group(
                self._group_name(position),
                self.made.registers[position],
                timed,
                cuts[position],
                ahead,
                self.ii,
                self.facts,
            )
            for position, timed in enumerate(self.timed)
        )
        return WarpProgram(
            self.warps.loop.name,
            groups,
            tuple(self.buffers.values()),
            tuple(self.channels.values()),
            self.facts.queues,
            tuple(turn.turn for turn in turns),
        )

    # --- channels ---------------------------------------------------------------------------------------------------

    def _readers(self, value: str) -> list[tuple[Performed, Source]]:
        return [
            (reader, source)
            for reader in self.facts.operations
            for source in reader.operands
            if source.value == value and not source.invariant
        ]

    def _make_channels(self) -> None:
        """Give every value that crosses groups, or that a barrier alone announces, a channel."""
        for performed in self.facts.operations:
            name, home = performed.operation, self.made.groups[performed.operation]
            readers = self._readers(name)
            signalled = performed.asynchronous and not performed.queue
            groups = [
                self.made.groups[reader.operation]
                for reader, source in readers
                if self.made.groups[reader.operation] != home
                or (signalled and not self._follows(performed, reader, source))
            ]
            ring = self.rings.get(performed.result) if performed.result else None
            owns = ring is not None and ring.producer == name
            if ring is not None and owns and (groups or any(self._by_hardware(r.operation) for r in ring.readers)):
                groups += [self.made.groups[reader.operation] for reader in ring.readers]
            if not groups:
                continue
            owner = not performed.result or owns
            if not performed.result:
                self._make_handoff(performed, readers)
            self.channels[name] = Channel(
                name,
                performed.result or self._handed(name),
                home,
                tuple(sorted(set(groups))),
                one_way=not owner,
                primed=max((source.distance for _, source in readers), default=0) if owner else 0,
                transaction=performed.transaction,
            )

    def _by_hardware(self, operation: str) -> bool:
        """Whether hardware signals the end of an operation, since its group cannot wait for it."""
        performed = self.performed[operation]
        return performed.asynchronous and not performed.queue and not performed.transaction

    def _follows(self, producer: Performed, reader: Performed, source: Source) -> bool:
        """Whether a product accumulates into the result of another one of its group, right behind it on the unit."""
        return (
            producer.chained
            and reader.chained
            and source.role is Role.ACCUMULATOR
            and self.made.groups[producer.operation] == self.made.groups[reader.operation]
        )

    def _make_handoff(self, performed: Performed, readers: list[tuple[Performed, Source]]) -> None:
        size = max(
            (
                crossing.bytes
                for crossing in self.warps.crossings
                if self.warps.loop.dependences[crossing.dependence].source == performed.operation
            ),
            default=0,
        )
        primed = max(source.distance for _, source in readers)
        name = self._handed(performed.operation)
        self.buffers[name] = Buffer(name, Memory.SHARED, max(1, primed), size)

    def _handed(self, value: str) -> str:
        """Return the buffer over which a register value is handed: named after it, unless a ring has that name."""
        taken = value in self.rings or any(buffer.name == value for buffer in self.facts.buffers)
        return f"{value}.handed" if taken else value

    def _deepen(self) -> None:
        """Give two-way channels the slots that keep the schedule's pace, as far as memory holds them.

        A slot is acquired again when the last release has reached the producer; handoffs come first, since the schedule
        does not count their slots.
        """
        two_way = [channel for channel in self.channels.values() if not channel.one_way]
        for channel in sorted(two_way, key=lambda channel: channel.buffer in self.rings):
            buffer = self.buffers[channel.buffer]
            wanted = -(-(self._released(channel) + self.facts.signal_cycles - self._acquired(channel)) // self.ii)
            grown = max(buffer.slots, min(wanted + channel.primed, buffer.slots + self._free_slots(buffer)))
            self.buffers[buffer.name] = replace(buffer, slots=grown)
        for capacity in self.warps.loop.capacities:
            memory = MEMORIES.get(capacity.memory, Memory.SHARED)
            used = self._used(memory)
            if used > capacity.capacity_bytes - capacity.fixed_bytes:
                handoffs = sum(
                    b.slots * b.slot_bytes
                    for b in self.buffers.values()
                    if b.memory is memory and b.name not in self.rings
                )
                raise NoRoomForHandoffs(
                    program=self.warps.loop.name,
                    needed=handoffs,
                    memory=capacity.memory,
                    free=capacity.capacity_bytes - capacity.fixed_bytes - used + handoffs,
                )

    def _used(self, memory: Memory) -> int:
        """Bytes of rings and handoffs; accumulators are among a capacity's fixed bytes."""
        own = {buffer.name for buffer in self.facts.buffers}
        return sum(b.slots * b.slot_bytes for b in self.buffers.values() if b.memory is memory and b.name not in own)

    def _free_slots(self, buffer: Buffer) -> int:
        if not buffer.slot_bytes:
            return 16
        for capacity in self.warps.loop.capacities:
            if MEMORIES.get(capacity.memory, Memory.SHARED) is buffer.memory:
                free = capacity.capacity_bytes - capacity.fixed_bytes - self._used(buffer.memory)
                return max(0, free // buffer.slot_bytes)
        return 16

    def _acquired(self, channel: Channel) -> int:
        """Cycle at which the producer needs a slot: it starts to write there."""
        if self._hands_over(channel):
            return self.start[channel.name] + self.ready[channel.name]
        return self.start[channel.name]

    def _hands_over(self, channel: Channel) -> bool:
        """Whether a channel takes a register value to other groups through shared memory."""
        return not self.performed[channel.name].result

    def _released(self, channel: Channel) -> int:
        """Cycle at which the last consumer gives a slot back, counted from its iteration."""
        ends: list[int] = []
        for consumer in channel.consumers:
            cycle, reader, distance = max(self._uses(channel, consumer))
            own = self.made.schedule, self.made.groups
            done = cycle if self._by_hardware(reader) else announced_cycle(self.warps, *own, consumer, cycle)
            ends.append(done + self.ii * max(0, channel.primed - distance))
        return max(ends)

    def _uses(self, channel: Channel, group: int) -> list[tuple[int, str, int]]:
        """Return (end cycle, reader, distance) of every use of a slot by a group, counted from the slot's iteration."""
        ring = self.rings.get(channel.buffer)
        if ring is not None and ring.producer == channel.name:
            return [
                (self.start[r.operation] + r.hold_cycles + self.ii * r.distance, r.operation, r.distance)
                for r in ring.readers
                if self.made.groups[r.operation] == group
            ]
        return [
            (self.start[reader.operation] + self.ii * source.distance, reader.operation, source.distance)
            for reader, source in self._readers(channel.name)
            if self.made.groups[reader.operation] == group
        ]

    # --- instructions -----------------------------------------------------------------------------------------------

    def _add(
        self,
        group: int,
        cycle: int,
        order: Order,
        anchor: str,
        instruction: Instruction,
        awaits: tuple[str, int] | None = None,
        *,
        every_step: bool = False,
    ) -> None:
        timed = Timed(cycle, order, self.ranks[anchor], instruction, awaits, every_step)
        if timed not in self.timed[group]:
            self.timed[group].append(timed)

    def _await(self, group: int, cycle: int, order: Order, anchor: str, target: str, back: int) -> None:
        """Wait for an operation of a queue, as it was issued `back` iterations ago."""
        wait = Instruction(Action.WAIT, self.performed[target].queue)
        self._add(group, cycle, order, anchor, wait, (target, back))

    def _perform(self, performed: Performed) -> None:
        name, group = performed.operation, self.made.groups[performed.operation]
        start = self.start[name]
        for source in performed.operands:
            if source.invariant:
                continue
            producer = self.performed[source.value]
            local = self.made.groups[source.value] == group
            if local and producer.queue and not self._follows(producer, performed, source):
                self._await(group, start, Order.WAIT, name, source.value, source.distance)
            elif not local and not producer.result:
                handed = Source(source.value, distance=source.distance, buffer=self._handed(source.value))
                self._add(group, start, Order.READ, name, Instruction(Action.READ, source.value, operands=(handed,)))
        if performed.staged:
            self._await(group, start, Order.WAIT, name, name, 1)
        ring = self.rings.get(performed.result)
        if ring is not None and ring.producer == name and name not in self.channels:
            self._protect(ring, group, start)
        instruction = Instruction(
            Action.PERFORM,
            name,
            operands=performed.operands,
            result=performed.result,
            asynchronous=performed.asynchronous,
            queue=performed.queue,
        )
        self._add(group, start, Order.PERFORM, name, instruction)

    def _protect(self, ring: Ring, group: int, start: int) -> None:
        """Before a group overwrites a slot that only it reads, its asynchronous reads of the slot must be over."""
        for reader in ring.readers:
            if self.performed[reader.operation].queue:
                back = self.buffers[ring.name].slots - reader.distance
                self._await(group, start, Order.WAIT, ring.producer, reader.operation, back)

    def _put(self, channel: Channel) -> None:
        name, group = channel.name, channel.producer
        performed = self.performed[name]
        start = self.start[name]
        hardware = performed.asynchronous and not performed.queue
        done = start if hardware else start + self.ready[name]
        early = Order.AFTER if hardware or done == start else Order.DONE
        if not channel.one_way:
            at = done if self._hands_over(channel) else start
            order = Order.ACQUIRE if at == start else Order.DONE
            self._add(group, at, order, name, Instruction(Action.ACQUIRE, name))
        if performed.queue:
            self._await(group, done, early, name, name, 0)
        if not performed.result:
            self._add(group, done, early, name, Instruction(Action.WRITE, name, result=self._handed(name)))
        self._add(group, done, early, name, Instruction(Action.PUT, name, after=name if hardware else ""))

    def _consume(self, channel: Channel, group: int) -> None:
        reads = [
            (self.start[reader.operation] + self.ii * source.distance, self.ranks[reader.operation], reader, source)
            for reader, source in self._readers(channel.name)
            if self.made.groups[reader.operation] == group
        ]
        if reads:
            _, _, first, source = min(reads, key=lambda read: read[:2])
            get = Instruction(Action.GET, channel.name, distance=source.distance)
            self._add(group, self.start[first.operation], Order.GET, first.operation, get)
        if not channel.one_way:
            self._release(channel, group)

    def _release(self, channel: Channel, group: int) -> None:
        """Give a slot back after its last use; a product that no wait covers gives it back itself when it is done.

        Slots that are full before the loop are given back by every consumer, so one that never reads them gives all
        slots back as many iterations later.
        """
        uses = self._uses(channel, group)
        end, last, distance = max(uses)
        hardware = [reader for _, reader, back in sorted(uses) if self._by_hardware(reader) and back == distance]
        later, after = max(distance, channel.primed), hardware[-1] if hardware else ""
        release = Instruction(Action.RELEASE, channel.name, distance=later, after=after)
        start = self.start[last]
        at, order = end - self.ii * distance, Order.DONE
        if self._hands_over(channel):
            at, order = start, Order.READ
        elif hardware[-1:] == [last] or at == start:
            at, order = start, Order.AFTER
        for _, reader, back in uses:
            if self.performed[reader].queue and not self._hands_over(channel):
                self._await(group, at, order, last, reader, distance - back)
        self._add(group, at, order, last, release)

    def _take_turns(self, plan: TurnPlan) -> None:
        for group, first, last in plan.runs:
            turn = plan.turn.name
            self._add(group, self.start[first], Order.TAKE, first, Instruction(Action.TAKE, turn), every_step=True)
            self._add(group, self.start[last], Order.PASS, last, Instruction(Action.PASS, turn), every_step=True)

    # --- groups -----------------------------------------------------------------------------------------------------

    def _turns(self) -> tuple[tuple[TurnPlan, ...], list[Cut]]:
        """Return the turns and the cut of every group; groups that share a turn have the cut in common."""
        cuts = [step_cut(timed, self.ii) for timed in self.timed]
        turns, members, shared = plan_turns(self.warps, self.made, self.facts.shared_units, self.timed)
        for group in members:
            assert shared is not None
            cuts[group] = shared
        for plan in turns:
            self._take_turns(plan)
        return turns, cuts

    def _group_name(self, position: int) -> str:
        roles = {issue.role for issue in self.warps.issues if self.made.groups[issue.operation] == position}
        named = [role for role in roles if role]
        return named[0] if named else f"group_{position}"
