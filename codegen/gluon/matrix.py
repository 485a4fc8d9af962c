"""Frames of matrix products on Hopper: accumulators in registers, output staged and copied out behind the next tile."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.frames import Descriptor, Extra, FrameBase, wgmma_layout
from treadle.codegen.gluon.kernel import WarpKernel, identifier
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import OperationKind, TileOperation
from treadle.ir.warp.program import WarpGroup

L2_GROUP = 8
"""Rows of tiles that are walked together, so that their inputs stay in the L2 cache."""


@dataclass(frozen=True, slots=True)
class Product:
    """A family of products out (m, n) = combine(x (m, k) @ w (n, k)^T, ...) as data.

    `left` is the launcher's name of x, `right` those of the weights by their load; `stems` are the products without the
    suffix of a row part; `combine` makes the output of them, `scalars` are further arguments by type.
    """

    template: str
    summary: str
    left: str
    right: dict[str, str]
    stems: tuple[str, ...]
    combine: str
    scalars: tuple[tuple[str, str], ...] = ()


PRODUCTS = {
    "gemm": Product(
        "gemm.py.j2", "Matrix product out (m, n) = a (m, k) @ b (n, k)^T", "a", {"load_b": "b"}, ("acc",), "{acc}"
    ),
    "swiglu": Product(
        "swiglu.py.j2",
        "Gate and up projection, out (m, n) = silu(x @ gate^T) * (x @ up^T)",
        "x",
        {"load_gate": "gate", "load_up": "up"},
        ("gate", "up"),
        "_gated({gate}, {up})",
    ),
    "gemm_fp8": Product(
        "gemm_fp8.py.j2",
        "Matrix product of float8_e4m3 with scales of rows, out (m, n) = (a * scale_a) @ (b * scale_b)^T",
        "a",
        {"load_b": "b"},
        ("acc",),
        "_scaled({acc}, scale_a, scale_b, {row}, {column}, m, n)",
        (("scale_a", "*fp32"), ("scale_b", "*fp32")),
    ),
}
"""The families that this frame surrounds."""


class MatrixFrame(FrameBase):
    """One instance for every multiprocessor walks over tiles of the output."""

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        self.product = self.described()
        self.template, self.summary = self.product.template, self.product.summary
        self.accumulators = tuple(o for o in self.program.operations if o.kind is OperationKind.MMA)
        unknown = [o.name for o in self.program.operations if o.kind not in self.allowed()]
        if unknown or self.program.siblings:
            what = f"operation `{unknown[0]}`" if unknown else "a second loop"
            raise NotEmittable(kernel=kernel.name, reason=f"{what} in the loop of a product")
        for group in self.warp.groups:
            made = {o.name for o in self.products(group)}
            for suffix in {
                name.removeprefix(stem) for name in made for stem in self.product.stems if name.startswith(stem)
            }:
                missing = {f"{stem}{suffix}" for stem in self.product.stems} - made
                if missing:
                    reason = f"`{min(missing)}` is made in another group than what it is combined with"
                    raise NotEmittable(kernel=kernel.name, reason=reason)
        self.suffixes = tuple(o.name.removeprefix(self.product.stems[0]) for o in self._of(self.product.stems[0]))
        self.rows = self.accumulators[0].result.shape[0]
        self.operands = self.program.operation(self.accumulators[0].operands[0].value).result.dtype
        self.pieces = self._pieces()

    def allowed(self) -> tuple[OperationKind, ...]:
        """Return the kinds of operations that the loop may have."""
        return OperationKind.MMA, OperationKind.LOAD

    def described(self) -> Product:
        """Return the product of the kernel's family."""
        return PRODUCTS[self.program.family]

    def _of(self, stem: str) -> list[TileOperation]:
        """Return the parts of a product."""
        return [o for o in self.accumulators if o.name.rstrip("_0123456789") == stem]

    def _pieces(self) -> int:
        """Return into how many column blocks the output of a group is cut, so that its staging fits by the rings."""
        pieces, columns = 1, self.sizes["block_n"]
        while self._staging_bytes(pieces) > self.free_bytes() and columns // pieces > 64:
            pieces *= 2
        self.need(self.kernel.name, self._staging_bytes(pieces))
        return pieces

    def _staging_bytes(self, pieces: int) -> int:
        return len(self.suffixes) * self.tile_bytes((self.rows, self.sizes["block_n"] // pieces), self.kernel.dtype)

    # --- module -----------------------------------------------------------------------------------------------------

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA, in the order of the kernel's arguments."""
        left = (self.rows, self.sizes["block_k"])
        right = (self.sizes["block_n"], self.sizes["block_k"])
        out = (self.rows, self.sizes["block_n"] // self.pieces)
        return (
            Descriptor(f"{self.product.left}_rows", left, self.operands, self.product.left),
            *(Descriptor(f"{name}_rows", right, self.operands, name) for name in self.product.right.values()),
            Descriptor("out", out, self.kernel.dtype, "out"),
        )

    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""
        return {**dict(self.product.scalars), **{key: self.shape[key] for key in ("m", "n", "k")}}

    def constants(self) -> Lines:
        """Return module-level constants."""
        return [f"ACC = ttgl.constexpr({wgmma_layout(self.sizes['block_n'], self.operands)})"]

    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop."""
        out = self.descriptors()[-1]
        return tuple(Extra(f"staging{suffix}", out.block, out.dtype, out.layout) for suffix in self.suffixes)

    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""
        known = {descriptor.name: descriptor for descriptor in self.descriptors()}
        loads = [o.name for o in self.program.operations if o.kind is OperationKind.LOAD]
        found = {name: known[self._descriptor(name)] for name in loads}
        return {name: (d.block, d.element, d.layout) for name, d in found.items()}

    def _descriptor(self, load: str) -> str:
        return f"{self.product.right.get(load, self.product.left)}_rows"

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        return [*self.walk(), f"trips = {self.trips('ttgl.cdiv(k, BLOCK_K)')}"]

    def walk(self) -> Lines:
        """Return what the walk over tiles needs to know."""
        return ["tiles = ttgl.cdiv(m, BLOCK_M) * ttgl.cdiv(n, BLOCK_N)"]

    def place(self) -> Lines:
        """Return how a tile's first row and column are found."""
        return ["row, column = _tile_of(tile, m, n)"]

    def closing(self, group: WarpGroup) -> Lines:
        """Return what a group does after its last tile."""
        return [] if self.is_load(group) else ["tma.store_wait(0)"]

    # --- loop -------------------------------------------------------------------------------------------------------

    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""
        depth = f"({iteration}) * BLOCK_K" if " " in iteration else f"{iteration} * BLOCK_K"
        first = "column" if operation in self.product.right else f"row{self._offset(operation)}"
        return self._descriptor(operation), f"[{first}, {depth}]"

    def layout(self, value: str) -> str:
        """Return the layout of a value in registers."""
        return "ACC"

    def tile(self, group: WarpGroup) -> Lines:
        """Return how a group finds its tile of the grid and the trips of its loop."""
        return self.place()

    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile."""
        return [
            f"{identifier(o.name)}_token = warpgroup_mma_init("
            f"ttgl.zeros({tuple(o.result.shape)}, ttgl.float32, {self.layout(o.name)}))"
            for o in self.products(group)
        ]

    def settle(self, group: WarpGroup, epilogue: Lines) -> Lines:
        """Wait for products that no epilogue waits for: those of a loop without overlap."""
        names = [identifier(operation.name) for operation in self.products(group)]
        open_names = [name for name in names if not any(line.startswith(f"{name} = ") for line in epilogue)]
        return [f"{name} = warpgroup_mma_wait(0, deps=[{name}_token])" for name in open_names]

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile."""
        lines: Lines = []
        for suffix in self.suffixes:
            if self.makes(group, f"{self.product.stems[0]}{suffix}"):
                lines += self._store(suffix)
        return lines

    def _store(self, suffix: str) -> Lines:
        """Stage the output in shared memory, piece by piece, and copy it out behind the next tile's products."""
        lines: Lines = []
        pieces = {stem: [f"{stem}{suffix}"] for stem in self.product.stems}
        while len(pieces[self.product.stems[0]]) < self.pieces:
            for stem, names in pieces.items():
                halves = [f"{name}_{side}" for name in names for side in ("left", "right")]
                for at, name in enumerate(names):
                    lines.append(f"{halves[2 * at]}, {halves[2 * at + 1]} = _halves({name})")
                pieces[stem] = halves
        for at in range(self.pieces):
            lines += self.piece(suffix, at, {stem: names[at] for stem, names in pieces.items()})
        return lines

    def piece(self, suffix: str, at: int, names: dict[str, str]) -> Lines:
        """Return how one column block of the output is combined, staged and copied out."""
        width = self.sizes["block_n"] // self.pieces
        row = f"row{self._offset(f'acc{suffix}')}"
        column = f"column + {at * width}" if at else "column"
        result = self.combined(suffix, names, row, column)
        return [f"result = {result}.to({self.element})", *self.written(f"staging{suffix}.index(0)", row, column)]

    def combined(self, suffix: str, names: dict[str, str], row: str, column: str) -> str:
        """Return the expression of one column block of the output."""
        return self.product.combine.format(**names, row=row, column=column)

    def written(self, staging: str, row: str, column: str) -> Lines:
        """Return how `result` goes to its place in the output."""
        return [
            "tma.store_wait(0)",
            f"{staging}.store(result)",
            "fence_async_shared()",
            f"_copy_out(out, [{row}, {column}], {staging})",
        ]

    def _offset(self, name: str) -> str:
        """Return the first row of a row part within its tile, as text to add."""
        tail = name.rpartition("_")[2]
        rows = int(tail) * self.rows if tail.isdigit() else 0
        return f" + {rows}" if rows else ""
