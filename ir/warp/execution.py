"""A warp program as hardware runs it, one event at a time: program counters, mbarriers with parities, flights, turns.

Nothing here knows which arrival a wait is for; barriers count arrivals and flip phases, and waits look at a parity, as
mbarriers do. So it tells independently of `check` whether a program ends, in one interleaving or (`explore`) in all.
"""

from __future__ import annotations

from collections.abc import Hashable
from copy import copy
from dataclasses import dataclass, field
from typing import Protocol

from treadle.ir.warp.program import Action, Instruction, Role, WarpProgram


@dataclass(frozen=True, slots=True)
class Flight:
    """An asynchronous operation on its way; `number` counts the operations of its group."""

    group: int
    number: int
    instruction: Instruction
    iteration: int


class Watcher(Protocol):
    """What is told of every access as it happens."""

    def issued(self, group: int, instruction: Instruction, iteration: int) -> None:
        """An instruction of a group is issued (and over, unless it is asynchronous)."""

    def ended(self, flight: Flight) -> None:
        """An asynchronous operation has ended."""


@dataclass
class Barrier:
    """An mbarrier: `arrivals` of `count` have come in the current phase; `phases` have been completed."""

    count: int
    phases: int = 0
    arrivals: int = 0

    def arrive(self) -> None:
        """Count an arrival; the last one of a phase completes it."""
        self.arrivals += 1
        if self.arrivals == self.count:
            self.phases, self.arrivals = self.phases + 1, 0

    def passed(self, phase: int) -> bool:
        """Whether a wait for the phase passes: the parity is all that it sees."""
        return self.phases % 2 != phase % 2


@dataclass
class Execution:
    """A program running `trips` iterations; `step` and `end` move it on."""

    program: WarpProgram
    trips: int
    watcher: Watcher | None = None
    counters: list[int] = field(default_factory=list[int])
    flying: list[Flight] = field(default_factory=list[Flight])
    full: dict[tuple[str, int], Barrier] = field(default_factory=dict[tuple[str, int], Barrier])
    empty: dict[tuple[str, int], Barrier] = field(default_factory=dict[tuple[str, int], Barrier])
    passes: dict[str, int] = field(default_factory=dict[str, int])
    owed: list[tuple[frozenset[Flight], str, int]] = field(default_factory=list[tuple[frozenset[Flight], str, int]])
    """Signals of hardware: (operations that have to end first, `full` or `empty` with the channel, slot)."""

    def __post_init__(self) -> None:
        self.lists: list[list[tuple[Instruction, int]]] = [
            [(i, step - i.stage) for step, line in self.program.steps(group, self.trips) for i in line]
            for group in self.program.groups
        ]
        self.channels = {channel.name: channel for channel in self.program.channels}
        self.slots = {c.name: self.program.buffer(c.buffer).slots for c in self.program.channels}
        self.turns = {turn.name: turn for turn in self.program.turns}
        if not self.counters:
            self.counters = [0] * len(self.lists)
            self.passes = dict.fromkeys(self.turns, 0)
            for channel in self.program.channels:
                for slot in range(self.slots[channel.name]):
                    primed = int((slot + channel.primed) % self.slots[channel.name] < channel.primed)
                    self.full[channel.name, slot] = Barrier(1, primed)
                    self.empty[channel.name, slot] = Barrier(len(channel.consumers))

    @property
    def over(self) -> bool:
        """Whether all groups have run to their end and nothing flies."""
        return not self.flying and all(at == len(line) for at, line in zip(self.counters, self.lists, strict=True))

    def ready(self) -> list[int]:
        """Return the groups whose next instruction can be issued."""
        return [group for group in range(len(self.lists)) if self._can_issue(group)]

    def landing(self) -> list[Flight]:
        """Return the asynchronous operations that may end next."""
        return [
            flight
            for at, flight in enumerate(self.flying)
            if not any(_behind(earlier, flight) for earlier in self.flying[:at])
        ]

    def _can_issue(self, group: int) -> bool:
        if self.counters[group] == len(self.lists[group]):
            return False
        instruction, iteration = self.lists[group][self.counters[group]]
        name = instruction.subject
        match instruction.action:
            case Action.WAIT:
                flying = [f for f in self.flying if f.group == group and f.instruction.queue == name]
                return len(flying) <= instruction.pending
            case Action.TAKE:
                turn = self.turns[name]
                return turn.holders[self.passes[name] % len(turn.holders)] == group
            case Action.GET:
                slot, phase = self._slot(name, iteration - instruction.distance)
                return self.full[name, slot].passed(phase)
            case Action.ACQUIRE:
                slot, phase = self._slot(name, iteration - instruction.distance)
                return self.empty[name, slot].passed(phase - 1)
            case _:
                return True

    def _slot(self, channel: str, iteration: int) -> tuple[int, int]:
        slots = self.slots[channel]
        return iteration % slots, (iteration + self.channels[channel].primed) // slots

    def step(self, group: int) -> None:
        """Issue the next instruction of a group; it must be ready."""
        instruction, iteration = self.lists[group][self.counters[group]]
        name = instruction.subject
        if self.watcher is not None:
            self.watcher.issued(group, instruction, iteration)
        match instruction.action:
            case Action.PERFORM if instruction.asynchronous:
                self.flying.append(Flight(group, self.counters[group], instruction, iteration))
            case Action.PASS:
                self.passes[name] += 1
            case Action.PUT:
                slot = self._slot(name, iteration - instruction.distance)[0]
                self._signal(group, instruction, iteration, "full", name, slot)
            case Action.RELEASE:
                slot = self._slot(name, iteration - instruction.distance)[0]
                self._signal(group, instruction, iteration, "empty", name, slot)
            case _:
                pass
        self.counters[group] += 1

    def _signal(self, group: int, instruction: Instruction, iteration: int, kind: str, channel: str, slot: int) -> None:
        """Arrive now, or when what it is for has ended: one copy, or all that the group has issued (a commit)."""
        awaited: frozenset[Flight] = frozenset()
        if instruction.after:
            copies = self.program.copies(instruction.after)
            awaited = frozenset(
                flight
                for flight in self.flying
                if flight.group == group
                and not flight.instruction.queue
                and copies == self.program.copies(flight.instruction.subject)
                and (not copies or (flight.instruction.subject, flight.iteration) == (instruction.after, iteration))
            )
        if awaited:
            self.owed.append((awaited, f"{kind} {channel}", slot))
        else:
            self._arrive(f"{kind} {channel}", slot)

    def _arrive(self, barrier: str, slot: int) -> None:
        kind, _, channel = barrier.partition(" ")
        (self.full if kind == "full" else self.empty)[channel, slot].arrive()

    def end(self, flight: Flight) -> None:
        """End an asynchronous operation, and signal what waited for it alone."""
        self.flying.remove(flight)
        if self.watcher is not None:
            self.watcher.ended(flight)
        owed, self.owed = self.owed, []
        for awaited, barrier, slot in owed:
            if left := awaited - {flight}:
                self.owed.append((left, barrier, slot))
            else:
                self._arrive(barrier, slot)

    def branch(self, watcher: Watcher | None) -> Execution:
        """Return an independent copy that tells `watcher`."""
        other = copy(self)
        other.watcher = watcher
        other.counters, other.flying, other.owed = list(self.counters), list(self.flying), list(self.owed)
        other.full = {key: Barrier(b.count, b.phases, b.arrivals) for key, b in self.full.items()}
        other.empty = {key: Barrier(b.count, b.phases, b.arrivals) for key, b in self.empty.items()}
        other.passes = dict(self.passes)
        return other

    def key(self) -> Hashable:
        """Return what tells this state from others of the same run: counters, flights, and barriers by their counts."""
        return (
            tuple(self.counters),
            frozenset((flight.group, flight.number) for flight in self.flying),
            tuple((b.phases, b.arrivals) for b in (*self.full.values(), *self.empty.values())),
        )


def _behind(earlier: Flight, later: Flight) -> bool:
    """Whether an operation must end after an earlier one: same queue, or accumulation into the same buffer."""
    first, second = earlier.instruction, later.instruction
    if earlier.group != later.group:
        return False
    if second.queue:
        return first.queue == second.queue
    return chained(first, second)


def chained(first: Instruction, second: Instruction) -> bool:
    """Whether the second product accumulates into the buffer that the first one writes."""
    if not second.result or first.result != second.result:
        return False
    return any(source.role is Role.ACCUMULATOR and source.buffer == second.result for source in second.operands)
