"""What a tile program's operations read and write on a machine, as far as warp programs must know it.

Names and transfers are those of `costmodels/lower.py`; which operations run on after their issue is that of
`costmodels/lower_warps.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from treadle.costmodels.tile_cycles import TENSOR_CORE, TENSOR_PORT, memory_unit
from treadle.ir.machine import Machine
from treadle.ir.tile.program import Memory, OperationKind, TileOperation, TileProgram
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.facts import Facts, Performed, SharedUnit
from treadle.ir.warp.program import Buffer, Queue, Role, Source

PRODUCTS = Queue("products", 8)
"""Products waited for with `wgmma.wait_group` N; CUTLASS takes N from 0 to 7 (`warpgroup_wait`)."""
COPIES = Queue("copies", 64)
"""Copies waited for with `cp.async.wait_group` N (PTX sets no limit; deeper than any ring here)."""
STORES = Queue("stores", 64)
"""Bulk copies to global memory, waited for with `cp.async.bulk.wait_group.read` N (PTX ISA)."""
TENSOR_LOADS = Queue("tensor_loads", 64, drains=True)
"""`tcgen05.ld`, waited for with `tcgen05.wait::ld`, which waits for all of them (PTX ISA)."""
TENSOR_STORES = Queue("tensor_stores", 64, drains=True)
"""`tcgen05.st`, waited for with `tcgen05.wait::st`."""

FULL_UNIT = 0.75
"""Groups take turns on a unit that is busy for this share of the interval; with more room their order settles."""

_ROLES = (Role.A, Role.B, Role.ACCUMULATOR)


def facts_of(program: TileProgram, machine: Machine, warps: WarpLoop, made: WarpSchedule) -> Facts:
    """Return the facts of every issued operation of `lower_warps(program, machine)`."""
    return _Facts(program, machine, warps, made).facts()


@dataclass(frozen=True)
class _Facts:
    program: TileProgram
    machine: Machine
    warps: WarpLoop
    made: WarpSchedule

    def facts(self) -> Facts:
        issued = {issue.operation for issue in self.warps.issues}
        names = [operation.name for operation in self.warps.loop.operations if operation.name in issued]
        performed = tuple(self._performed(name) for name in names)
        rings = {ring.name for ring in self.warps.loop.rings}
        own = dict.fromkeys(p.result for p in performed if p.result and p.result not in rings)
        used = {p.queue for p in performed}
        barrier = "mbarrier_cycles" if self.machine.has("warp_specialization") else "named_barrier_cycles"
        return Facts(
            performed,
            tuple(Buffer(name, Memory.TENSOR, 1, self.program.tile_of(name).bytes) for name in own),
            tuple(queue for queue in (PRODUCTS, COPIES, STORES, TENSOR_LOADS, TENSOR_STORES) if queue.name in used),
            self._shared_units(),
            round(self.machine.value("warps_per_group")),
            round(self.machine.value(barrier)),
            round(self.machine.value("named_barrier_cycles")),
        )

    def _shared_units(self) -> tuple[SharedUnit, ...]:
        """Products of several groups keep their order by turns where the tensor core has little slack.

        Groups that wait for each other's results in each iteration keep it without.
        """
        products = [op for op in self.warps.loop.operations if op.unit == TENSOR_CORE]
        busy = sum(operation.occupancy_cycles for operation in products)
        full = busy >= FULL_UNIT * self.made.schedule.ii_cycles
        return (SharedUnit(TENSOR_CORE),) if full and not self._exchanging() else ()

    def _exchanging(self) -> bool:
        """Whether all groups that issue products waited for by their group hand each other results, both ways."""
        if self.machine.has("tensor_memory"):
            return False
        groups = self.made.groups
        homes = {groups[op.name] for op in self.warps.loop.operations if op.unit == TENSOR_CORE}
        dependences = [d for d in self.warps.loop.dependences if d.source in groups and d.target in groups]
        handed = {(groups[d.source], groups[d.target]) for d in dependences}
        return all((one, other) in handed for one in homes for other in homes if one != other)

    def _performed(self, name: str) -> Performed:
        unit = self.warps.loop.operation(name).unit
        queue, asynchronous = self._waiting(name, unit)
        product = unit == TENSOR_CORE
        return Performed(
            name,
            self._operands(name),
            self._result(name),
            asynchronous,
            queue,
            chained=product,
            transaction=asynchronous and not product and not queue,
            staged=queue == STORES.name,
        )

    def _stores(self, name: str) -> bool:
        operation = self._tile_operation(name)
        return operation is not None and operation.kind is OperationKind.STORE

    def _waiting(self, name: str, unit: str) -> tuple[str, bool]:
        """Return (queue, whether an operation is asynchronous)."""
        if unit == TENSOR_CORE:
            by_barrier = self.machine.has("tensor_memory")
            return (PRODUCTS.name if self._queued(by_barrier) else "", self.machine.has("async_mma"))
        if unit == TENSOR_PORT:
            return (TENSOR_LOADS.name if name.endswith(".to_registers") else TENSOR_STORES.name), True
        if self._stores(name):
            return (STORES.name if self.machine.has("tma") else ""), True
        if unit == memory_unit(self.machine):
            home = self.made.groups[name]
            readers = {self.made.groups[d.target] for d in self.warps.loop.dependences if d.source == name}
            by_barrier = self.machine.has("tma") or readers - {home} != set()
            return ("" if by_barrier else COPIES.name), True
        return "", False

    def _queued(self, by_barrier: bool) -> bool:
        return self.machine.has("async_mma") and not by_barrier

    # --- operands ---------------------------------------------------------------------------------------------------

    def _operands(self, name: str) -> tuple[Source, ...]:
        base, _, move = name.partition(".")
        if move:
            sources = [d.source for d in self.warps.loop.dependences if d.target == name and d.source != name]
            made = [source for source in sources if not source.endswith(".operands")]
            return (self._source(made[0], Role.INPUT, 0) if made else self._source(base, Role.INPUT, 0),)
        operation = self.program.operation(name)
        product = operation.kind is OperationKind.MMA
        return tuple(
            self._source(self._taken_from(operand.value, name), _ROLES[at] if product else Role.INPUT, operand.distance)
            for at, operand in enumerate(operation.operands)
        )

    def _taken_from(self, value: str, reader: str) -> str:
        """Return the value or the last of its transfers, as the loop's dependences have it."""
        for dependence in self.warps.loop.dependences:
            if dependence.target == reader and dependence.source.partition(".")[0] == value:
                return dependence.source
        return value

    def _source(self, value: str, role: Role, distance: int) -> Source:
        made = value in self.warps.loop.index
        buffer = self._result(value) if made else ""
        return Source(value, role, distance, buffer, invariant=not made)

    # --- results ----------------------------------------------------------------------------------------------------

    def _result(self, name: str) -> str:
        """Return the buffer that an operation's result goes to, empty for registers and global memory."""
        rings = {ring.producer: ring.name for ring in self.warps.loop.rings}
        base, _, move = name.partition(".")
        if name in rings:
            return rings[name]
        if move == "to_tensor":
            return self._destination(base, name)
        if move or not self.machine.has("tensor_memory") or self._tile_operation(base) is None:
            return ""
        operation = self.program.operation(base)
        return self._accumulator(operation) if operation.kind is OperationKind.MMA else ""

    def _tile_operation(self, name: str) -> TileOperation | None:
        return next((operation for operation in self.program.operations if operation.name == name), None)

    def _accumulator(self, product: TileOperation) -> str:
        """Return the buffer a product accumulates into: its ring, that of the chain it goes on, or one of its own."""
        rings = {ring.producer for ring in self.warps.loop.rings}
        name = product.name
        while name not in rings and len(product.operands) > 2 and not product.operands[2].distance:
            before = self._tile_operation(product.operands[2].value)
            if before is None or before.kind is not OperationKind.MMA:
                break
            product, name = before, before.name
        return name

    def _destination(self, value: str, transfer: str) -> str:
        """Return where a transfer to tensor memory writes: the reader's accumulator, or the slot it came from."""
        for operation in self.program.operations:
            adds_to = operation.operands[2].value if len(operation.operands) > 2 else ""
            accumulates = operation.kind is OperationKind.MMA and adds_to == value
            if accumulates and self._taken_from(value, operation.name) == transfer:
                return self._accumulator(operation)
        rings = {ring.producer for ring in self.warps.loop.rings if ring.memory == "tensor"}
        walked = self._tile_operation(value)
        while walked is not None and walked.name not in rings and walked.operands:
            same = [o.value for o in walked.operands if self.program.tile_of(o.value).shape == walked.result.shape]
            walked = self._tile_operation(same[0]) if same else None
        return walked.name if walked is not None else transfer
