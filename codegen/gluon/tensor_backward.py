"""Frame of attention backward on Blackwell: all products in tensor memory, a key a thread.

Weights and the scores' gradients lie in the slots of their products, where dv and dk take them from. Sums of a tile are
read by the group that masks scores, which gives them back to the products of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.gluon.apart import ApartFrame
from treadle.codegen.gluon.backward import BackwardFrame
from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.frames import barriers
from treadle.codegen.gluon.kernel import TENSOR_COLUMNS, TENSOR_ROWS, WarpKernel, identifier
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import Memory, OperationKind, TileOperation
from treadle.ir.warp.program import Buffer, Role, WarpGroup

PIECE_COLUMNS = 32
"""Columns of a finished sum that are in registers at once."""


class TensorBackwardFrame(ApartFrame, BackwardFrame):
    """As on Hopper, with accumulators in tensor memory and groups of one warp that issue products."""

    least_rows = TENSOR_ROWS

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        if any(channel.primed for channel in self.warp.channels):
            raise NotEmittable(kernel=kernel.name, reason="slots filled before the loop, which tiles share")
        columns = sum(b.slots * b.slot_bytes for b in self.warp.buffers if b.memory is Memory.TENSOR)
        columns //= 4 * TENSOR_ROWS
        if columns > TENSOR_COLUMNS:
            raise NotEmittable(kernel=kernel.name, reason=f"{columns} of {TENSOR_COLUMNS} columns of tensor memory")

    # --- module -----------------------------------------------------------------------------------------------------

    def registers(self) -> Lines:
        """Return the layouts of values in registers and in tensor memory."""

        def rows(columns: int) -> str:
            return f"ttgl.constexpr(ttgl.BlockedLayout([1, {columns}], [32, 1], [4, 1], [0, 1]))"

        def memory(columns: int) -> str:
            return f"ttgl.constexpr(TensorMemoryLayout([{TENSOR_ROWS}, {columns}], col_stride=1))"

        return [
            f"SCORES = {rows(self.queries)}",
            f"PIECE = {rows(PIECE_COLUMNS)}",
            f"SCORES_MEMORY = {memory(self.queries)}",
            f"DK_MEMORY = {memory(self.depth)}",
            f"DV_MEMORY = {memory(self.width)}",
            f"LOW_MEMORY = {memory(self.queries)}",
            "# Triton 3.9 names it anew.",
            '_newer = getattr(tensor_memory_descriptor, "reinterpret", None)',
            "_reinterpret = _newer or tensor_memory_descriptor._reinterpret",
        ]

    def tensor_buffer(self, buffer: Buffer) -> Lines:
        """Return the allocation of a buffer in tensor memory; sums of a tile have barriers of their own."""
        name = identifier(buffer.name)
        if buffer.name not in self._sums():
            shape = [buffer.slots, TENSOR_ROWS, self.queries]
            return [f"{name} = allocate_tensor_memory(ttgl.float32, {shape}, SCORES_MEMORY)"]
        shape = [1, TENSOR_ROWS, self._columns(buffer.name)]
        lines = [f"{name} = allocate_tensor_memory(ttgl.float32, {shape}, {name[:2].upper()}_MEMORY)"]
        return [*lines, *barriers(f"{name}_full", 1, 1), *barriers(f"{name}_empty", 1, 1)]

    def barrier_names(self) -> tuple[str, ...]:
        """Return the barriers of a tile's sums."""
        return tuple(f"{name}_{side}" for name in self._sums() for side in ("full", "empty"))

    def _sums(self) -> list[str]:
        """Return the products that are summed up over a tile, dv first."""
        products = (o.name for o in self.program.operations if o.kind is OperationKind.MMA)
        return [name for name in products if name.startswith(("dv", "dk"))]

    def _columns(self, name: str) -> int:
        return self.depth if name.startswith("dk") else self.width

    # --- loop -------------------------------------------------------------------------------------------------------

    def view(self, value: str, slot: str, role: Role, reader: TileOperation) -> str:
        """Return a product's operand; weights and gradients of scores lie in the slots of their products."""
        if value.endswith(".to_tensor"):
            return f"_reinterpret({slot}, {self.element}, {[TENSOR_ROWS, self.queries]}, LOW_MEMORY)"
        return super().view(value, slot, role, reader)

    def layout(self, value: str) -> str:
        """Return the layout of a value in registers: a key a thread, whatever it is."""
        return "QUERIES_IN_COLUMNS" if value.startswith("load_") else "SCORES"

    def statement(self, operation: TileOperation, operands: Sequence[str], iteration: str) -> str:
        """Return the expression of an operation on registers."""
        if operation.kind is OperationKind.CONVERT:
            return f"{operands[0]}.to({self.element})"
        return super().statement(operation, operands, iteration)

    # --- tiles ------------------------------------------------------------------------------------------------------

    def first_values(self, group: WarpGroup, suffix: str) -> Lines:
        """Return the waits of products that sum up for the last tile's sums to be read."""
        own = [name for name in self._sums() if name.endswith(suffix) and self.makes(group, name)]
        return [f"mbarrier.wait({name}_empty.index(0), _parity(tiles_done, 1) ^ 1)" for name in own]

    def settle(self, group: WarpGroup, epilogue: Lines) -> Lines:
        """Return nothing: tensor memory holds the sums."""
        return []

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile: products give keys and values back when they are done."""
        if self.is_load(group):
            return ["tiles_done += 1"]
        lines = [f"tcgen05_commit({name}_full.index(0))" for name in self._sums() if self.makes(group, name)]
        for suffix in self.suffixes:
            for name in self._read_by(group, suffix):
                lines.append(f"tcgen05_commit({name}_empty.index({self.slot()}))")
            if self.makes(group, f"shifted{suffix}"):
                lines += [line for name in self._sums() if name.endswith(suffix) for line in self._written(name)]
        return [*lines, "tiles_done += 1"]

    def _written(self, name: str) -> Lines:
        """Return how a sum goes from tensor memory to its place, piece by piece through shared memory."""
        staging = self._staging(name)
        lines = [f"mbarrier.wait({name}_full.index(0), _parity(tiles_done, 1))", "tma.store_wait(0)"]
        for first in range(0, self._columns(name), PIECE_COLUMNS):
            piece = f"{name}.index(0).slice({first}, {PIECE_COLUMNS}).load(PIECE)"
            target = f"{staging}.slice({first}, {PIECE_COLUMNS}, dim=1)"
            lines.append(f"{target}.store(({piece}{self.factor(name)}).to({self.element}))")
        where = f"[kv_head, {self._row(self._suffix(name))}, 0]"
        return [
            *lines,
            f"mbarrier.arrive({name}_empty.index(0), count=1)",
            "fence_async_shared()",
            f"_copy_out({name[:2]}_rows, {where}, {self.destination(f'{name[:2]}_rows', staging)})",
        ]

    def closing(self, group: WarpGroup) -> Lines:
        """Return what a group does after its last tile."""
        writes = any(self.makes(group, f"shifted{suffix}") for suffix in self.suffixes)
        return ["tma.store_wait(0)"] if writes else []
