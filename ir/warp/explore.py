"""Every interleaving of a small warp program: a search of its states for deadlocks and for accesses that meet."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.warp.execution import Execution, Flight, chained
from treadle.ir.warp.program import Action, Instruction, Role, WarpProgram


class TooManyStates(TreadleError):
    """A state space search that was stopped."""

    code = "TRD521"
    template = "warp program `{program}` has more than {states} states at {trips} iterations"
    hint = "explore smaller programs; `check_warp_program` covers every interleaving without searching"


@dataclass
class _Slots:
    """Contents of all slots and who is at them, and which register values are there."""

    program: WarpProgram
    contents: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict[tuple[str, int], tuple[str, int]])
    reading: list[tuple[Flight, str, int]] = field(default_factory=list[tuple[Flight, str, int]])
    writing: list[tuple[Flight, str, int]] = field(default_factory=list[tuple[Flight, str, int]])
    registers: frozenset[tuple[int, str, int]] = frozenset()
    coming: frozenset[tuple[int, str, int]] = frozenset()
    """Register results of asynchronous operations that have not ended."""
    fault: str = ""
    number: int = 0

    def copy(self) -> _Slots:
        return _Slots(
            self.program, dict(self.contents), list(self.reading), list(self.writing), self.registers, self.coming
        )

    def _slot(self, buffer: str, iteration: int) -> tuple[str, int]:
        return buffer, iteration % self.program.buffer(buffer).slots

    def issued(self, group: int, instruction: Instruction, iteration: int) -> None:
        """Look at every access of an instruction as it is issued."""
        label = f"{instruction.action.value} {instruction.subject} of iteration {iteration}"
        flight = Flight(group, self.number, instruction, iteration)
        if instruction.action in (Action.PERFORM, Action.READ):
            for source in instruction.operands:
                if source.invariant:
                    continue
                wanted = (source.value, iteration - source.distance)
                if source.buffer:
                    self._begin_read(flight, source.buffer, wanted, source.role is Role.ACCUMULATOR, label)
                else:
                    self._read_register(group, instruction, source.role, wanted, label)
        if instruction.action is Action.READ:
            source = instruction.operands[0]
            self.registers |= {(group, source.value, iteration - source.distance)}
        if instruction.action is Action.WRITE:
            self._read_register(group, instruction, Role.INPUT, (instruction.subject, iteration), label)
        if instruction.action in (Action.PERFORM, Action.WRITE):
            self._begin_result(flight, label)

    def _begin_read(self, flight: Flight, buffer: str, wanted: tuple[str, int], accumulates: bool, label: str) -> None:
        slot = self._slot(buffer, wanted[1])
        behind = [other for other, *at in self.writing if tuple(at) == slot]
        mine = [other for other in behind if accumulates and chained(other.instruction, flight.instruction)]
        if len(mine) < len(behind):
            self.fault = self.fault or f"{label} reads `{buffer}` while it is written"
        elif not mine and self.contents.get(slot, wanted if wanted[1] < 0 else None) != wanted:
            self.fault = self.fault or f"{label} finds another value than `{wanted[0]}` of iteration {wanted[1]}"
        if flight.instruction.asynchronous and not self.program.copies(flight.instruction.subject):
            self.reading.append((flight, *slot))

    def _read_register(
        self, group: int, instruction: Instruction, role: Role, wanted: tuple[str, int], label: str
    ) -> None:
        key = (group, *wanted)
        queued = role is Role.ACCUMULATOR and instruction.queue and key in self.coming
        if wanted[1] >= 0 and key not in self.registers and not queued:
            self.fault = self.fault or f"{label} reads `{wanted[0]}` of iteration {wanted[1]} before it is there"

    def _begin_result(self, flight: Flight, label: str) -> None:
        instruction, instance = flight.instruction, (flight.instruction.subject, flight.iteration)
        if not instruction.result:
            key = (flight.group, *instance)
            if instruction.asynchronous:
                self.coming |= {key}
            else:
                self.registers |= {key}
            return
        slot = self._slot(instruction.result, flight.iteration)
        at_it = [other for other, *at in (*self.reading, *self.writing) if tuple(at) == slot]
        if any(not _same(other, flight) and not chained(other.instruction, instruction) for other in at_it):
            self.fault = self.fault or f"{label} writes `{instruction.result}` while it is in use"
        if instruction.asynchronous:
            self.writing.append((flight, *slot))
        else:
            self.contents[slot] = instance

    def ended(self, flight: Flight) -> None:
        """Let go of the slots of an operation; its result is there."""
        self.reading = [item for item in self.reading if not _same(item[0], flight)]
        self.writing = [item for item in self.writing if not _same(item[0], flight)]
        instruction, instance = flight.instruction, (flight.instruction.subject, flight.iteration)
        if instruction.result:
            self.contents[self._slot(instruction.result, flight.iteration)] = instance
        else:
            self.coming -= {(flight.group, *instance)}
            self.registers |= {(flight.group, *instance)}


def _same(first: Flight, second: Flight) -> bool:
    return (first.group, first.instruction, first.iteration) == (second.group, second.instruction, second.iteration)


def explore(program: WarpProgram, trips: int, most_states: int = 200_000) -> list[Finding]:
    """Return what goes wrong in any interleaving: TRD531 for a deadlock, TRD532 for accesses that meet.

    Raises:
        TooManyStates.
    """
    where = f"{program.name}, {trips} iterations"
    slots = _Slots(program)
    start = Execution(program, trips, slots)
    seen: set[Hashable] = {(start.key(), frozenset(slots.contents.items()))}
    open_states = [(start, slots)]
    while open_states:
        state, held = open_states.pop()
        moves: list[int | Flight] = [*state.ready(), *state.landing()]
        if not moves and not state.over:
            return [Finding("TRD531", where, f"groups stop at instructions {state.counters}")]
        for move in moves:
            watcher = held.copy()
            after = state.branch(watcher)
            if isinstance(move, int):
                after.step(move)
            else:
                after.end(move)
            if watcher.fault:
                return [Finding("TRD532", where, watcher.fault)]
            key = (after.key(), frozenset(watcher.contents.items()))
            if key not in seen:
                seen.add(key)
                if len(seen) > most_states:
                    raise TooManyStates(program=program.name, states=most_states, trips=trips)
                open_states.append((after, watcher))
    return []
