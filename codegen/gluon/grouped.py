"""Frames of grouped products (mixtures of experts): every instance walks over its share of every expert's tiles."""

from __future__ import annotations

from treadle.codegen.gluon.blackwell import TensorMatrixFrame
from treadle.codegen.gluon.frames import POINTERS, Descriptor, indented
from treadle.codegen.gluon.matrix import MatrixFrame, Product
from treadle.codegen.gluon.writer import Lines

GROUPED = Product(
    "grouped_gemm.py.j2",
    "Grouped matrix product, out = a[rows of an expert] @ weight[expert]^T for every expert",
    "a",
    {"load_b": "weight"},
    ("acc",),
    "{acc}",
)


class GroupedFrame(MatrixFrame):
    """Rows are sorted by expert; the last tile of an expert is written without the rows of the next one."""

    def described(self) -> Product:
        """Return the product of the kernel's family."""
        return GROUPED

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA; a block of the weights is one expert's."""
        left, right, out = super().descriptors()
        return left, Descriptor(right.name, (1, *right.block), right.dtype, right.tensor), out

    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""
        found = super().rings()
        block, element, _ = found["load_b"]
        return {**found, "load_b": (block[1:], element, "EXPERT_LAYOUT")}

    def constants(self) -> Lines:
        """Return module-level constants."""
        block = [self.sizes["block_n"], self.sizes["block_k"]]
        layout = f"ttgl.constexpr(ttgl.NVMMASharedLayout.get_default_for({block}, {self.element}))"
        return [*super().constants(), f"EXPERT_LAYOUT = {layout}"]

    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""
        sizes = {key: self.shape[key] for key in ("n", "k", "experts")}
        return {"out_pointer": POINTERS[self.kernel.dtype], "offsets": "*i32", **sizes}

    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""
        descriptor, where = super().copy(operation, iteration)
        return descriptor, where.replace("[column", "[expert, column")

    def destination(self, descriptor: str, slot: str) -> str:
        """Return the text of a slot as the descriptor's block."""
        shape = [1, self.sizes["block_n"], self.sizes["block_k"]]
        return f"{slot}.reshape({shape})" if descriptor.startswith("weight") else slot

    def walk(self) -> Lines:
        """Return what the walk over tiles needs to know."""
        return ["tiles_before = 0", "begin = ttgl.load(offsets)"]

    def tile_loop(self, tile: Lines) -> Lines:
        """Return the walk over experts and the tiles of each that are this instance's, in turn with the others."""
        return [
            "for expert in range(experts):",
            "    end = ttgl.load(offsets + expert + 1)",
            "    tiles_m = ttgl.cdiv(end - begin, BLOCK_M)",
            "    tiles = tiles_m * ttgl.cdiv(n, BLOCK_N)",
            "    mine = (ttgl.program_id(0) + ttgl.num_programs(0) - tiles_before % ttgl.num_programs(0))",
            "    for tile in range(mine % ttgl.num_programs(0), tiles, ttgl.num_programs(0)):",
            *indented(indented(tile)),
            "    tiles_before += tiles",
            "    begin = end",
        ]

    def place(self) -> Lines:
        """Return how a tile's first row and column are found: tiles with the same columns follow each other."""
        return ["row = begin + tile % tiles_m * BLOCK_M", "column = tile // tiles_m * BLOCK_N"]

    def written(self, staging: str, row: str, column: str) -> Lines:
        """Return how `result` goes to its place: by TMA where all its rows are the expert's, else row by row."""
        return [
            f"if {row} + {self.rows} <= end:",
            *indented(super().written(staging, row, column)),
            "else:",
            f"    _store_rows(out_pointer, result, {row}, {column}, end, n)",
        ]


class TensorGroupedFrame(GroupedFrame, TensorMatrixFrame):
    """The same on Blackwell."""
