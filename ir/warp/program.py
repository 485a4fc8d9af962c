"""Warp programs: the instruction list of every warp group of a software-pipelined loop, ready to be printed.

How a group of `stages` = S runs a loop of `trips` iterations (the same number in all groups), where no group has more
than A + 1 stages:

- `trips >= A`: the S - 1 steps of `prologue` (steps 0, 1, ...), then `steady` for every step S - 1 <= step < trips,
  then the S - 1 steps of `epilogue` (steps trips, trips + 1, ...). An instruction of stage k in a step works for the
  iteration step - k; lists hold exactly the instructions whose iteration exists, so nothing is guarded.
- `trips < A`: all groups run `serial` for every iteration, one after the other (all its stages are 0). It is empty for
  A <= 1, where that means no iteration at all. (Groups that overlap iterations beside one that does not may wait for
  each other: it hands over what an iteration needs only after all of the iteration before.)

What goes between groups goes through *channels* over *buffers*. Iteration i uses slot i % slots of a buffer. The
producer acquires a slot (waits until it is empty), fills it, and puts it (it is full); each consumer gets it (waits
until it is full), reads it, and releases it. A signal with `after` is given by hardware when that asynchronous
operation completes: for a copy, the transaction of its channel; for a product, a commit (`tcgen05.commit`), which waits
for all products without a queue that the group has issued so far. A one-way channel has no empty barriers, thus neither
acquire nor release: what it hands over lies in slots that another channel guards, or is handed back by way of the
values themselves.

An asynchronous operation with a `queue` runs on after its issue; its group waits for it with WAIT, which returns when
at most `pending` operations of that queue are in flight; they complete in order. One without a queue is waited for
through the channel that it signals.

*Turns* keep groups from issuing to one unit out of the order of the schedule (the ping-pong of FlashAttention-3): the
holders take and pass the turn in a fixed cyclic order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from treadle.ir.errors import InvalidValue
from treadle.ir.tile.program import Memory


class Action(Enum):
    """What an instruction does; `subject` names what it does it to."""

    PERFORM = "perform"
    """Perform the operation `subject` of the loop."""
    WRITE = "write"
    """Write the register value `subject` to the buffer `result`, to hand it over."""
    READ = "read"
    """Read the value `subject` of another group from the buffer of its operand into registers of this group."""
    ACQUIRE = "acquire"
    """Wait until the next slot of the channel `subject` is empty."""
    PUT = "put"
    """Mark the slot of the channel `subject` full."""
    GET = "get"
    """Wait until the slot of the channel `subject` is full."""
    RELEASE = "release"
    """Give the slot of the channel `subject` back: this group reads it no more."""
    WAIT = "wait"
    """Wait until at most `pending` operations of the queue `subject` are in flight."""
    TAKE = "take"
    """Wait until it is this group's turn in the turn `subject`."""
    PASS = "pass"
    """Hand the turn `subject` to the next group."""


class Role(Enum):
    """What an operand is to its operation."""

    INPUT = "input"
    A = "a"
    B = "b"
    ACCUMULATOR = "accumulator"


@dataclass(frozen=True, slots=True)
class Source:
    """An operand: `value` as it was made `distance` iterations ago, from registers or from a slot of `buffer`.

    At iterations before the first the value is the loop's initial one. `invariant` values are made before the loop.
    """

    value: str
    role: Role = Role.INPUT
    distance: int = 0
    buffer: str = ""
    invariant: bool = False


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. In a step, it works for the iteration step - `stage` - `distance`.

    `result` is the buffer that PERFORM or WRITE fills (its slot of the same iteration); empty means registers.
    `after` makes PUT or RELEASE a signal of the hardware at the completion of that asynchronous operation of the same
    iteration. `queue` is set for asynchronous operations that the group waits for with WAIT.
    """

    action: Action
    subject: str
    stage: int = 0
    distance: int = 0
    operands: tuple[Source, ...] = ()
    result: str = ""
    asynchronous: bool = False
    queue: str = ""
    after: str = ""
    pending: int = 0

    def __post_init__(self) -> None:
        if self.stage < 0 or self.distance < 0 or self.pending < 0:
            raise InvalidValue(message=f"`{self.action.value} {self.subject}` has a negative stage, distance or depth")
        if self.queue and not self.asynchronous:
            raise InvalidValue(message=f"`{self.subject}` goes to the queue `{self.queue}` but is not asynchronous")


Step = tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class WarpGroup:
    """One group of `warps` warps with `registers` per thread (what `setmaxnreg` sets), and what it runs."""

    name: str
    warps: int
    registers: int
    prologue: tuple[Step, ...]
    steady: Step
    epilogue: tuple[Step, ...]
    serial: Step

    def __post_init__(self) -> None:
        if len(self.prologue) != len(self.epilogue):
            raise InvalidValue(message=f"warp group `{self.name}` has a prologue and an epilogue of different lengths")

    @property
    def stages(self) -> int:
        """Number of iterations that overlap in this group."""
        return len(self.prologue) + 1

    def steps(self, trips: int) -> Iterator[tuple[int, Step]]:
        """Yield (step, instructions) as the group runs enough iterations, those of stage k for iteration step - k."""
        ahead = len(self.prologue)
        yield from enumerate(self.prologue)
        yield from ((step, self.steady) for step in range(ahead, trips))
        yield from enumerate(self.epilogue, start=trips)

    def instructions(self) -> Iterator[Instruction]:
        """Yield every instruction of every list."""
        for step in (*self.prologue, self.steady, *self.epilogue, self.serial):
            yield from step


@dataclass(frozen=True, slots=True)
class Buffer:
    """`slots` tiles of `slot_bytes` in a memory; iteration i uses slot i % slots.

    Values read at iterations before the first are initial ones, which lie in those iterations' slots before the loop.
    """

    name: str
    memory: Memory
    slots: int
    slot_bytes: int

    def __post_init__(self) -> None:
        if self.slots < 1 or self.slot_bytes < 0:
            raise InvalidValue(message=f"buffer `{self.name}` has {self.slots} slots of {self.slot_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Channel:
    """Full and empty barriers over the slots of `buffer`, from one producing group to consuming groups.

    Groups are positions in the program. A slot is full after one put; it is empty after one release of every consumer,
    so those are the arrival counts. The slots of the `primed` iterations before the first are full before the loop, the
    others empty. `transaction` says that the put counts the bytes of a copy (TMA) rather than an arrival.
    """

    name: str
    buffer: str
    producer: int
    consumers: tuple[int, ...]
    one_way: bool = False
    primed: int = 0
    transaction: bool = False

    def __post_init__(self) -> None:
        if not self.consumers or len(set(self.consumers)) != len(self.consumers):
            raise InvalidValue(message=f"channel `{self.name}` needs consumers, each of them once")

    def phase(self, iteration: int, slots: int) -> int:
        """Parity of the mbarrier phase in which the slot of an iteration is filled; the first phase is 0."""
        return (iteration + self.primed) // slots % 2


@dataclass(frozen=True, slots=True)
class Queue:
    """Asynchronous operations of one kind, in order within a group; at most `most_in_flight` of one group at once.

    One that `drains` can only be waited for as a whole: `pending` is 0 (`tcgen05.wait`).
    """

    name: str
    most_in_flight: int
    drains: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to issue to `unit`: positions in `holders` name the groups in cyclic order; the first one begins."""

    name: str
    unit: str
    holders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WarpProgram:
    """A pipelined loop as warp groups, buffers, channels and turns."""

    name: str
    groups: tuple[WarpGroup, ...]
    buffers: tuple[Buffer, ...] = ()
    channels: tuple[Channel, ...] = ()
    queues: tuple[Queue, ...] = ()
    turns: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        for kind, names in (
            ("warp group", [group.name for group in self.groups]),
            ("buffer", [buffer.name for buffer in self.buffers]),
            ("channel", [channel.name for channel in self.channels]),
            ("queue", [queue.name for queue in self.queues]),
            ("turn", [turn.name for turn in self.turns]),
        ):
            if len(set(names)) != len(names):
                doubled = next(name for name in names if names.count(name) > 1)
                raise InvalidValue(message=f"warp program `{self.name}` has the {kind} `{doubled}` twice")

    @property
    def ahead(self) -> int:
        """Iterations below which all groups run one after the other: the most that any of them works ahead."""
        return max((group.stages for group in self.groups), default=1) - 1

    def steps(self, group: WarpGroup, trips: int) -> Iterator[tuple[int, Step]]:
        """Yield (step, instructions) as a group runs them; an instruction's iteration is step - stage - distance."""
        if trips < self.ahead:
            return ((iteration, group.serial) for iteration in range(trips))
        return group.steps(trips)

    def buffer(self, name: str) -> Buffer:
        """Return the buffer called `name`; raises KeyError."""
        return _named(self.buffers, name)

    def channel(self, name: str) -> Channel:
        """Return the channel called `name`; raises KeyError."""
        return _named(self.channels, name)

    def queue(self, name: str) -> Queue:
        """Return the queue called `name`; raises KeyError."""
        return _named(self.queues, name)

    def copies(self, operation: str) -> bool:
        """Whether an operation is a copy that counts bytes; it reads its operands (addresses, pages) at its issue."""
        return any(channel.name == operation and channel.transaction for channel in self.channels)

    def turn(self, name: str) -> Turn:
        """Return the turn called `name`; raises KeyError."""
        return _named(self.turns, name)


_Named = TypeVar("_Named", Buffer, Channel, Queue, Turn)


def _named(items: tuple[_Named, ...], name: str) -> _Named:
    for item in items:
        if item.name == name:
            return item
    raise KeyError(name)
