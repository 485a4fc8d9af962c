"""The instruction lists of one warp group as Gluon statements, one to one.

A value is named after its operation. Where an instruction reads the value of an earlier iteration than the latest one
made, the older one is kept under `NAME_before` (shifted right before the value is made again). A product in flight is
`NAME_token`; the wait that covers it makes it `NAME`. To know which is which, the lists are run: prologue, three steady
steps, epilogue; all steady steps must read the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.kernel import WarpKernel, buffer_name, identifier
from treadle.ir.tile.program import OperationKind, TileOperation
from treadle.ir.warp.program import Action, Channel, Instruction, Role, Source, Step, WarpGroup

WAITED_FOR = ("tensor_loads", "tensor_stores", "stores")
"""Queues of what needs no wait: Gluon's accesses to tensor memory wait themselves, registers are added up at once."""

Lines = list[str]


class Frame(Protocol):
    """What a family of kernels knows beyond its loop."""

    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""
        ...

    def destination(self, descriptor: str, slot: str) -> str:
        """Return the text of a slot as the descriptor's block."""
        ...

    def expected_bytes(self, descriptor: str, target: str) -> str:
        """Return the bytes that a copy brings, as text."""
        ...

    def issued(self, descriptor: str, where: str, barrier: str, target: str) -> str:
        """Return the statement that issues a copy."""
        ...

    def invariant(self, value: str) -> str:
        """Return the text of a value made before the loop."""
        ...

    def held(self, value: str, role: Role, reader: TileOperation, iteration: str) -> str:
        """Return the text of a product's operand that was made before the loop."""
        ...

    def view(self, value: str, slot: str, role: Role, reader: TileOperation) -> str:
        """Return the text of a product's operand in a slot of a buffer."""
        ...

    def statement(self, operation: TileOperation, operands: Sequence[str], iteration: str) -> str:
        """Return the expression of an operation on registers."""
        ...

    def layout(self, value: str) -> str:
        """Return the layout of a value in registers."""
        ...

    def printed_at(self, operation: str) -> str:
        """Return the operation at which one is printed as a part of a change in tensor memory; empty: by itself."""
        ...

    def changed(self, operation: str, operands: Sequence[str], slot: str) -> Lines:
        """Return a change of tensor memory, given its operands in registers and the slot that is written."""
        ...

    def has_first(self, value: str) -> bool:
        """Whether a value has a first one before the loop of a tile, under its own name."""
        ...

    def mask(self, operation: TileOperation, iteration: str, operands: Sequence[str]) -> Lines:
        """Return what a masked step does before an operation."""
        ...

    def mask_operands(self, operation: TileOperation, iteration: str, operands: Mapping[Role, str]) -> Lines:
        """Return what a masked step does to a product's operands in shared memory before it."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instruction stands: its step, and text of the iteration of stage 0 in the tile and in the kernel."""

    step: int
    local: str
    overall: str


@dataclass(slots=True)
class Printed:
    """Statements of a group: prologue, one steady step (and the same with masks), epilogue."""

    prologue: Lines = field(default_factory=list[str])
    steady: Lines = field(default_factory=list[str])
    masked: Lines = field(default_factory=list[str])
    epilogue: Lines = field(default_factory=list[str])


@dataclass(slots=True)
class _Flight:
    """A product in flight: `reads` are registers it reads meanwhile; one that another product took over is `taken`."""

    value: str
    reads: tuple[str, ...]
    taken: bool = False


@dataclass(slots=True)
class _State:
    """What a run of the group has reached: the latest iteration of every value, and products in flight."""

    latest: dict[str, int] = field(default_factory=dict[str, int])
    made: Counter[str] = field(default_factory=Counter[str])
    flights: list[_Flight] = field(default_factory=list[_Flight])


def shifted(text: str, back: int) -> str:
    """Return `text - back` without needless parts."""
    base, offset = parted(text)
    return joined(base, offset - back)


def parted(text: str) -> tuple[str, int]:
    """Return a text without the number that is added to it, and that number."""
    constant = re.fullmatch(r"(.*?)(?: ([+-]) (\d+))?", text)
    assert constant is not None
    return constant[1], int(constant[3] or 0) * (-1 if constant[2] == "-" else 1)


def joined(base: str, offset: int) -> str:
    """Return `base + offset` without needless parts."""
    if base.isdigit():
        return str(int(base) + offset)
    return base if not offset else f"{base} {'+' if offset > 0 else '-'} {abs(offset)}"


class GroupWriter:
    """Prints one group of a warp program."""

    def __init__(self, kernel: WarpKernel, position: int, frame: Frame) -> None:
        self.kernel, self.position, self.frame = kernel, position, frame
        self.group: WarpGroup = kernel.warp_program.groups[position]
        self.operations = {operation.name: operation for operation in kernel.program.operations}
        self.channels = {channel.name: channel for channel in kernel.warp_program.channels}
        self.lags: dict[str, int] = {}
        self.carried = {
            operand.value
            for operation in kernel.program.operations
            for operand in operation.operands
            if operand.distance
        }
        self.held_turns: dict[str, int] = {}
        self.settled = False

    def printed(self, *, masked: bool) -> Printed:
        """Return the group's statements; `masked` also gives steady steps with masks, and masks prologue and epilogue.

        Raises:
            NotEmittable: steady steps that differ.
        """
        self._print_all(masked=False)
        self.settled = True
        return self._print_all(masked=masked)

    def _print_all(self, *, masked: bool) -> Printed:
        """Print everything in the order in which it runs; the first pass only finds how many old values are kept."""
        printed, state = Printed(), _State()
        ahead = self.group.stages - 1
        for step, instructions in enumerate(self.group.prologue):
            place = Place(step, str(step), shifted("first", -step))
            printed.prologue += self._step(instructions, place, state, masked=masked)
        steady = Place(ahead, "step", "at")
        before = self._step(self.group.steady, steady, state, masked=False)
        printed.steady = self._step(self.group.steady, Place(ahead + 1, "step", "at"), state, masked=False)
        again = self._step(self.group.steady, Place(ahead + 2, "step", "at"), state, masked=False)
        if printed.steady != again:
            raise NotEmittable(kernel=self.kernel.name, reason=f"steady steps of `{self.group.name}` differ")
        self._check_first_step(before, printed.steady)
        printed.masked = self._step(self.group.steady, Place(ahead + 3, "step", "at"), state, masked=masked)
        for number, instructions in enumerate(self.group.epilogue):
            place = Place(ahead + 4 + number, shifted("trips", -number), shifted("first + trips", -number))
            printed.epilogue += self._step(instructions, place, state, masked=masked)
        return printed

    def _check_first_step(self, first: Lines, steady: Lines) -> None:
        """The first steady step may have fewer products in flight (the prologue drained), but reads the same values."""

        def values(lines: Lines) -> Lines:
            return [line for line in lines if "warpgroup_mma_wait" not in line and "warpgroup_mma_init" not in line]

        if self.settled and values(first) != values(steady):
            raise NotEmittable(kernel=self.kernel.name, reason=f"the first steady step of `{self.group.name}` differs")

    def _step(self, instructions: Step, place: Place, state: _State, *, masked: bool) -> Lines:
        lines: Lines = []
        for instruction in instructions:
            lines += self._instruction(instruction, place, state, masked=masked)
        return lines

    # --- instructions -----------------------------------------------------------------------------------------------

    def _instruction(self, instruction: Instruction, place: Place, state: _State, *, masked: bool) -> Iterator[str]:
        subject = instruction.subject
        match instruction.action:
            case Action.PERFORM:
                yield from self._perform(instruction, place, state, masked=masked)
            case Action.GET:
                yield self._wait(subject, "full", instruction, place)
            case Action.ACQUIRE:
                yield self._wait(subject, "empty", instruction, place)
            case Action.PUT:
                yield from self._put(instruction, place)
            case Action.RELEASE:
                yield self._signal(subject, "empty", instruction, place)
            case Action.WAIT:
                yield from self._drain(instruction, state)
            case Action.WRITE:
                overall = shifted(place.overall, instruction.stage)
                slot = self._slot(instruction.result, self._counted(self.channels[subject], overall))
                value = self._read(subject, place.step, instruction, 0, state)
                yield f"{self._buffer(instruction.result)}.index({slot}).store({value})"
            case Action.READ:
                yield from self._fetch(instruction, place, state)
            case Action.TAKE | Action.PASS:
                yield self._turn(instruction, place)

    def _buffer(self, name: str) -> str:
        return buffer_name(self.kernel.warp_program, name)

    def _back(self, instruction: Instruction) -> int:
        return instruction.stage + instruction.distance

    def _slots(self, buffer: str) -> int:
        return self.kernel.warp_program.buffer(buffer).slots

    def _slot(self, buffer: str, overall: str) -> str:
        slots = self._slots(buffer)
        return "0" if slots == 1 else f"_slot({overall}, {slots})"

    def _counted(self, channel: Channel, overall: str) -> str:
        """Return which of a channel's fillings is that of an iteration, counted over all tiles.

        Where readers take the value of an earlier iteration, each tile begins with a filling of first values.
        """
        if not channel.primed:
            return overall
        base, offset = parted(overall)
        return joined(f"{base} + tiles_done", offset + channel.primed)

    def _barrier(self, channel: Channel, side: str, overall: str) -> str:
        slot = self._slot(channel.buffer, self._counted(channel, overall))
        return f"{identifier(channel.name)}_{side}.index({slot})"

    def _wait(self, name: str, side: str, instruction: Instruction, place: Place) -> str:
        channel = self.channels[name]
        overall = shifted(place.overall, self._back(instruction))
        parity = f"_parity({self._counted(channel, overall)}, {self._slots(channel.buffer)})"
        inverted = " ^ 1" if side == "empty" else ""
        return f"mbarrier.wait({self._barrier(channel, side, overall)}, {parity}{inverted})"

    def _signal(self, name: str, side: str, instruction: Instruction, place: Place) -> str:
        barrier = self._barrier(self.channels[name], side, shifted(place.overall, self._back(instruction)))
        return f"tcgen05_commit({barrier})" if instruction.after else f"mbarrier.arrive({barrier}, count=1)"

    def primed(self) -> Lines:
        """Return how a group fills slots with first values, before the loop of a tile."""
        lines: Lines = []
        for channel in self._handed_first():
            if channel.producer != self.position:
                continue
            full, empty = (self._barrier(channel, side, "first - 1") for side in ("full", "empty"))
            counted = self._counted(channel, "first - 1")
            slot = self._slot(channel.buffer, counted)
            lines += [
                f"mbarrier.wait({empty}, _parity({counted}, {self._slots(channel.buffer)}) ^ 1)",
                f"{self._buffer(channel.buffer)}.index({slot}).store({identifier(channel.name)})",
                "fence_async_shared()",
                f"mbarrier.arrive({full}, count=1)",
            ]
        return lines

    def drained(self) -> Lines:
        """Return how a group gives back the slots of last values, which nothing reads, behind the loop of a tile."""
        lines: Lines = []
        for channel in self._handed_first():
            if self.position not in channel.consumers:
                continue
            full, empty = (self._barrier(channel, side, "first + trips - 1") for side in ("full", "empty"))
            parity = f"_parity({self._counted(channel, 'first + trips - 1')}, {self._slots(channel.buffer)})"
            lines += [f"mbarrier.wait({full}, {parity})", f"mbarrier.arrive({empty}, count=1)"]
        return lines

    def _handed_first(self) -> list[Channel]:
        """Return channels whose readers take the value of the iteration before; raises NotEmittable for other ones."""
        found = [channel for channel in self.channels.values() if channel.primed]
        for channel in found:
            given = [i for i in self.group.instructions() if i.action is Action.RELEASE and i.subject == channel.name]
            one = channel.primed == 1 and all(i.distance == 1 for i in given)
            if not one or channel.one_way or not self.frame.has_first(channel.name):
                raise NotEmittable(kernel=self.kernel.name, reason=f"`{channel.name}` of earlier tiles in other groups")
        return found

    def _put(self, instruction: Instruction, place: Place) -> Iterator[str]:
        channel = self.channels[instruction.subject]
        if channel.transaction:
            return
        if not instruction.after and self._in_shared(channel.buffer):
            yield "fence_async_shared()"
        yield self._signal(instruction.subject, "full", instruction, place)

    def _in_shared(self, buffer: str) -> bool:
        return self.kernel.warp_program.buffer(buffer).memory.value == "shared"

    def _turn(self, instruction: Instruction, place: Place) -> str:
        """Take or pass a turn; holders take it once a step, in the order of the turn."""
        turn = self.kernel.warp_program.turn(instruction.subject)
        mine = [at for at, holder in enumerate(turn.holders) if holder == self.position]
        name = identifier(turn.name)
        count = place.overall.replace("first", "turns") if place.overall != "at" else "turns + step"
        key = f"{instruction.action.value} {turn.name}"
        at = mine[self.held_turns.get(key, 0) % len(mine)]
        self.held_turns[key] = self.held_turns.get(key, 0) + 1
        if instruction.action is Action.PASS:
            return f"mbarrier.arrive({name}.index({(at + 1) % len(turn.holders)}), count=1)"
        inverted = " ^ 1" if at == 0 else ""
        return f"mbarrier.wait({name}.index({at}), _parity({count}, 1){inverted})"

    # --- values -----------------------------------------------------------------------------------------------------

    def _read(self, value: str, step: int, instruction: Instruction, distance: int, state: _State) -> str:
        """Return the name under which a group finds the value of an iteration."""
        wanted = step - instruction.stage - distance
        lag = state.latest.get(value, -1) - max(wanted, -1)
        if lag < 0:
            raise NotEmittable(
                kernel=self.kernel.name, reason=f"`{instruction.subject}` reads `{value}` before it is made"
            )
        self.lags[value] = max(self.lags.get(value, 0), lag)
        return old_name(value, lag)

    def _make(self, value: str, step: int, instruction: Instruction, state: _State) -> Lines:
        """Note a new instance of a value; return the lines that keep older ones, as far as there are any."""
        state.latest[value] = step - instruction.stage
        there = state.made[value] + (value in self.carried)
        state.made[value] += 1
        most = min(there, self.lags.get(value, 0))
        return [f"{old_name(value, lag)} = {old_name(value, lag - 1)}" for lag in range(most, 0, -1)]

    def _text(self, source: Source, instruction: Instruction, place: Place, state: _State) -> str:
        if source.invariant:
            return self.frame.invariant(source.value)
        return self._read(source.value, place.step, instruction, source.distance, state)

    def _perform(self, instruction: Instruction, place: Place, state: _State, *, masked: bool) -> Iterator[str]:
        name = instruction.subject
        base, _, move = name.partition(".")
        operation = self.operations[base]
        if self.frame.printed_at(name):
            if self.frame.printed_at(name) == name:
                yield from self._change(instruction, place, state)
        elif move:
            yield from self._transfer(instruction, move, place, state)
        elif operation.kind is OperationKind.LOAD:
            yield from self._copy(instruction, place)
        elif operation.kind is OperationKind.MMA:
            yield from self._product(instruction, operation, place, state, masked=masked)
        else:
            operands = [self._text(source, instruction, place, state) for source in instruction.operands]
            if masked:
                yield from self.frame.mask(operation, shifted(place.local, instruction.stage), operands)
            expression = self.frame.statement(operation, operands, shifted(place.local, instruction.stage))
            if operation.kind is OperationKind.STORE:
                yield expression
                return
            yield from self._make(name, place.step, instruction, state)
            yield f"{identifier(name)} = {expression}"

    def _copy(self, instruction: Instruction, place: Place) -> Iterator[str]:
        """A TMA copy; the bytes it brings are what the slot's full barrier waits for."""
        channel = self.channels[instruction.subject]
        overall = shifted(place.overall, instruction.stage)
        barrier = self._barrier(channel, "full", overall)
        descriptor, where = self.frame.copy(instruction.subject, shifted(place.local, instruction.stage))
        buffer = self._buffer(instruction.result)
        slot = f"{buffer}.index({self._slot(instruction.result, overall)})"
        yield f"mbarrier.expect({barrier}, {self.frame.expected_bytes(descriptor, slot)})"
        yield self.frame.issued(descriptor, where, barrier, self.frame.destination(descriptor, slot))

    def _transfer(self, instruction: Instruction, move: str, place: Place, state: _State) -> Iterator[str]:
        name = instruction.subject
        if move == "to_registers":
            source = instruction.operands[0]
            slot = self._slot(source.buffer, shifted(place.overall, instruction.stage + source.distance))
            yield from self._make(name, place.step, instruction, state)
            layout = self.frame.layout(name)
            yield f"{identifier(name)} = {self._buffer(source.buffer)}.index({slot}).load({layout})"
            return
        value = self._text(instruction.operands[0], instruction, place, state)
        slot = self._slot(instruction.result, shifted(place.overall, instruction.stage))
        target = self.frame.view(
            name, f"{self._buffer(instruction.result)}.index({slot})", Role.INPUT, self._reader(name)
        )
        yield f"{target}.store({value})"
        if self._in_shared(instruction.result) and not self._handed(instruction.result):
            # No put follows that would order the write before the product that reads it.
            yield "fence_async_shared()"

    def _change(self, instruction: Instruction, place: Place, state: _State) -> Lines:
        """Return several operations as one change of tensor memory: what lies between them is no value."""
        name = instruction.subject
        parts = [
            i for i in self.group.steady if i.action is Action.PERFORM and self.frame.printed_at(i.subject) == name
        ]
        operands = [
            self._text(source, part, place, state)
            for part in parts
            for source in part.operands
            if not source.buffer and not self.frame.printed_at(source.value)
        ]
        overall = shifted(place.overall, instruction.stage)
        written = instruction.result
        slot = f"{self._buffer(written)}.index({self._slot(written, overall)})" if written else ""
        return self.frame.changed(name, operands, slot)

    def _handed(self, buffer: str) -> bool:
        """Whether a channel goes over a buffer."""
        return any(channel.buffer == buffer for channel in self.channels.values())

    def _reader(self, value: str) -> TileOperation:
        base = value.partition(".")[0]
        return next(
            operation
            for operation in self.operations.values()
            if operation.kind is OperationKind.MMA and base in (operand.value for operand in operation.operands)
        )

    def _fetch(self, instruction: Instruction, place: Place, state: _State) -> Iterator[str]:
        """Read a value of another group from its slot."""
        source = instruction.operands[0]
        overall = shifted(place.overall, instruction.stage + source.distance)
        slot = self._slot(source.buffer, self._counted(self.channels[source.value], overall))
        yield from self._make(source.value, place.step - source.distance, instruction, state)
        layout = self.frame.layout(source.value)
        yield f"{identifier(source.value)} = {self._buffer(source.buffer)}.index({slot}).load({layout})"

    # --- products ---------------------------------------------------------------------------------------------------

    def _product(
        self, instruction: Instruction, operation: TileOperation, place: Place, state: _State, *, masked: bool
    ) -> Iterator[str]:
        texts = {
            source.role: self._operand(source, operation, instruction, place, state) for source in instruction.operands
        }
        if masked:
            yield from self.frame.mask_operands(operation, shifted(place.local, instruction.stage), texts)
        if instruction.queue:
            yield from self._warpgroup_product(instruction, operation, texts, place, state)
            return
        slot = self._slot(instruction.result, shifted(place.overall, instruction.stage))
        accumulates = self._accumulates(instruction, place)
        target = f"{self._buffer(instruction.result)}.index({slot})"
        target = self.frame.view(operation.name, target, Role.ACCUMULATOR, operation)
        yield f"tcgen05_mma({texts[Role.A]}, {texts[Role.B]}, {target}, use_acc={accumulates}, mbarriers=[])"

    def _accumulates(self, instruction: Instruction, place: Place) -> str:
        """A product that goes on from its own previous result starts anew in iteration 0."""
        for source in instruction.operands:
            if source.role is Role.ACCUMULATOR:
                local = shifted(place.local, instruction.stage)
                return f"{local} > 0" if source.distance else "True"
        return "False"

    def _operand(
        self, source: Source, operation: TileOperation, instruction: Instruction, place: Place, state: _State
    ) -> str:
        if source.invariant:
            local = shifted(place.local, instruction.stage)
            return self.frame.held(source.value, source.role, operation, local)
        if source.role is Role.ACCUMULATOR and (source.buffer or self._chained(source)):
            return ""
        if not source.buffer:
            return self._read(source.value, place.step, instruction, source.distance, state)
        slot = self._slot(source.buffer, shifted(place.overall, instruction.stage + source.distance))
        return self.frame.view(source.value, f"{self._buffer(source.buffer)}.index({slot})", source.role, operation)

    def _chained(self, source: Source) -> bool:
        """Whether an accumulator is a product of this group that may still be in flight."""
        operation = self.operations.get(source.value)
        return operation is not None and operation.kind is OperationKind.MMA

    def _warpgroup_product(
        self,
        instruction: Instruction,
        operation: TileOperation,
        texts: dict[Role, str],
        place: Place,
        state: _State,
    ) -> Iterator[str]:
        name = identifier(operation.name)
        chain = next((s for s in instruction.operands if s.role is Role.ACCUMULATOR and self._chained(s)), None)
        if chain is not None:
            accumulator = f"{identifier(chain.value)}_token"
            for flight in state.flights:
                flight.taken |= flight.value == chain.value != operation.name
        else:
            accumulator = texts.get(Role.ACCUMULATOR, "")
        reads = (
            [texts[Role.A]]
            if not self._source(instruction, Role.A).buffer and not self._source(instruction, Role.A).invariant
            else []
        )
        state.flights.append(_Flight(operation.name, tuple(reads)))
        yield from self._make(operation.name, place.step, instruction, state)
        empty = f"ttgl.zeros({tuple(operation.result.shape)}, ttgl.float32, {self.frame.layout(operation.name)})"
        use = "" if accumulator else ", use_acc=False"
        operands = f"{texts[Role.A]}, {texts[Role.B]}, {accumulator or empty}{use}"
        yield f"{name}_token = warpgroup_mma({operands}, is_async=True)"

    @staticmethod
    def _source(instruction: Instruction, role: Role) -> Source:
        return next(source for source in instruction.operands if source.role is role)

    def _drain(self, instruction: Instruction, state: _State) -> Iterator[str]:
        """Wait for products: those over become values, the accumulator of those that go on stays a token."""
        if instruction.subject in WAITED_FOR:
            return
        keep = instruction.pending
        over = state.flights[: len(state.flights) - keep]
        flying = state.flights[len(state.flights) - keep :] if keep else []
        state.flights = flying
        names = list(dict.fromkeys(flight.value for flight in over if not flight.taken))
        if not names:
            names = list(dict.fromkeys(flight.value for flight in flying if not flight.taken))[-1:]
        reads = tuple(dict.fromkeys(read for flight in over for read in flight.reads))
        continued, ended = {flight.value for flight in flying}, {flight.value for flight in over}
        for value in [name for name in names if name in continued]:
            if value in ended and not self._goes_on(value):
                raise NotEmittable(kernel=self.kernel.name, reason=f"`{value}` is made again before it is waited for")
            token = f"{identifier(value)}_token"
            yield f"{token} = warpgroup_mma_init(warpgroup_mma_wait({keep}, deps=[{token}]))"
        finished = [name for name in names if name not in continued]
        if finished:
            results = ", ".join([*(identifier(name) for name in finished), *("_" for _ in reads)])
            deps = ", ".join([*(f"{identifier(name)}_token" for name in finished), *reads])
            yield f"{results} = warpgroup_mma_wait({keep}, deps=[{deps}])"
        for value in finished:
            if self._goes_on(value):
                yield f"{identifier(value)}_token = warpgroup_mma_init({identifier(value)})"

    def _goes_on(self, value: str) -> bool:
        """Whether a later product of the group accumulates straight into this one."""
        return any(
            source.value == value and source.role is Role.ACCUMULATOR
            for instruction in self.group.steady
            for source in instruction.operands
        )


def old_name(value: str, lag: int) -> str:
    """Return the name of a value as it was `lag` instances ago."""
    return identifier(value) + ("" if not lag else "_before" if lag == 1 else f"_before_{lag}")
