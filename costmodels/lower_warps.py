"""A tile program on a machine becomes a loop with warps: who issues what for how long, what crossing groups costs.

Rules per architecture come from the machine's traits: `warp_specialization` puts loads in a group of their own;
`async_mma` makes products cost their group only the issue; `register_reallocation` lets groups differ in registers;
with `tensor_memory` accumulators are no register values at all.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import ceil

from treadle.costmodels.lower import lower, primary
from treadle.costmodels.tile_cycles import MUFU, TENSOR_CORE, TENSOR_PORT, memory_unit
from treadle.ir.machine import Machine
from treadle.ir.tile.cycles import longest_paths
from treadle.ir.tile.loop import Loop, Operation, Reader
from treadle.ir.tile.program import Memory, OperationKind, Tile, TileOperation, TileProgram
from treadle.ir.tile.warps import Crossing, FlightLimit, Issue, RegisterValue, WarpLimits, WarpLoop

LOAD_ROLE = "load"
FIXED_REGISTERS = 24
"""Registers for addresses, counters and barrier state in every group: estimate, near the 24 of a CUTLASS producer."""
ROLE_REGISTERS = 24
"""What `setmaxnreg` leaves a load group in CUTLASS and FlashAttention-3 kernels."""
REGISTER_BYTES = 4
SMALL_REGISTERS = 4
"""Values of at most so many registers (row statistics) count as fixed in every group instead of being tracked."""
LANES_OF_A_ROW = 4
"""Lanes that share a row of a product's fragment (PTX ISA)."""
LEAST_STAGES = 6
"""Most stages of a schedule, where latencies ask for no more: deeper pipelines only lengthen filling and draining."""
STAGES_FOR_HANDOFFS = 2
"""Stages beside those of latencies and loads, for handoffs between groups."""
MOST_GROUPS = 5
"""Most groups that are tried: FlashAttention-4 has load, MMA, two softmax and a correction group."""
REGISTER_GRANULARITY = 8
"""`setmaxnreg` takes multiples of 8 (PTX ISA)."""

_IN_PLACE = (OperationKind.ELEMENTWISE, OperationKind.EXP2, OperationKind.CONVERT)


def lower_warps(program: TileProgram, machine: Machine) -> WarpLoop:
    """Return the joint scheduling problem of a tile program on a machine; raises as `lower`."""
    return _Warps(program, machine, lower(program, machine)).lowered()


@dataclass(frozen=True)
class _Warps:
    program: TileProgram
    machine: Machine
    loop: Loop

    def lowered(self) -> WarpLoop:
        issued = [op for op in self.loop.operations if not op.name.endswith(".operands")]
        names = {op.name for op in issued}
        positions = [
            position
            for position, dependence in enumerate(self.loop.dependences)
            if dependence.source in names and dependence.target in names and dependence.source != dependence.target
        ]
        values = [value for op in issued if (value := self._register_value(op, names)) is not None]
        return WarpLoop(
            loop=self.loop,
            issues=tuple(self._issue(op) for op in issued),
            crossings=tuple(self._crossing(position) for position in positions),
            values=tuple(value for value in values if value.registers > SMALL_REGISTERS),
            limits=self._limits(sum(value.registers for value in values if value.registers <= SMALL_REGISTERS)),
        )

    def _issue(self, operation: Operation) -> Issue:
        synchronous = not self._asynchronous(operation)
        return Issue(operation.name, self._issue_cycles(operation), self._role(operation), synchronous)

    # --- issue ------------------------------------------------------------------------------------------------------

    def _issue_cycles(self, operation: Operation) -> int:
        """Cycles for which the group issues nothing else: the wait for an asynchronous operand, then the operation.

        Of the readers of one asynchronous result, the first in program order waits for it. A warp instruction takes one
        issue slot of its scheduler, and each warp of a group has a scheduler to itself, so a group issues one element
        per thread and cycle. The special-function unit takes `mufu_per_cycle` elements (16 of 128 lanes; CUDA
        programming guide, table of arithmetic throughput): of the cycles it is busy, only that share are issue slots,
        the rest is free for other instructions of the group, as compilers interleave them. Operations on other units
        count in full.
        """
        waits = any(
            self._signals(self.loop.operation(dependence.source))
            for position, dependence in enumerate(self.loop.dependences)
            if dependence.target == operation.name and self._waits_first(position)
        )
        wait = round(self.machine.value("barrier_wait_cycles")) if waits else 0
        if operation.unit == MUFU:
            elements = operation.occupancy_cycles * self.machine.value("mufu_per_cycle")
            return min(operation.occupancy_cycles, ceil(elements / self._threads())) + wait
        if not self._asynchronous(operation):
            return operation.occupancy_cycles + wait
        figure = "load_issue_cycles" if operation.unit == memory_unit(self.machine) else "mma_issue_cycles"
        return round(self.machine.value(figure)) + wait

    def _waits_first(self, position: int) -> bool:
        """Whether no reader that always comes before has waited for the same result already."""
        dependences = self.loop.dependences
        source, target = dependences[position].source, dependences[position].target
        if source.endswith(".operands"):
            return False
        earlier = {name for name in self._before(target) if not name.endswith(".operands")}
        return not any(before.source == source and before.target in earlier for before in dependences[:position])

    def _before(self, name: str) -> set[str]:
        """Return the operations of the same iteration that lead to one."""
        found: set[str] = set()
        left = [name]
        while left:
            target = left.pop()
            more = {d.source for d in self.loop.dependences if d.target == target and d.distance == 0} - found
            found |= more
            left += more
        return found - {name}

    def _signals(self, operation: Operation) -> bool:
        """Whether readers wait at a barrier; transfers of tensor memory have a fence of their own, nearly free."""
        return self._asynchronous(operation) and operation.unit != TENSOR_PORT

    def _asynchronous(self, operation: Operation) -> bool:
        """Whether an operation runs on after its issue: products, copies, transfers of tensor memory (tcgen05.ld)."""
        if operation.unit == TENSOR_CORE:
            return self.machine.has("async_mma")
        return operation.unit in (memory_unit(self.machine), TENSOR_PORT)

    def _role(self, operation: Operation) -> str:
        loads = operation.unit == memory_unit(self.machine) and self._kind(operation.name) is OperationKind.LOAD
        return LOAD_ROLE if loads and self.machine.has("warp_specialization") else ""

    # --- crossing groups --------------------------------------------------------------------------------------------

    def _crossing(self, position: int) -> Crossing:
        dependence = self.loop.dependences[position]
        if self._home(dependence.source) is not Memory.REGISTER:
            announced = not self._signalled_by_hardware(self.loop.operation(dependence.source))
            return Crossing(position, round(self.machine.value(self._barrier())), 0, 1, announced=announced)
        size = self._tile(dependence.source).bytes
        delay = self.machine.value("handoff_base_cycles") + self.machine.value("handoff_cycles_per_kib") * size / 1024
        allowed = not self._stays(dependence.source, dependence.target)
        return Crossing(position, round(delay), size, 1, allowed=allowed, announced=True)

    def _barrier(self) -> str:
        """Return the figure of what a barrier between groups takes one way."""
        return "mbarrier_cycles" if self.machine.has("warp_specialization") else "named_barrier_cycles"

    def _signalled_by_hardware(self, operation: Operation) -> bool:
        """Whether a barrier is told of the end by the copy itself (TMA, `cp.async.mbarrier.arrive`) or by the tensor
        core (`tcgen05.commit`, PTX ISA); anything else its group waits for and announces."""
        if operation.unit == TENSOR_CORE:
            return self.machine.has("tensor_memory")
        return operation.unit == memory_unit(self.machine)

    def _stays(self, source: str, target: str) -> bool:
        """Whether a value is updated in place on its way into a product, or is the product's operand in registers."""
        if self.machine.has("tensor_memory"):
            return False
        reader = self._operation(target)
        if reader.kind is OperationKind.MMA:
            return True
        feeds_product = any(
            target in (operand.value for operand in product.operands)
            for product in self.program.operations
            if product.kind is OperationKind.MMA
        )
        return feeds_product and self._tile(target).shape == self._tile(source).shape

    # --- registers --------------------------------------------------------------------------------------------------

    def _register_value(self, operation: Operation, issued: set[str]) -> RegisterValue | None:
        if self._home(operation.name) is not Memory.REGISTER:
            return None
        readers = tuple(
            Reader(dependence.target, self._hold_cycles(operation.name, dependence.target), dependence.distance)
            for dependence in self.loop.dependences
            if dependence.source == operation.name and dependence.target in issued
        )
        if not readers:
            return None
        size = self._tile(operation.name).bytes
        handoff = self.machine.value("handoff_base_cycles") + self.machine.value("handoff_cycles_per_kib") * size / 1024
        return RegisterValue(
            name=operation.name,
            producer=operation.name,
            registers=self._registers(operation.name),
            readers=readers,
            handoff_cycles=operation.latency_cycles + round(handoff),
        )

    def _hold_cycles(self, source: str, target: str) -> int:
        """A reader that writes its result over the operand takes its registers over at once."""
        reader = self._operation(target)
        reads = self.loop.operation(target)
        if reader.kind is OperationKind.MMA and primary(target):
            accumulates = len(reader.operands) > 2 and reader.operands[2].value == source
            return 0 if accumulates else (reads.latency_cycles if self._asynchronous(reads) else reads.occupancy_cycles)
        in_place = reader.kind in _IN_PLACE and primary(target) and self._tile(source).shape == self._tile(target).shape
        return 0 if in_place else reads.occupancy_cycles

    def _registers(self, name: str) -> int:
        """Registers of a thread for a value; one row (1, columns) is held as its reader's tile has columns.

        A thread has a quarter of a product's columns (four lanes share a row; PTX ISA, fragments of `mma` and `wgmma`),
        and all of them where a row of tensor memory is a thread's (`tcgen05.ld`, 32x32b).
        """
        tile = self._tile(name)
        if len(tile.shape) > 1 and tile.shape[0] == 1:
            return tile.shape[1] if self.machine.has("tensor_memory") else -(-tile.shape[1] // LANES_OF_A_ROW)
        return -(-tile.bytes // (REGISTER_BYTES * self._threads()))

    def _threads(self) -> int:
        """Threads of one warp group."""
        return round(self.machine.value("warp_size") * self.machine.value("warps_per_group"))

    # --- what a name of the loop stands for -------------------------------------------------------------------------

    def _operation(self, name: str) -> TileOperation:
        """The tile operation, or the one whose value a transfer moves (of an invariant: the first reader's)."""
        base = name.partition(".")[0]
        if any(operation.name == base for operation in self.program.operations):
            return self.program.operation(base)
        return next(o for o in self.program.operations if base in (operand.value for operand in o.operands))

    def _kind(self, name: str) -> OperationKind:
        return self._operation(name).kind

    def _tile(self, name: str) -> Tile:
        return self.program.tile_of(name.partition(".")[0])

    def _home(self, name: str) -> Memory:
        """Where the result of an operation of the loop lies."""
        by_move = {"to_registers": Memory.REGISTER, "to_shared": Memory.SHARED, "to_tensor": Memory.TENSOR}
        move = name.partition(".")[2]
        if move:
            return by_move[move]
        if self._kind(name) is OperationKind.MMA:
            return Memory.TENSOR if self.machine.has("tensor_memory") else Memory.REGISTER
        return self._tile(name).memory

    def _limits(self, small: int) -> WarpLimits:
        value = self.machine.value
        threads = self._threads()
        fixed = sum(
            -(-invariant.tile.bytes // (REGISTER_BYTES * threads))
            for invariant in self.program.invariants
            if invariant.tile.memory is Memory.REGISTER
        )
        return WarpLimits(
            most_groups=min(MOST_GROUPS, round(value("max_threads_per_block")) // threads),
            registers_per_group=round(value("registers_per_thread_max")) // REGISTER_GRANULARITY * REGISTER_GRANULARITY,
            registers_of_file=round(value("register_file_bytes")) // (REGISTER_BYTES * threads),
            fixed_registers=FIXED_REGISTERS + fixed + small,
            role_registers=ROLE_REGISTERS,
            reallocation=self.machine.has("register_reallocation"),
            flights=self._flights(),
            handoff_memory="shared",
            release_cycles=round(value(self._barrier())),
            most_stages=max(LEAST_STAGES, self._stages() + STAGES_FOR_HANDOFFS),
        )

    def _stages(self) -> int:
        """Return the stages over which an iteration stretches at the unit's own pace: latencies and handoffs of loads.

        With fewer a loop whose interval is short beside its latency would wait for memory, not for a unit.
        """
        busy: dict[str, int] = defaultdict(int)
        for operation in self.loop.operations:
            busy[operation.unit] += operation.occupancy_cycles
        pace = max([1, *(-(-busy[unit.name] // unit.count) for unit in self.loop.units if unit.count)])
        index, latency = self.loop.index, [operation.latency_cycles for operation in self.loop.operations]
        edges = [
            (index[d.source], index[d.target], d.delay_cycles + self._waited_cycles(position, d.source, d.target))
            for position, d in enumerate(self.loop.dependences)
            if d.distance == 0
        ]
        paths = longest_paths(len(latency), edges)
        assert paths is not None
        return -(-max(start + own for start, own in zip(paths[0], latency, strict=True)) // pace)

    def _waited_cycles(self, position: int, source: str, target: str) -> int:
        """Return what a handoff takes where groups differ in any case: between operations of different roles."""
        roles = [self._role(self.loop.operation(name)) for name in (source, target) if not name.endswith(".operands")]
        return self._crossing(position).delay_cycles if len(set(roles)) > 1 else 0

    def _flights(self) -> tuple[FlightLimit, ...]:
        """Return what may be in flight at once, by the figures that a machine has for it.

        Batches of products of a warp group on Hopper, load instructions of a wave on CDNA. Bulk copies and products on
        tensor memory end at barriers in shared memory, of which there are as many as slots of rings.
        """
        known = {figure.name: figure.value for figure in self.machine.figures}
        found: list[FlightLimit] = []
        if "mma_in_flight_most" in known and self.machine.has("async_mma"):
            products = tuple((op.name, 1) for op in self.loop.operations if op.unit == TENSOR_CORE)
            found.append(FlightLimit("batches of products", products, round(known["mma_in_flight_most"])))
        if "loads_in_flight_most" in known:
            size = known["load_bytes_per_lane"] * self._threads()
            loads = tuple(
                (op.name, ceil(self._tile(op.name).bytes / size))
                for op in self.loop.operations
                if op.unit == memory_unit(self.machine) and self._kind(op.name) is OperationKind.LOAD
            )
            most = round(known["loads_in_flight_most"])
            # A larger tile is loaded in parts, each waited for before the next: it has the counter to itself.
            found.append(FlightLimit("loads of a wave", tuple((name, min(most, n)) for name, n in loads), most))
        return tuple(limit for limit in found if limit.operations)
