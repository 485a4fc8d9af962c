"""Tile programs: one loop over tile operations on typed tiles, with loop-carried values.

An operand names a value and how many iterations ago it was made (`distance` 0 is this iteration). Operations read
loop-invariant inputs, values of the same iteration that come before them, and carried values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import prod

from treadle.ir.diagnostics import closest
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.loop import ZeroDistanceCycle

DTYPE_BYTES: dict[str, float] = {
    "float64": 8, "float32": 4, "tfloat32": 4, "bfloat16": 2, "float16": 2,
    "float8_e4m3": 1, "float8_e5m2": 1, "int32": 4, "int8": 1, "int4": 0.5, "bool": 1,
}  # fmt: skip
"""Bytes per element of every dtype a tile may have."""


class Memory(Enum):
    """Where a tile lives."""

    GLOBAL = "global"
    SHARED = "shared"
    REGISTER = "register"
    TENSOR = "tensor"
    """Tensor memory of Blackwell."""


class OperationKind(Enum):
    """What a tile operation does."""

    LOAD = "load"
    STORE = "store"
    MMA = "mma"
    REDUCE = "reduce"
    EXP2 = "exp2"
    ELEMENTWISE = "elementwise"
    CONVERT = "convert"
    BARRIER = "barrier"


@dataclass(frozen=True, slots=True)
class Tile:
    """Shape, element type and memory of a value."""

    shape: tuple[int, ...]
    dtype: str
    memory: Memory

    def __post_init__(self) -> None:
        if any(extent < 1 for extent in self.shape):
            raise InvalidValue(message=f"tile shape {list(self.shape)} has an extent below 1")
        if self.dtype not in DTYPE_BYTES:
            raise InvalidValue(message=f"unknown dtype `{self.dtype}`; expected one of {', '.join(DTYPE_BYTES)}")

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in bytes, rounded up."""
        return -(-int(self.elements * DTYPE_BYTES[self.dtype] * 2) // 2)


@dataclass(frozen=True, slots=True)
class Operand:
    """A value read `distance` iterations after it was made."""

    value: str
    distance: int = 0


@dataclass(frozen=True, slots=True)
class TileOperation:
    """One tile operation. Its name is the name of its result.

    For `MMA` the operands are (a, b) or (a, b, accumulator) and `depth` is the extent of the contracted dimension.
    `work` is the number of elementary operations per result element of an elementwise chain (1 unless said).
    """

    name: str
    kind: OperationKind
    operands: tuple[Operand, ...]
    result: Tile
    depth: int = 0
    work: float = 1
    note: str = ""

    def __post_init__(self) -> None:
        least = {OperationKind.LOAD: 0, OperationKind.BARRIER: 0, OperationKind.MMA: 2}.get(self.kind, 1)
        if len(self.operands) < least:
            raise InvalidValue(
                message=f"`{self.name}` ({self.kind.value}) has {len(self.operands)} operands of {least}"
            )
        if (self.depth < 1) == (self.kind is OperationKind.MMA) or self.work < 0:
            raise InvalidValue(
                message=f"`{self.name}` ({self.kind.value}) has the depth {self.depth}, work {self.work}"
            )


@dataclass(frozen=True, slots=True)
class Invariant:
    """A tile that is there before the loop and does not change in it."""

    name: str
    tile: Tile


@dataclass(frozen=True, slots=True)
class TileProgram:
    """A loop over tile operations: the steady body of a kernel.

    `family` selects the kernel template; `tile_sizes` are its block sizes; `shape` the problem's figures;
    `trips` is how often the body runs in one program instance, `instances` how many instances the grid has;
    `warps` the warps of one instance.

    A kernel of several loops is its longest loop with the others in `before` and `after`: an instance runs all of them
    in order, `repeats` times (the output tiles of a persistent kernel). `instances` of the others is the same; they
    have no loops around them. What they make for each other are invariants of the readers.
    """

    name: str
    family: str
    operations: tuple[TileOperation, ...]
    trips: int
    instances: int
    shape: dict[str, int]
    tile_sizes: dict[str, int]
    invariants: tuple[Invariant, ...] = ()
    warps: int = 4
    options: dict[str, str | int | bool] = field(default_factory=dict[str, str | int | bool])
    before: tuple[TileProgram, ...] = ()
    after: tuple[TileProgram, ...] = ()
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.trips < 1 or self.instances < 1 or self.repeats < 1:
            raise InvalidValue(message=f"program `{self.name}` runs {self.trips} trips on {self.instances} instances")
        if not self.operations:
            raise InvalidValue(message=f"program `{self.name}` has no operations")
        for sibling in self.siblings:
            if sibling.siblings or sibling.repeats > 1 or sibling.instances != self.instances:
                raise InvalidValue(message=f"loop `{sibling.name}` of program `{self.name}` has a nest of its own")
        if len({self.name, *(sibling.name for sibling in self.siblings)}) != 1 + len(self.siblings):
            raise InvalidValue(message=f"program `{self.name}` has two loops of the same name")
        known = [*(invariant.name for invariant in self.invariants), *(operation.name for operation in self.operations)]
        if len(set(known)) != len(known):
            doubled = next(name for name in known if known.count(name) > 1)
            raise InvalidValue(message=f"program `{self.name}` has two values of the name `{doubled}`")
        self._resolve_operands(set(known))

    def _resolve_operands(self, known: set[str]) -> None:
        """Refuse operands that nothing makes, or that this iteration has not made yet."""
        made = {invariant.name for invariant in self.invariants}
        for operation in self.operations:
            for operand in operation.operands:
                where = f"`{operation.name}` of program `{self.name}` reads `{operand.value}`"
                if operand.value not in known:
                    hint = closest(operand.value, sorted(known))
                    raise InvalidValue(message=f"{where}, which no operation and no invariant of it makes", hint=hint)
                if operand.distance < 0:
                    raise InvalidValue(message=f"{where} at distance {operand.distance}: a later iteration's")
                if operand.distance == 0 and operand.value not in made:
                    self._refuse_cycle(operation)
                    raise InvalidValue(
                        message=f"{where}, which is made behind it",
                        hint=f"put `{operand.value}` before `{operation.name}`, or read an earlier iteration's at a "
                        "distance of at least 1",
                    )
            made.add(operation.name)

    def _refuse_cycle(self, first: TileOperation) -> None:
        """Refuse operations of one iteration that wait for each other, beginning with `first`."""
        readers = {operation.name: operation for operation in self.operations}
        path, pending = {first.name: ""}, [first.name]
        while pending:
            name = pending.pop()
            for operand in readers[name].operands:
                if operand.distance == 0 and operand.value == first.name:
                    cycle = [first.name, *_back(path, name)]
                    raise ZeroDistanceCycle(cycle=" -> ".join(f"`{step}`" for step in cycle))
                if operand.distance == 0 and operand.value in readers and operand.value not in path:
                    path[operand.value] = name
                    pending.append(operand.value)

    def operation(self, name: str) -> TileOperation:
        """Return the operation called `name`; raises KeyError."""
        for operation in self.operations:
            if operation.name == name:
                return operation
        raise KeyError(name)

    def tile_of(self, name: str) -> Tile:
        """Return the tile of an invariant or a result; raises KeyError."""
        for invariant in self.invariants:
            if invariant.name == name:
                return invariant.tile
        return self.operation(name).result

    @property
    def siblings(self) -> tuple[TileProgram, ...]:
        """The kernel's other loops in the order they run."""
        return (*self.before, *self.after)

    @property
    def flops(self) -> int:
        """Tensor-core operations (2 per multiply-add) of the whole grid: trips x instances x 2 x elements x depth."""
        body = sum(2 * op.result.elements * op.depth for op in self.operations if op.kind is OperationKind.MMA)
        inside = body * self.trips * self.instances + sum(sibling.flops for sibling in self.siblings)
        return inside * self.repeats


def _back(path: dict[str, str], name: str) -> list[str]:
    """Return the steps from `name` back to where the path began."""
    steps = [name]
    while path[steps[-1]]:
        steps.append(path[steps[-1]])
    return steps
