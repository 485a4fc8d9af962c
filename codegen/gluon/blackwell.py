"""Frame of matrix products on Blackwell: accumulators in tensor memory, a group of its own that writes the output."""

from __future__ import annotations

from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.frames import barriers
from treadle.codegen.gluon.kernel import TENSOR_COLUMNS, TENSOR_ROWS, WarpKernel, identifier
from treadle.codegen.gluon.matrix import MatrixFrame
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import TileOperation
from treadle.ir.warp.program import Buffer, Role, WarpGroup

STORE_REGISTERS = 192
"""Registers of the group that writes the output: pieces of 64 columns in all, scales of columns, addresses."""
MOST_PIECE_COLUMNS = 64
"""Columns that the writing group takes from tensor memory at once, of all accumulators together."""


class TensorMatrixFrame(MatrixFrame):
    """As on Hopper, but products of the next tile run while a group of its own writes the last one's output."""

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        if self.rows != TENSOR_ROWS:
            raise NotEmittable(kernel=kernel.name, reason=f"tiles of {self.rows} rows; tensor memory has 128 lanes")
        columns = sum(operation.result.shape[1] for operation in self.accumulators)
        self.tile_slots = 2 if 2 * columns <= TENSOR_COLUMNS else 1

    def _pieces(self) -> int:
        """Return how many column blocks the output is staged in: few registers hold one."""
        pieces = max(1, self.sizes["block_n"] * len(self.product.stems) // MOST_PIECE_COLUMNS)
        self.need(self.kernel.name, self._staging_bytes(pieces))
        return pieces

    def constants(self) -> Lines:
        """Return module-level constants."""
        width = self.sizes["block_n"]
        piece = width // self.pieces
        return [
            f"ACC = ttgl.constexpr(TensorMemoryLayout([{self.rows}, {width}], col_stride=1))",
            f"PIECE = ttgl.constexpr(ttgl.BlockedLayout([1, {piece}], [32, 1], [4, 1], [0, 1]))",
        ]

    def tensor_buffer(self, buffer: Buffer) -> Lines:
        """Return the allocation of a buffer in tensor memory, one slot a tile, with its barriers."""
        return self.tile_buffer(buffer, self.sizes["block_n"])

    def tile_buffer(self, buffer: Buffer, columns: int) -> Lines:
        """Return the allocation of accumulators with so many columns, and of their barriers."""
        name = identifier(buffer.name)
        shape = [self.tile_slots, self.rows, columns]
        lines = [f"{name} = allocate_tensor_memory(ttgl.float32, {shape}, ACC)"]
        for side in ("full", "empty"):
            barrier = f"{name}_{side}"
            lines += barriers(barrier, self.tile_slots, 1)
        return lines

    def barrier_names(self) -> tuple[str, ...]:
        """Return the barriers of the accumulators."""
        return tuple(f"{identifier(o.name)}_{side}" for o in self.accumulators for side in ("full", "empty"))

    def view(self, value: str, slot: str, role: Role, reader: TileOperation) -> str:
        """Return a product's operand; its accumulator is the tile's slot of tensor memory."""
        return self.accumulator(reader) if role is Role.ACCUMULATOR else super().view(value, slot, role, reader)

    def slot(self) -> str:
        """Return the slot of a tile's accumulators, as text."""
        return f"_slot(tiles_done, {self.tile_slots})" if self.tile_slots > 1 else "0"

    def accumulator(self, operation: TileOperation) -> str:
        """Return the tile's slot of an accumulator."""
        return f"{identifier(operation.name)}.index({self.slot()})"

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        return [*super().opening(group), *([] if self.is_load(group) else ["tiles_done = 0"])]

    def closing(self, group: WarpGroup) -> Lines:
        """Return what a group does after its last tile."""
        return []

    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile: products wait for a tile's slot to be read."""
        parity = f"_parity(tiles_done, {self.tile_slots}) ^ 1"
        return [
            f"mbarrier.wait({identifier(o.name)}_empty.index({self.slot()}), {parity})" for o in self.products(group)
        ]

    def settle(self, group: WarpGroup, epilogue: Lines) -> Lines:
        """Return nothing: tensor memory holds the results."""
        return []

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile."""
        lines = [f"tcgen05_commit({identifier(o.name)}_full.index({self.slot()}))" for o in self.products(group)]
        return [*lines, *([] if self.is_load(group) else ["tiles_done += 1"])]

    def extra_groups(self) -> dict[str, tuple[Lines, int]]:
        """Return the group that writes the output, with its registers."""
        parity = f"_parity(tiles_done, {self.tile_slots})"
        tile: Lines = [*self.place()]
        for operation in self.accumulators:
            tile.append(f"mbarrier.wait({identifier(operation.name)}_full.index({self.slot()}), {parity})")
        for suffix in self.suffixes:
            tile += self.before_pieces(suffix)
            for at in range(self.pieces):
                tile += self._piece_of_tensor_memory(suffix, at)
        for operation in self.accumulators:
            tile.append(f"mbarrier.arrive({identifier(operation.name)}_empty.index({self.slot()}), count=1)")
        loop = self.tile_loop([*tile, "tiles_done += 1"])
        return {"write": ([*self.walk(), "tiles_done = 0", *loop, "tma.store_wait(0)"], STORE_REGISTERS)}

    def before_pieces(self, suffix: str) -> Lines:
        """Return what the writing group does before the pieces of a tile."""
        return []

    def _piece_of_tensor_memory(self, suffix: str, at: int) -> Lines:
        loads, names = self.taken(suffix, at)
        return [*loads, *self.piece(suffix, at, names)]

    def taken(self, suffix: str, at: int) -> tuple[Lines, dict[str, str]]:
        """Return how the writing group takes a piece of the accumulators, and the names of what it takes."""
        width = self.sizes["block_n"] // self.pieces
        names = {stem: f"{stem}{suffix}_piece" for stem in self.product.stems}
        loads = [
            f"{name} = {stem}{suffix}.index({self.slot()}).slice({at * width}, {width}).load(PIECE)"
            for stem, name in names.items()
        ]
        return loads, names
