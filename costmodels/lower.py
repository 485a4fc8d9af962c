"""A tile program on a machine becomes a loop: what each operation costs, what waits for what, what needs a buffer.

Every tile operation becomes one operation of the same name. Where a value must move between memories before its
reader can take it, a transfer is added, named after the value: `weights_low.to_tensor`. Where products read operands
from shared memory while they run, the reads are an operation of their own on the shared-memory port, bound to the
product's start: `scores.operands`. So primary operations have no dot in their name.

The function is pure and deterministic: `treadle verify` lowers again and compares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from treadle.costmodels import tile_cycles as cycles
from treadle.costmodels.errors import UnsupportedOperation
from treadle.costmodels.tile_cycles import Cost
from treadle.costmodels.tile_traffic import load_rate, store_rate
from treadle.ir.machine import Machine
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.program import Memory, Operand, OperationKind, Tile, TileOperation, TileProgram

SHARED = "shared"
TENSOR = "tensor"

MAX_RING_DEPTH = 16
"""Deepest ring the lowering offers; 16 slots hide more latency than any machine here has."""


class Move(Enum):
    """A transfer between memories; the word is the suffix of its name."""

    TO_REGISTERS = "to_registers"
    TO_SHARED = "to_shared"
    TO_TENSOR = "to_tensor"


def lower(program: TileProgram, machine: Machine) -> Loop:
    """Return the scheduling problem of a tile program on a machine, in whole cycles.

    Raises:
        UnsupportedOperation: an operation the machine has no unit for (float8 products on A100).
        MissingFigure: the machine file lacks a number.
    """
    return _Lowering(program, machine).loop()


def primary(name: str) -> bool:
    """Whether an operation of a lowered loop is a tile operation rather than a transfer or a port's share of one."""
    return "." not in name


@dataclass
class _RingDraft:
    """A ring being collected: readers come one by one."""

    name: str
    memory: str
    slot_bytes: int
    producer: str
    readers: list[Reader] = field(default_factory=list[Reader])


@dataclass
class _Lowering:
    """One lowering in progress; operations, dependences and rings grow as the program is walked."""

    program: TileProgram
    machine: Machine
    costs: dict[str, Cost] = field(default_factory=dict[str, Cost])
    dependences: dict[Dependence, None] = field(default_factory=dict[Dependence, None])
    rings: dict[str, _RingDraft] = field(default_factory=dict[str, _RingDraft])

    def __post_init__(self) -> None:
        self.by_name = {operation.name: operation for operation in self.program.operations}
        self.has_tensor_memory = self.machine.has("tensor_memory")
        self.async_mma = self.machine.has("async_mma")

    def loop(self) -> Loop:
        for operation in self.program.operations:
            self.costs[operation.name] = self._cost(operation)
        for operation in self.program.operations:
            self._connect(operation)
        return Loop(
            name=self.program.name,
            units=tuple(Unit(unit, 1) for unit in cycles.UNITS if any(c.unit == unit for c in self.costs.values())),
            operations=tuple(
                Operation(name, cost.unit, cost.occupancy_cycles, cost.latency_cycles)
                for name, cost in self._in_program_order()
            ),
            dependences=tuple(self.dependences),
            rings=self._finished_rings(),
            capacities=self._capacities(),
        )

    def _in_program_order(self) -> list[tuple[str, Cost]]:
        """Each tile operation with its transfers right behind it; those of invariants come first."""
        order = {name: position for position, name in enumerate(self.by_name)}
        return sorted(self.costs.items(), key=lambda item: (order.get(item[0].partition(".")[0], -1), item[0]))

    # --- costs of the tile operations -------------------------------------------------------------------------------

    def _cost(self, operation: TileOperation) -> Cost:
        machine, result = self.machine, operation.result
        match operation.kind:
            case OperationKind.MMA:
                return cycles.mma(machine, result.shape, operation.depth, self._tensor_rate(operation))
            case OperationKind.LOAD:
                return cycles.load(machine, result.bytes, load_rate(self.program, machine))
            case OperationKind.STORE:
                return cycles.store(machine, result.bytes, store_rate(self.program, machine))
            case OperationKind.EXP2:
                return cycles.exp2(machine, result.elements, operation.work, self._software_exp2(operation))
            case OperationKind.ELEMENTWISE:
                return cycles.elementwise(machine, result.elements, operation.work)
            case OperationKind.CONVERT:
                return cycles.convert(machine, result.elements, operation.work)
            case OperationKind.REDUCE:
                elements = self.program.tile_of(operation.operands[0].value).elements
                return cycles.reduce(machine, elements, operation.work)
            case OperationKind.BARRIER:
                return cycles.barrier(machine)

    def _software_exp2(self, operation: TileOperation) -> bool:
        """Where the special-function unit ties with the tensor core, row vectors go to the multiply-add lanes."""
        return len(operation.result.shape) < 2 and any(f.name == "exp2_software_fma" for f in self.machine.figures)

    def _tensor_rate(self, operation: TileOperation) -> float:
        """Multiply-adds per cycle of a product; both operands must run at the same rate."""
        dtypes = [self.program.tile_of(operand.value).dtype for operand in operation.operands[:2]]
        rates = [cycles.tensor_rate(self.machine, dtype) for dtype in dtypes]
        kinds = {cycles.tensor_class(dtype) for dtype in dtypes}
        if len(kinds) > 1 or not rates[0]:
            raise UnsupportedOperation(
                operation=operation.name,
                program=self.program.name,
                what=f"a product of {' and '.join(dict.fromkeys(dtypes))}",
                machine=self.machine.name,
                expected=f"both operands of one of {', '.join(cycles.tensor_dtypes(self.machine))}",
            )
        return rates[0]

    # --- what waits for what ----------------------------------------------------------------------------------------

    def _connect(self, operation: TileOperation) -> None:
        for position, operand in enumerate(operation.operands):
            source = operand.value
            for move in self._moves(operation, position):
                source = self._transfer(operand.value, source, move, operation, position)
            if source in self.costs:
                self._depend(source, operation, operand, accumulates=position == 2)
            self._read_ring(source, operation, operand)
        if operation.kind is OperationKind.MMA and self.async_mma:
            self._bind_operand_reads(operation)

    def _depend(self, source: str, operation: TileOperation, operand: Operand, accumulates: bool) -> None:
        """Products into one accumulator follow each other without waiting for the result to leave the pipeline."""
        producer = self.by_name.get(source)
        chained = accumulates and producer is not None and producer.kind is OperationKind.MMA
        cost = self.costs[source]
        delay = cost.occupancy_cycles if chained and operation.kind is OperationKind.MMA else cost.latency_cycles
        self.dependences[Dependence(source, operation.name, delay, operand.distance)] = None

    def _moves(self, operation: TileOperation, position: int) -> tuple[Move, ...]:
        """Return the transfers that bring an operand to where the operation takes it from."""
        here = self._home(operation.operands[position].value)
        if operation.kind is not OperationKind.MMA:
            direct = here == Memory.REGISTER or (operation.kind is OperationKind.STORE and here == Memory.SHARED)
            return () if direct or here == Memory.GLOBAL else (Move.TO_REGISTERS,)
        if position == 1:
            return self._moves_to_second_operand(here)
        if self.has_tensor_memory:
            return (Move.TO_TENSOR,) if here == Memory.REGISTER else ()
        direct = here == Memory.REGISTER or (position == 0 and self.async_mma and here == Memory.SHARED)
        return () if direct else (Move.TO_REGISTERS,)

    def _moves_to_second_operand(self, here: Memory) -> tuple[Move, ...]:
        """B of an asynchronous product lies in shared memory; of a synchronous one in registers."""
        if not self.async_mma:
            return () if here == Memory.REGISTER else (Move.TO_REGISTERS,)
        by_home = {
            Memory.REGISTER: (Move.TO_SHARED,),
            Memory.TENSOR: (Move.TO_REGISTERS, Move.TO_SHARED),
        }
        return by_home.get(here, ())

    def _home(self, value: str) -> Memory:
        """Return the memory a value lies in on this machine: accumulators are in tensor memory where there is one."""
        operation = self.by_name.get(value)
        if operation is not None and operation.kind is OperationKind.MMA:
            return Memory.TENSOR if self.has_tensor_memory else Memory.REGISTER
        home = self.program.tile_of(value).memory
        if home == Memory.TENSOR and not self.has_tensor_memory:
            raise UnsupportedOperation(
                operation=value, program=self.program.name, what="a tile in tensor memory", machine=self.machine.name
            )
        return home

    def _transfer(self, value: str, source: str, move: Move, reader: TileOperation, position: int) -> str:
        """Add a transfer of `value` (once) and return its name."""
        name = f"{value}.{move.value}"
        tile = self.program.tile_of(value)
        cost = self._transfer_cost(value, tile, move, reader, position)
        known = self.costs.get(name)
        self.costs[name] = cost if known is None or known.occupancy_cycles < cost.occupancy_cycles else known
        if known is not None:
            return name
        if source in self.costs:
            self.dependences[Dependence(source, name, self.costs[source].latency_cycles)] = None
        self._read_ring_by(source, name, self.costs[name].latency_cycles, 0)
        if move is Move.TO_SHARED:
            self.rings[name] = _RingDraft(value, SHARED, tile.bytes, name)
        if move is Move.TO_TENSOR and position == 0 and self._slot_of(value) is None:
            self.rings[name] = _RingDraft(value, TENSOR, tile.bytes, name)
        return name

    def _transfer_cost(self, value: str, tile: Tile, move: Move, reader: TileOperation, position: int) -> Cost:
        if move is Move.TO_TENSOR:
            return cycles.tensor_store(self.machine, tile.bytes)
        if move is Move.TO_SHARED:
            return cycles.shared_access(self.machine, tile.bytes)
        if self._home(value) == Memory.TENSOR:
            return cycles.tensor_load(self.machine, tile.bytes)
        if reader.kind is not OperationKind.MMA:
            return cycles.shared_access(self.machine, tile.bytes)
        a_bytes, b_bytes = (tile.bytes, 0) if position == 0 else (0, tile.bytes)
        size = cycles.mma_operand_reads(self.machine, reader.result.shape, a_bytes, b_bytes)
        return cycles.shared_access(self.machine, size)

    def _bind_operand_reads(self, operation: TileOperation) -> None:
        """Charge the shared-memory port for the operands an asynchronous product streams while it runs."""
        sizes = [self._streamed_bytes(operation, position) for position in (0, 1)]
        total = cycles.mma_operand_reads(self.machine, operation.result.shape, *sizes)
        if total == 0:
            return
        name = f"{operation.name}.operands"
        cost = cycles.shared_access(self.machine, total)
        self.costs[name] = Cost(cost.unit, cost.occupancy_cycles, cost.occupancy_cycles)
        self.dependences[Dependence(operation.name, name, 0)] = None
        self.dependences[Dependence(name, operation.name, 0)] = None

    def _streamed_bytes(self, operation: TileOperation, position: int) -> int:
        """Bytes of an operand that a product takes from shared memory: at most what its result needs of the tile."""
        value = operation.operands[position].value
        moves = self._moves(operation, position)
        in_shared = moves[-1] is Move.TO_SHARED if moves else self._home(value) == Memory.SHARED
        if not in_shared:
            return 0
        tile = self.program.tile_of(value)
        needed = Tile((operation.result.shape[position - 2], operation.depth), tile.dtype, tile.memory)
        return min(tile.bytes, needed.bytes)

    # --- buffers ----------------------------------------------------------------------------------------------------

    def _read_ring(self, source: str, operation: TileOperation, operand: Operand) -> None:
        self._read_ring_by(source, operation.name, self.costs[operation.name].latency_cycles, operand.distance)
        slot = self._slot_of(operand.value) if operation.kind is OperationKind.MMA else None
        if slot is not None and source == f"{operand.value}.{Move.TO_TENSOR.value}":
            self._add_reader(slot, Reader(operation.name, self.costs[operation.name].latency_cycles, operand.distance))

    def _read_ring_by(self, source: str, reader: str, hold_cycles: int, distance: int) -> None:
        """Make `reader` hold the slot that `source` filled, if `source` fills a ring."""
        operation = self.by_name.get(source)
        if operation is not None and operation.result.memory == Memory.SHARED:
            self.rings.setdefault(source, _RingDraft(source, SHARED, operation.result.bytes, source))
        elif operation is not None and self.has_tensor_memory and self._is_fresh_product(operation):
            root = self._root(operation)
            self.rings.setdefault(root, _RingDraft(root, TENSOR, operation.result.bytes, root))
            source = root
        if source in self.rings:
            self._add_reader(source, Reader(reader, hold_cycles, distance))

    def _add_reader(self, ring: str, reader: Reader) -> None:
        draft = self.rings.get(ring)
        if draft is not None and reader.operation != draft.producer and reader not in draft.readers:
            draft.readers.append(reader)

    def _is_fresh_product(self, operation: TileOperation) -> bool:
        """Whether a product starts a new accumulator every iteration (scores), rather than carrying one on."""
        return operation.kind is OperationKind.MMA and not self._carried(operation)

    def _carried(self, operation: TileOperation) -> bool:
        """Whether a product's accumulator is made of the product's own earlier result."""
        pending = list(operation.operands[2:3])
        seen: set[str] = set()
        while pending:
            operand = pending.pop()
            if operand.value == operation.name:
                return True
            source = self.by_name.get(operand.value)
            if source is not None and operand.value not in seen:
                seen.add(operand.value)
                pending += source.operands[2:3] if source.kind is OperationKind.MMA else source.operands
        return False

    def _root(self, operation: TileOperation) -> str:
        """Return the first of a chain of products that add into one accumulator within an iteration."""
        while len(operation.operands) > 2:
            before = self.by_name.get(operation.operands[2].value)
            if before is None or before.kind is not OperationKind.MMA or operation.operands[2].distance:
                break
            operation = before
        return operation.name

    def _slot_of(self, value: str) -> str | None:
        """Return the product whose tensor-memory slot a value of registers may overwrite (P lies where S was)."""
        tile = self.program.tile_of(value)
        while (operation := self.by_name.get(value)) is not None:
            if operation.kind is OperationKind.MMA:
                fits = self._is_fresh_product(operation) and tile.bytes <= operation.result.bytes
                return self._root(operation) if fits else None
            same = [o.value for o in operation.operands if self.program.tile_of(o.value).shape == tile.shape]
            if not same or operation.operands[0].distance:
                return None
            value = same[0]
        return None

    def _finished_rings(self) -> tuple[Ring, ...]:
        order = {name: position for position, (name, _) in enumerate(self._in_program_order())}
        drafts = sorted((d for d in self.rings.values() if d.readers), key=lambda draft: order[draft.producer])
        limits = {capacity.memory: capacity.capacity_bytes for capacity in self._capacities()}
        return tuple(
            Ring(
                name=draft.name,
                memory=draft.memory,
                slot_bytes=draft.slot_bytes,
                producer=draft.producer,
                readers=tuple(draft.readers),
                max_depth=max(1, min(MAX_RING_DEPTH, limits[draft.memory] // max(1, draft.slot_bytes))),
            )
            for draft in drafts
        )

    def _capacities(self) -> tuple[Capacity, ...]:
        fixed = sum(i.tile.bytes for i in self.program.invariants if i.tile.memory == Memory.SHARED)
        shared = Capacity(SHARED, int(self.machine.value("shared_capacity_bytes")), fixed)
        if not self.has_tensor_memory:
            return (shared,)
        ringed = {ring.producer for ring in self.rings.values() if ring.readers}
        carried = sum(
            operation.result.bytes
            for operation in self.program.operations
            if operation.kind is OperationKind.MMA and self._root(operation) not in ringed
        )
        return shared, Capacity(TENSOR, int(self.machine.value("tensor_memory_capacity_bytes")), carried)
