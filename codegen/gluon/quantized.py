"""Frames of products with 4-bit weights: dequantized in registers, by the group that multiplies or one of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from treadle.codegen.gluon.blackwell import TensorMatrixFrame
from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.frames import GLUON_TYPES, Descriptor, Extra, wgmma_layout
from treadle.codegen.gluon.kernel import WarpKernel, buffer_name, identifier
from treadle.codegen.gluon.matrix import Product
from treadle.codegen.gluon.normed import MadeOperandFrame
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import TileOperation
from treadle.ir.warp.program import Buffer, WarpGroup

QUANTIZED = Product(
    "gemm_w4a16.py.j2",
    "Matrix product with 4-bit weights, out (m, n) = a (m, k) @ (scale * (w - 8)) (n, k)^T",
    "w",
    {"load_a_low": "a", "load_a_high": "a", "load_scale": "scale_rows"},
    ("acc",),
    "{acc}",
)


class QuantizedFrame(MadeOperandFrame):
    """Weights are the first operand, so that they go from registers into the product: out is made transposed."""

    def __init__(self, kernel: WarpKernel) -> None:
        sizes = kernel.program.tile_sizes
        self.tile_rows, self.tile_columns, self.half = sizes["block_m"], sizes["block_n"], sizes["block_k"] // 2
        super().__init__(kernel)

    def described(self) -> Product:
        """Return the product of the kernel's family."""
        return QUANTIZED

    def _pieces(self) -> int:
        """Return 1: the output of a few rows fits."""
        self.need(self.kernel.name, self._staging_bytes(1))
        return 1

    def _staging_bytes(self, pieces: int) -> int:
        return self.tile_bytes((self.tile_rows, self.tile_columns), self.kernel.dtype)

    # --- module -----------------------------------------------------------------------------------------------------

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA, in the order of the kernel's arguments."""
        dtype = self.kernel.dtype
        columns = self.rows
        return (
            Descriptor("w_rows", (columns, self.half), "uint8", "w"),
            Descriptor("scales", (columns,), dtype, "scale_values"),
            Descriptor("a_rows", (self.tile_rows, self.half), dtype, "a"),
            Descriptor("out", (self.tile_rows, columns), dtype, "out"),
        )

    def constants(self) -> Lines:
        """Return module-level constants."""
        return [
            f"ACC = ttgl.constexpr({self.accumulator_layout()})",
            f"OPERAND = ttgl.constexpr({self.operand_layout()})",
            "OPERAND_ROWS = ttgl.constexpr(ttgl.SliceLayout(1, OPERAND.value))",
            f"GROUP = ttgl.constexpr({2 * self.half})",
            f"HALF = ttgl.constexpr({self.half})",
        ]

    def accumulator_layout(self) -> str:
        """Return the register layout of the transposed output."""
        return wgmma_layout(self.tile_rows, self.kernel.dtype)

    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop."""
        out = self.descriptors()[-1]
        return tuple(Extra(f"staging{suffix}", out.block, out.dtype, out.layout) for suffix in self.suffixes)

    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""
        known = {descriptor.name: descriptor for descriptor in self.descriptors()}
        names = {o.name: self._descriptor(o.name) for o in self.program.operations if o.name.startswith("load")}
        return {name: (known[d].block, known[d].element, known[d].layout) for name, d in names.items()}

    def _descriptor(self, load: str) -> str:
        stem = re.sub(r"_\d+$", "", load)
        return {"load_w": "w_rows", "load_scale": "scales"}.get(stem, "a_rows")

    def handed(self, buffer: Buffer) -> tuple[tuple[int, ...], str, str]:
        """Return block, element type and layout of a buffer over which a register value is handed to another group."""
        if buffer.name.startswith("load_w"):
            return (self.rows, self.half), GLUON_TYPES["uint8"], "ttgl.SwizzledSharedLayout(8, 1, 8, [1, 0])"
        return super().handed(buffer)

    # --- loop -------------------------------------------------------------------------------------------------------

    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""
        descriptor = self._descriptor(operation)
        group = f"({iteration})" if " " in iteration else iteration
        column = f"column{self._offset(operation)}"
        if descriptor == "w_rows":
            return descriptor, f"[{column}, {group} * HALF]"
        if descriptor == "scales":
            return descriptor, f"[{group} * n + {column}]"
        return descriptor, f"[row, {group} * GROUP{' + HALF' if operation == 'load_a_high' else ''}]"

    def destination(self, descriptor: str, slot: str) -> str:
        """Return the text of a slot as the descriptor's block."""
        return slot

    def layout(self, value: str) -> str:
        """Return the layout of a value in registers."""
        if value.startswith("load_scale"):
            return "OPERAND_ROWS"
        return "ACC" if value.startswith("acc") else "OPERAND"

    def statement(self, operation: TileOperation, operands: Sequence[str], iteration: str) -> str:
        """Return the expression of an operation on registers."""
        forms = {
            "bits_low": "({0} & 15).to(ttgl.int8) - 8",
            "bits_high": "({0} >> 4).to(ttgl.int8) - 8",
            "wide_low": "{0}.to(ttgl.float32)",
            "wide_high": "{0}.to(ttgl.float32)",
            "weight_low": f"({{0}} * {{1}}.to(ttgl.float32)[:, None]).to({self.element})",
            "weight_high": f"({{0}} * {{1}}.to(ttgl.float32)[:, None]).to({self.element})",
        }
        stem = re.sub(r"_\d+$", "", operation.name)
        return forms[stem].format(*operands) if stem in forms else super().statement(operation, operands, iteration)

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        return [line.replace("ttgl.cdiv(k, BLOCK_K)", "k // GROUP") for line in super().opening(group)]

    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile."""
        return [line for line in super().start(group) if not (line.startswith("acc_low") and "_token" in line)]

    def settle(self, group: WarpGroup, epilogue: Lines) -> Lines:
        """Wait for products that no epilogue waits for: those of a loop without overlap."""
        return [
            line for line in super().settle(group, epilogue) if not (line.startswith("acc_low") and "_token" in line)
        ]

    def piece(self, suffix: str, at: int, names: dict[str, str]) -> Lines:
        """Return how one block of the output is turned, staged and copied out."""
        column = f"column{self._offset(f'acc{suffix}')}"
        result = f"result = {names['acc']}.to({self.element}).permute((1, 0))"
        return [result, *self.written(f"staging{suffix}.index(0)", "row", column)]


class TensorQuantizedFrame(QuantizedFrame, TensorMatrixFrame):
    """The same on Blackwell: weights go through tensor memory; both halves accumulate in the buffer of the first."""

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        self.accumulators = tuple(o for o in self.accumulators if o.name.startswith("acc_low"))
        self.tile_slots = 2
        for group in self.warp.groups:
            for suffix in self.suffixes:
                if self.makes(group, f"acc{suffix}") != self.makes(group, f"acc_low{suffix}"):
                    raise NotEmittable(kernel=kernel.name, reason="products of the two halves in different groups")

    def products(self, group: WarpGroup) -> tuple[TileOperation, ...]:
        """Return the products that begin an accumulator."""
        return tuple(o for o in super().products(group) if o.name.startswith("acc_low"))

    def accumulator_layout(self) -> str:
        """Return the layout of the transposed output in tensor memory."""
        return f"TensorMemoryLayout([{self.rows}, {self.tile_rows}], col_stride=1)"

    def operand_layout(self) -> str:
        """Return the register layout of the left operand: a row a thread."""
        return f"ttgl.BlockedLayout([1, {self.half}], [32, 1], [4, 1], [0, 1])"

    def constants(self) -> Lines:
        """Return module-level constants."""
        return [
            *QuantizedFrame.constants(self),
            f"PIECE = ttgl.constexpr(ttgl.BlockedLayout([1, {self.tile_rows}], [32, 1], [4, 1], [0, 1]))",
            f"WEIGHT = ttgl.constexpr(TensorMemoryLayout([{self.rows}, {self.half}], col_stride=1))",
        ]

    def tensor_buffer(self, buffer: Buffer) -> Lines:
        """Return the allocation of a buffer in tensor memory."""
        if buffer.name.startswith("acc"):
            return self.tile_buffer(buffer, self.tile_rows)
        shape = [buffer.slots, self.rows, self.half]
        return [f"{buffer_name(self.warp, buffer.name)} = allocate_tensor_memory({self.element}, {shape}, WEIGHT)"]

    def accumulator(self, operation: TileOperation) -> str:
        """Return the tile's slot of an accumulator."""
        name = identifier(operation.name)
        return f"{name if name.startswith('acc_low') else name.replace('acc', 'acc_low', 1)}.index({self.slot()})"

    def taken(self, suffix: str, at: int) -> tuple[Lines, dict[str, str]]:
        """Return how the writing group takes a piece of the output, and its name."""
        return [f"acc{suffix}_piece = acc_low{suffix}.index({self.slot()}).load(PIECE)"], {"acc": f"acc{suffix}_piece"}
