"""Frames of a product behind a norm: operands are made in registers on their way into the product, sums scale rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from treadle.codegen.gluon.blackwell import TensorMatrixFrame
from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.frames import Descriptor, Extra
from treadle.codegen.gluon.handed import given, taken
from treadle.codegen.gluon.kernel import buffer_name
from treadle.codegen.gluon.matrix import MatrixFrame, Product
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import OperationKind, TileOperation
from treadle.ir.warp.program import Buffer, WarpGroup

NORMED = Product(
    "rms_norm_gemm.py.j2",
    "Product behind a norm, out (m, n) = rms_norm(x) (m, k) @ b (n, k)^T",
    "x",
    {"load_b": "b"},
    ("acc",),
    "_normed({acc}, {sums}, k, epsilon)",
    (("epsilon", "fp32"),),
)
COPY_BYTES = 128
"""A TMA copy's place in shared memory is aligned to so many bytes (PTX ISA)."""


class MadeOperandFrame(MatrixFrame):
    """A product whose left operand is made in registers; a family names what it is made of."""

    def allowed(self) -> tuple[OperationKind, ...]:
        """Return the kinds of operations that the loop may have."""
        return tuple(OperationKind)

    def constants(self) -> Lines:
        """Return module-level constants."""
        return [
            *super().constants(),
            f"OPERAND = ttgl.constexpr({self.operand_layout()})",
            "OPERAND_ROWS = ttgl.constexpr(ttgl.SliceLayout(1, OPERAND.value))",
            "OPERAND_COLUMNS = ttgl.constexpr(ttgl.SliceLayout(0, OPERAND.value))",
        ]

    def operand_layout(self) -> str:
        """Return the register layout of the left operand: as `wgmma` reads it."""
        return "ttgl.DotOperandLayout(0, ACC.value, 2)"


class NormedFrame(MadeOperandFrame):
    """out = rms_norm(x) @ b^T: squares of the rows are summed beside the product, which is scaled when it is done."""

    def described(self) -> Product:
        """Return the product of the kernel's family."""
        if self.program.siblings:
            raise NotEmittable(kernel=self.kernel.name, reason="two loops over k; Gluon has the form `one_loop`")
        return NORMED

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA, in the order of the kernel's arguments."""
        if self.tile_bytes((self.sizes["block_k"],), self.kernel.dtype) % COPY_BYTES:
            reason = f"{self.sizes['block_k']} weights of the norm; copies begin at multiples of {COPY_BYTES} bytes"
            raise NotEmittable(kernel=self.kernel.name, reason=reason)
        left, right, out = super().descriptors()
        element = self.kernel.dtype
        left = Descriptor(left.name, left.block, element, left.tensor)
        right = Descriptor(right.name, right.block, element, right.tensor)
        return left, Descriptor("weights", (self.sizes["block_k"],), element, "weight"), right, out

    def _descriptor(self, load: str) -> str:
        return "weights" if load == "load_weight" else super()._descriptor(load)

    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""
        descriptor, where = super().copy(operation, iteration)
        return (descriptor, f"[{where.strip('[]').split(', ')[1]}]") if descriptor == "weights" else (descriptor, where)

    def layout(self, value: str) -> str:
        """Return the layout of a value in registers."""
        if value.startswith("load_weight"):
            return "OPERAND_COLUMNS"
        if value.startswith(("tile_sum", "sum_squares")):
            return "OPERAND_ROWS"
        return "ACC" if value.startswith("acc") else "OPERAND"

    def statement(self, operation: TileOperation, operands: Sequence[str], iteration: str) -> str:
        """Return the expression of an operation on registers."""
        stem = re.sub(r"_\d+$", "", operation.name)
        forms = {
            "wide": "{0}.to(ttgl.float32)",
            "squares": "{0} * {0}",
            "tile_sum": "ttgl.sum({0}, 1)",
            "sum_squares": "{0} + {1}",
            "scaled": "{0} * {1}.to(ttgl.float32)[None, :]",
            "low": f"{{0}}.to({self.element})",
        }
        return forms[stem].format(*operands) if stem in forms else super().statement(operation, operands, iteration)

    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile."""
        zeros = f"ttgl.zeros(({self.rows},), ttgl.float32, OPERAND_ROWS)"
        sums = [f"sum_squares{s} = {zeros}" for s in self.suffixes if self.makes(group, f"sum_squares{s}")]
        return [*super().start(group), *sums]

    def combined(self, suffix: str, names: dict[str, str], row: str, column: str) -> str:
        """Return the expression of one column block of the output."""
        return self.product.combine.format(**names, sums=f"sum_squares{suffix}")

    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop: where sums are handed to the groups that write the output."""
        layout = "ttgl.SwizzledSharedLayout(1, 1, 1, [0])"
        sums = (Extra(f"sums{s}", (self.rows,), "float32", layout, 1, 1) for s in self.suffixes if self.handed_over(s))
        return (*super().extras(), *sums)

    def handed_over(self, suffix: str) -> bool:
        """Whether sums are made in another group than the product that they scale."""
        return not any(
            self.makes(group, f"acc{suffix}") and self.makes(group, f"sum_squares{suffix}")
            for group in self.warp.groups
        )

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        return [*super().opening(group), *(["tiles_done = 0"] if self._counts(group) else [])]

    def _counts(self, group: WarpGroup) -> bool:
        return any(map(self.handed_over, self.suffixes)) and not self.is_load(group)

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile: sums are handed over first."""
        handed = self.sums_of(group, [suffix for suffix in self.suffixes if self.handed_over(suffix)])
        return [*handed, *super().finish(group), *(["tiles_done += 1"] if self._counts(group) else [])]

    def sums_of(self, group: WarpGroup, suffixes: Sequence[str]) -> Lines:
        """Return how a group hands over the sums that it has made."""
        lines: Lines = []
        for suffix in suffixes:
            if self.makes(group, f"sum_squares{suffix}"):
                lines += given(f"sums{suffix}", f"sum_squares{suffix}")
        return lines

    def sums_taken(self, suffix: str, layout: str) -> Lines:
        """Return how sums that were handed over are read."""
        return taken(f"sums{suffix}", f"sum_squares{suffix}", layout)

    def _store(self, suffix: str) -> Lines:
        """Stage the output; sums that another group has made are read first."""
        sums = self.sums_taken(suffix, "OPERAND_ROWS") if self.handed_over(suffix) else []
        return [*sums, *super()._store(suffix)]


class TensorNormedFrame(NormedFrame, TensorMatrixFrame):
    """The same on Blackwell: the operand goes through tensor memory, sums to the group that writes the output."""

    def operand_layout(self) -> str:
        """Return the register layout of the left operand: a row a thread."""
        return f"ttgl.BlockedLayout([1, {self.sizes['block_k']}], [32, 1], [4, 1], [0, 1])"

    def constants(self) -> Lines:
        """Return module-level constants."""
        return [
            *super().constants(),
            f"LOW = ttgl.constexpr(TensorMemoryLayout([{self.rows}, {self.sizes['block_k']}], col_stride=1))",
        ]

    def tensor_buffer(self, buffer: Buffer) -> Lines:
        """Return the allocation of a buffer in tensor memory."""
        if buffer.name.startswith("acc"):
            return super().tensor_buffer(buffer)
        shape = [buffer.slots, self.rows, self.sizes["block_k"]]
        return [f"{buffer_name(self.warp, buffer.name)} = allocate_tensor_memory({self.element}, {shape}, LOW)"]

    def handed(self, buffer: Buffer) -> tuple[tuple[int, ...], str, str]:
        """Return block, element type and layout of a handed value; one that is multiplied lies as products read it."""
        shape, element, layout = super().handed(buffer)
        if not buffer.name.startswith("low"):
            return shape, element, layout
        return shape, element, f"ttgl.NVMMASharedLayout.get_default_for({list(shape)}, {element})"

    def handed_over(self, suffix: str) -> bool:
        """Whether sums go to another group: always, to the one that writes the output."""
        return True

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        return TensorMatrixFrame.opening(self, group)

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile: sums are handed over first."""
        return [*self.sums_of(group, self.suffixes), *TensorMatrixFrame.finish(self, group)]

    def before_pieces(self, suffix: str) -> Lines:
        """Return what the writing group does before the pieces of a tile."""
        return self.sums_taken(suffix, "ttgl.SliceLayout(1, PIECE)")
