"""Frames of matrix products: gemm on Hopper (accumulators in registers) and Blackwell (in tensor memory)."""

from __future__ import annotations

from treadle.codegen.gluon.frames import Descriptor, Extra, FrameBase, wgmma_layout
from treadle.codegen.gluon.kernel import WarpKernel, identifier
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import OperationKind, TileOperation
from treadle.ir.warp.program import WarpGroup

L2_GROUP = 8
"""Rows of tiles that are walked together, so that their inputs stay in the L2 cache."""


class MatrixFrame(FrameBase):
    """out (m, n) = a (m, k) @ b (n, k)^T; one instance for every multiprocessor walks over tiles of the output."""

    template = "gemm.py.j2"
    summary = "Matrix product out (m, n) = a (m, k) @ b (n, k)^T"

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        self.accumulators = tuple(o for o in self.program.operations if o.kind is OperationKind.MMA)
        self.rows = self.accumulators[0].result.shape[0]
        self.pieces = self._pieces()

    def _pieces(self) -> int:
        """Return into how many column blocks the output of a group is cut, so that its staging fits by the rings."""
        pieces = 1
        columns = self.sizes["block_n"]
        while pieces < 8 and columns // pieces > 32:
            if self._staging_bytes(pieces) <= self.free_bytes() and columns // pieces <= 256:
                return pieces
            pieces *= 2
        self.need(self.kernel.name, self._staging_bytes(pieces))
        return pieces

    def _staging_bytes(self, pieces: int) -> int:
        block = (self.rows, self.sizes["block_n"] // pieces)
        return len(self.accumulators) * self.tile_bytes(block, self.kernel.dtype)

    # --- module -----------------------------------------------------------------------------------------------------

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA, in the order of the kernel's arguments."""
        a = next(o for o in self.program.operations if o.name.startswith("load_a")).result.shape
        b = self.program.operation("load_b").result.shape
        dtype = self.kernel.dtype
        return (
            Descriptor("a", a, dtype),
            Descriptor("b", b, dtype),
            Descriptor("out", (self.rows, self.sizes["block_n"] // self.pieces), dtype),
        )

    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""
        return {key: self.shape[key] for key in ("m", "n", "k")}

    def constants(self) -> Lines:
        """Return module-level constants."""
        return [f"ACC = ttgl.constexpr({wgmma_layout(self.sizes['block_n'])})"] if not self.kernel.blackwell else []

    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop."""
        out = self.descriptors()[2]
        return tuple(Extra(f"staging{self._suffix(o)}", out.block, out.dtype, out.layout) for o in self.accumulators)

    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""
        a, b, _ = self.descriptors()
        loads = [o.name for o in self.program.operations if o.kind is OperationKind.LOAD]
        return {
            name: (
                (a if name.startswith("load_a") else b).block,
                self.element,
                f"{'A' if name.startswith('load_a') else 'B'}_LAYOUT",
            )
            for name in loads
        }

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        return [
            "tiles = ttgl.cdiv(m, BLOCK_M) * ttgl.cdiv(n, BLOCK_N)",
            f"trips = {self.trips('ttgl.cdiv(k, BLOCK_K)')}",
        ]

    def closing(self, group: WarpGroup) -> Lines:
        """Return what a group does after its last tile."""
        return [] if self.is_load(group) else ["tma.store_wait(0)"]

    # --- loop -------------------------------------------------------------------------------------------------------

    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""
        depth = f"({iteration}) * BLOCK_K" if " " in iteration else f"{iteration} * BLOCK_K"
        if operation.startswith("load_a"):
            offset = self._offset(operation)
            return "a", f"[row{offset}, {depth}]"
        return "b", f"[column, {depth}]"

    def layout(self, value: str) -> str:
        """Return the layout of a value in registers."""
        return "ACC"

    def tile(self, group: WarpGroup) -> Lines:
        """Return how a group finds its tile of the grid and the trips of its loop."""
        return [
            "row, column = _tile_of(tile, m, n)",
        ]

    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile."""
        lines: Lines = []
        for operation in self.products(group):
            if not self.kernel.blackwell:
                name = identifier(operation.name)
                zeros = f"ttgl.zeros({tuple(operation.result.shape)}, ttgl.float32, ACC)"
                lines.append(f"{name}_token = warpgroup_mma_init({zeros})")
        return lines

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile."""
        lines: Lines = []
        for operation in self.products(group):
            lines += self._store(operation, identifier(operation.name))
        return lines

    def _store(self, operation: TileOperation, value: str) -> Lines:
        """Stage the output in shared memory, piece by piece, and copy it out behind the next tile's products."""
        suffix = self._suffix(operation)
        width = self.sizes["block_n"] // self.pieces
        names = [value]
        lines: Lines = []
        while len(names) < self.pieces:
            halves = [f"{name}_{side}" for name in names for side in ("left", "right")]
            for at, name in enumerate(names):
                lines.append(f"{halves[2 * at]}, {halves[2 * at + 1]} = _halves({name})")
            names = halves
        for at, name in enumerate(names):
            lines += [
                "tma.store_wait(0)",
                f"staging{suffix}.index(0).store({name}.to({self.element}))",
                "fence_async_shared()",
                f"_copy_out(out, [row{self._offset(operation.name)}, column{f' + {at * width}' if at else ''}], "
                f"staging{suffix}.index(0))",
            ]
        return lines

    def _suffix(self, operation: TileOperation) -> str:
        return operation.name.removeprefix("acc")

    def _offset(self, name: str) -> str:
        """Return the first row of a sub-tile within its tile, as text to add."""
        tail = name.rpartition("_")[2]
        rows = int(tail) * self.rows if tail.isdigit() else 0
        return f" + {rows}" if rows else ""
