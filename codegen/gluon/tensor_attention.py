"""Frame of attention forward on Blackwell: scores, weights and outputs in tensor memory, a query row a thread."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.gluon.apart import ApartFrame
from treadle.codegen.gluon.attention import HANDED, AttentionFrame
from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.handed import taken
from treadle.codegen.gluon.kernel import TENSOR_ROWS, WarpKernel, identifier
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import Memory, TileOperation
from treadle.ir.warp.program import Action, Buffer, Role, WarpGroup

PIECE_COLUMNS = 64
"""Columns of an output that are rescaled at once: as many registers of a thread."""


class TensorAttentionFrame(ApartFrame, AttentionFrame):
    """As on Hopper; row sums are handed to the group that holds the output, where that is another one.

    Outputs are rescaled where they lie, piece by piece: read, multiplied and written back they would take all columns
    of a row in registers, from one iteration to the next. Sums of a tile go through a shuffle of each lane with itself,
    which ptxas does not move: without it the sums of one step are added up beside the scores of the next one.
    """

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        if self.rows != TENSOR_ROWS:
            raise NotEmittable(kernel=kernel.name, reason=f"sub-tiles of {self.rows} rows; tensor memory has 128 lanes")
        self.piece = min(PIECE_COLUMNS, self.shape["v_head_dim"])

    # --- module -----------------------------------------------------------------------------------------------------

    def constants(self) -> Lines:
        """Return module-level constants."""
        width, keys = self.shape["v_head_dim"], self.sizes["block_n"]

        def registers(columns: int) -> str:
            return f"ttgl.constexpr(ttgl.BlockedLayout([1, {columns}], [32, 1], [4, 1], [0, 1]))"

        def memory(columns: int) -> str:
            return f"ttgl.constexpr(TensorMemoryLayout([{self.rows}, {columns}], col_stride=1))"

        shared = [line for line in super().constants() if line.startswith(("QUERIES", "KEYS", "VALUES", "STAGING"))]
        return [
            f"SCORES = {registers(keys)}",
            f"ACC = {registers(width)}",
            "ROWS = ttgl.constexpr(ttgl.SliceLayout(1, SCORES.value))",
            "ACC_ROWS = ttgl.constexpr(ttgl.SliceLayout(1, ACC.value))",
            "COLUMNS = ttgl.constexpr(ttgl.SliceLayout(0, SCORES.value))",
            f"SCORES_MEMORY = {memory(keys)}",
            f"ACC_MEMORY = {memory(width)}",
            f"WEIGHTS_MEMORY = {memory(keys)}",
            f"PIECE_COLUMNS = ttgl.constexpr({self.piece})",
            f"PIECE = {registers(self.piece)}",
            f"HALF = {registers(keys // 2)}",
            f"HANDED = {HANDED}",
            *shared,
            "# Triton 3.9 names it anew.",
            '_newer = getattr(tensor_memory_descriptor, "reinterpret", None)',
            "_reinterpret = _newer or tensor_memory_descriptor._reinterpret",
        ]

    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""
        found = super().rings()
        for buffer in self.warp.buffers:
            if buffer.memory is Memory.SHARED and buffer.name not in found:
                tile = self.program.tile_of(buffer.name.partition(".")[0])
                if len(tile.shape) > 1 or tile.dtype != "float32":
                    raise NotEmittable(kernel=self.kernel.name, reason=f"`{buffer.name}` is handed over as a tile")
                found[buffer.name] = (tile.shape, "ttgl.float32", "HANDED")
        return found

    def tensor_buffer(self, buffer: Buffer) -> Lines:
        """Return the allocation of a buffer in tensor memory."""
        layout = "ACC_MEMORY" if buffer.name.startswith("acc") else "SCORES_MEMORY"
        columns = self.shape["v_head_dim"] if layout == "ACC_MEMORY" else self.sizes["block_n"]
        shape = [buffer.slots, self.rows, columns]
        return [f"{identifier(buffer.name)} = allocate_tensor_memory(ttgl.float32, {shape}, {layout})"]

    def output(self, suffix: str) -> str:
        """Return the operation whose group holds a sub-tile's output."""
        return f"acc{suffix}.to_registers"

    def _outputs_apart(self) -> bool:
        """Products are issued by groups of their own, so that is seen where an output is written."""
        return False

    # --- loop -------------------------------------------------------------------------------------------------------

    def printed_at(self, operation: str) -> str:
        """Return the operation at which a part of a change in tensor memory is printed.

        That is rescaling an output (reading it, the product, writing it back), and weights on their way to the product.
        """
        base, _, _ = operation.partition(".")
        stem = next((stem for stem in ("acc", "rescaled", "weights_low") if base.startswith(stem)), "")
        suffix = base.removeprefix(stem)
        low = (f"weights_low{suffix}", f"weights_low{suffix}.to_tensor")
        rescaled = (f"acc{suffix}.to_registers", f"rescaled{suffix}", f"rescaled{suffix}.to_tensor")
        if stem and operation in low:
            return low[1] if self._together(low, alike=True) else ""
        return rescaled[1] if stem and operation in rescaled and self._together(rescaled, alike=False) else ""

    def _together(self, operations: Sequence[str], *, alike: bool) -> bool:
        """Whether one group does all operations; `alike`: in the same stage too."""
        for group in self.warp.groups:
            stages = [i.stage for i in group.steady if i.action is Action.PERFORM and i.subject in operations]
            if len(stages) == len(operations):
                return not alike or len(set(stages)) == 1
        return False

    def changed(self, operation: str, operands: Sequence[str], slot: str) -> Lines:
        """Return a change of tensor memory."""
        if operation.startswith("weights_low"):
            shape = [self.rows, self.sizes["block_n"]]
            return [f"_put(_reinterpret({slot}, {self.element}, {shape}, WEIGHTS_MEMORY), {operands[0]})"]
        suffix = operation.removeprefix("rescaled")
        return [f"_rescale(acc{suffix}.index(0), {operands[0]}, {self.shape['v_head_dim']})"]

    def view(self, value: str, slot: str, role: Role, reader: TileOperation) -> str:
        """Return the text of a product's operand in a slot of a buffer; weights lie in the slot of their scores."""
        if value.startswith("weights_low"):
            shape = [self.rows, self.sizes["block_n"]]
            return f"_reinterpret({slot}, {self.element}, {shape}, WEIGHTS_MEMORY)"
        return super().view(value, slot, role, reader)

    def statement(self, operation: TileOperation, operands: Sequence[str], iteration: str) -> str:
        """Return the expression of an operation on registers."""
        if operation.name.startswith("weights_low"):
            return f"{operands[0]}.to({self.element})"
        expression = super().statement(operation, operands, iteration)
        return f"_made({expression})" if operation.name.startswith("tile_sum") else expression

    # --- tiles ------------------------------------------------------------------------------------------------------

    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile."""
        if self.is_load(group):
            return super().start(group)
        lines: Lines = []
        for suffix in self.suffixes:
            lines += [*self.first_figures(group, suffix), *self.awaited(group, suffix)]
            lines += self.first_output(suffix) if self.makes(group, self.output(suffix)) else []
        return lines

    def first_output(self, suffix: str) -> Lines:
        """Return the first value of a sub-tile's output."""
        zeros = f"ttgl.zeros(({self.rows}, {self.shape['v_head_dim']}), ttgl.float32, ACC)"
        inside = bool(self.printed_at(self.output(suffix)))
        return [f"acc{suffix}.index(0).store({zeros})" if inside else f"acc{suffix}_to_registers = {zeros}"]

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile: sums are handed over first, then outputs written."""
        if self.is_load(group):
            return super().finish(group)
        slot, _ = self._query_slot()
        own = [suffix for suffix in self.suffixes if self.makes(group, f"scores{suffix}")]
        released = [f"mbarrier.arrive(q{suffix}_empty.index({slot}), count=1)" for suffix in own]
        lines: Lines = [*released] if self.staged else []
        for suffix in self.suffixes:
            lines += self.handed_figures(group, suffix)
            lines += self.stored_sums(suffix) if self.makes(group, f"row_sum{suffix}") else []
        for suffix in self.suffixes:
            if self.makes(group, self.output(suffix)):
                lines += self._output(suffix, own)
        if not self.staged:
            lines += ["tma.store_wait(0)", *released]
        return [*lines, "tiles_done += 1"]

    def _staging(self, suffix: str, own: list[str]) -> str:
        """Return where an output is staged: in a buffer of its own, or in queries that the group itself has read."""
        if self.staged:
            return f"staging{suffix}.index(0)"
        if not own or self.shape["v_head_dim"] != self.shape["qk_head_dim"]:
            raise NotEmittable(kernel=self.kernel.name, reason=f"no shared memory to stage the output `acc{suffix}`")
        return f"q{own[0]}.index({self._query_slot()[0]})"

    def _output(self, suffix: str, own: list[str]) -> Lines:
        crosses = self.crosses(suffix)
        total = f"sum{suffix}" if crosses else f"ttgl.convert_layout(row_sum{suffix}, ACC_ROWS)"
        lines = taken(f"total{suffix}", total, "ACC_ROWS") if crosses else []
        if self.printed_at(self.output(suffix)):
            lines.append(f"acc{suffix}_to_registers = acc{suffix}.index(0).load(ACC)")
        return [
            *lines,
            f"result{suffix} = acc{suffix}_to_registers / {total}[:, None]",
            "tma.store_wait(0)",
            *self.written(suffix, self._staging(suffix, own)),
        ]
