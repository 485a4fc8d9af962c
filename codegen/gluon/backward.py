"""Frame of attention backward on Hopper: a block of keys a tile, queries through rings, dq added up in global memory.

Keys are rows. Query heads that share keys are steps of one loop, since dk and dv sum over them: first the steps of all
heads that see no mask, then those that a causal mask or the last key cuts. A kernel before it makes delta and base-2
logarithms, padded to whole blocks; one behind it rounds dq. The sum of dq lies as registers hold it, so that a warp
adds 256 bytes at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.frames import Descriptor, Extra, FrameBase, wgmma_layout
from treadle.codegen.gluon.kernel import WarpKernel, identifier
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import OperationKind, TileOperation
from treadle.ir.warp.program import Action, Role, WarpGroup

LEAST_ROWS = 64
"""Rows that one warp group multiplies at once (`wgmma`, PTX ISA)."""
LOG_OF_2 = 0.6931471805599453


class BackwardFrame(FrameBase):
    """Gradients dq, dk and dv of softmax(Q K^T * scale) V, from the output, its gradient and logarithms of sums."""

    template = "attention_bwd.py.j2"
    least_rows = LEAST_ROWS
    """Rows of the smallest product."""

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        self.depth, self.width = self.shape["qk_head_dim"], self.shape["v_head_dim"]
        self.queries = self.sizes["block_m"]
        parts = self.sizes["sub_tiles"]
        self.suffixes = tuple(f"_{at}" for at in range(parts)) if parts > 1 else ("",)
        self.rows = self.sizes["block_n"] // parts
        self.gradients = [o for o in self.program.operations if o.name.startswith("dq")]
        self._refuse_small()
        self.causal = bool(self.shape.get("causal"))
        self.summary = "Attention backward: dq, dk and dv" + (" under a causal mask" if self.causal else "")
        tiles = self._tile_bytes()
        shared = self.depth == self.width
        self.need(kernel.name, tiles // 2 if shared else tiles)
        self.apart = not shared or tiles <= self.free_bytes()
        self.slots = 2 if 2 * tiles <= self.free_bytes() else 1

    def _refuse_small(self) -> None:
        """Refuse what one warp group cannot multiply."""
        name = self.kernel.name
        pieces = {operation.result.shape[0] for operation in self.gradients}
        if self.rows % self.least_rows or min(pieces) % self.least_rows:
            found, unit = min(self.rows, *pieces), "tcgen05" if self.kernel.blackwell else "wgmma"
            raise NotEmittable(
                kernel=name, reason=f"products of {found} rows; {unit} takes {self.least_rows} at a time"
            )

    def free_bytes(self) -> int:
        """Return what rings, barriers and the keys and values of one tile leave, bytes."""
        return super().free_bytes() - self._tile_bytes()

    def _tile_bytes(self) -> int:
        """Return the bytes of the keys and values of a tile."""
        return self.tile_bytes((self.sizes["block_n"], self.depth + self.width), self.kernel.dtype)

    # --- module -----------------------------------------------------------------------------------------------------

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA, in the order of the kernel's arguments."""
        dtype = self.kernel.dtype
        return (
            Descriptor("q_rows", (1, self.queries, self.depth), dtype, "q"),
            Descriptor("k_rows", (1, self.rows, self.depth), dtype, "k"),
            Descriptor("v_rows", (1, self.rows, self.width), dtype, "v"),
            Descriptor("dout_rows", (1, self.queries, self.width), dtype, "dout"),
            Descriptor("lse_values", (self.queries,), "float32", "lse"),
            Descriptor("delta_values", (self.queries,), "float32", "delta"),
            Descriptor("dk_rows", (1, self.rows, self.depth), dtype, "dk"),
            Descriptor("dv_rows", (1, self.rows, self.width), dtype, "dv"),
        )

    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""
        keys = ("batch", "heads", "kv_heads", "seq", "kv_seq")
        return {"dq_sum": "*fp32", "scale": "fp32", **{key: self.shape[key] for key in keys}}

    def constants(self) -> Lines:
        """Return module-level constants."""

        def shared(rows: int, columns: int) -> str:
            return f"ttgl.constexpr(ttgl.NVMMASharedLayout.get_default_for([{rows}, {columns}], {self.element}))"

        return [
            *self.registers(),
            "KEY_ROWS = ttgl.constexpr(ttgl.SliceLayout(1, SCORES.value))",
            "QUERIES_IN_COLUMNS = ttgl.constexpr(ttgl.SliceLayout(0, SCORES.value))",
            f"KEYS = {shared(self.rows, self.depth)}",
            f"VALUES = {shared(self.rows, self.width)}",
            f"QUERIES = {shared(self.queries, self.depth)}",
            f"SLOPES_OF_OUT = {shared(self.queries, self.width)}",
            f"HANDED = {shared(self.rows, self.queries)}",
            f"QK_HEAD_DIM = ttgl.constexpr({self.depth})",
            f"EMPTY_STEPS = ttgl.constexpr({max(group.stages for group in self.warp.groups) - 1})",
        ]

    def registers(self) -> Lines:
        """Return the layouts of values in registers."""
        dtype = self.kernel.dtype
        return [
            f"SCORES = ttgl.constexpr({wgmma_layout(self.queries, dtype)})",
            f"DK = ttgl.constexpr({wgmma_layout(self.depth, dtype)})",
            f"DV = ttgl.constexpr({wgmma_layout(self.width, dtype)})",
            "WEIGHTS = ttgl.constexpr(ttgl.DotOperandLayout(0, DV.value, 2))",
            "SLOPES = ttgl.constexpr(ttgl.DotOperandLayout(0, DK.value, 2))",
        ]

    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop: keys and values of a tile, and where dk and dv are staged."""
        dtype = self.kernel.dtype
        found: list[Extra] = []
        for suffix in self.suffixes:
            for name, width, layout in (("k", self.depth, "KEYS"), ("v", self.width, "VALUES")):
                readers = sum(self._reads(group, f"{name}{suffix}") for group in self.warp.groups)
                block = (self.rows, width)
                found.append(Extra(f"{name}{suffix}", block, dtype, layout, self.slots, readers))
                if self.apart or name == "v":
                    found.append(Extra(f"d{name}{suffix}_staging", block, dtype, layout))
        return tuple(found)

    def _staging(self, name: str) -> str:
        """Return where dk or dv goes through: a buffer of its own, or that of dv, which goes first."""
        return f"{name if self.apart else name.replace('dk', 'dv')}_staging.index(0)"

    def _reads(self, group: WarpGroup, value: str) -> bool:
        """Whether a group multiplies by the keys or values of a tile."""
        return any(source.value == value and source.invariant for i in group.instructions() for source in i.operands)

    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""
        numbers = (self.queries,), "ttgl.float32"
        found: dict[str, tuple[tuple[int, ...], str, str]] = {
            "load_q": ((self.queries, self.depth), self.element, "QUERIES"),
            "load_dout": ((self.queries, self.width), self.element, "SLOPES_OF_OUT"),
        }
        for suffix in self.suffixes:
            found[f"load_lse{suffix}"] = (*numbers, "LSE_LAYOUT")
            found[f"load_delta{suffix}"] = (*numbers, "DELTA_LAYOUT")
            for stem in ("slopes_low", "weights_low"):
                found[f"{stem}{suffix}"] = ((self.rows, self.queries), self.element, "HANDED")
        return found

    # --- loop -------------------------------------------------------------------------------------------------------

    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""
        tensor = operation.removeprefix("load_")
        if tensor in ("q", "dout"):
            head = f"_head_of({iteration}, steps, first_head, last_head, shared_by)"
            return f"{tensor}_rows", f"[{head}, {self._block(iteration)} * BLOCK_M, 0]"
        first = f"_first_value({iteration}, steps, {self._place(iteration)}, last_head, blocks)"
        return f"{tensor.removesuffix(self._suffix(tensor))}_values", f"[{first}]"

    def _block(self, iteration: str) -> str:
        """Return the block of queries of a step, as text."""
        return f"_block_of({iteration}, {'full, plain_block, cut_block, ' if self.causal else ''}shared_by)"

    def _place(self, iteration: str) -> str:
        """Return the place of a step's numbers of queries, as text."""
        cut = "full, plain_block, cut_block, shared_by, " if self.causal else ""
        return f"_place({iteration}, {cut}first_place)"

    def destination(self, descriptor: str, slot: str) -> str:
        """Descriptors are of heads x rows x columns; a tile in shared memory is of one head."""
        found = next(d for d in self.descriptors() if d.name == descriptor)
        return slot if len(found.block) == 1 else f"_one_head({slot}, {list(found.block)}, {found.layout})"

    def layout(self, value: str) -> str:
        """Return the layout of a value in registers."""
        if value.startswith("load_"):
            return "QUERIES_IN_COLUMNS"
        named = {"dk": "DK", "dv": "DV", "weights_low": "WEIGHTS", "slopes_low": "SLOPES"}
        return next((layout for stem, layout in named.items() if value.startswith(stem)), "SCORES")

    def held(self, value: str, role: Role, reader: TileOperation, iteration: str) -> str:
        """Return keys or values of a tile; for dq the keys of a piece of the columns, transposed.

        Their places are found anew for each product: kept, descriptors of all products take 48 registers a thread.
        """
        slot = self.slot()
        if not self.kernel.blackwell:
            slot = f"_fresh({iteration})" if self.slots == 1 else f"{slot} + _fresh({iteration})"
        tile = f"{identifier(value)}.index({slot})"
        if not reader.name.startswith("dq"):
            return tile
        piece, rows = self._piece(reader.name), reader.result.shape[0]
        part = tile if rows == self.depth else f"{tile}.slice({piece * rows}, {rows}, dim=1)"
        return f"{part}.permute((1, 0))"

    @staticmethod
    def _piece(name: str) -> int:
        """Return which piece of the columns a product or store of dq is about."""
        number = re.search(r"_(\d+)$", name)
        return int(number[1]) if number else 0

    def view(self, value: str, slot: str, role: Role, reader: TileOperation) -> str:
        """Return a product's operand: queries and dout are transposed where rows of keys are multiplied."""
        transposed = role is Role.B and reader.name.startswith(("scores", "dweights"))
        return f"{slot}.permute((1, 0))" if transposed else slot

    def slot(self) -> str:
        """Return the slot of a tile's keys and values, as text."""
        return "0" if self.slots == 1 else f"_slot(tiles_done, {self.slots})"

    def statement(self, operation: TileOperation, operands: Sequence[str], iteration: str) -> str:
        """Return the expression of an operation on registers."""
        stem = operation.name.removesuffix(self._suffix(operation.name))
        forms = {
            "shifted": "{0} * scale - {1}[None, :]",
            "weights": "ttgl.exp2({0})",
            "weights_low": f"ttgl.convert_layout({{0}}.to({self.element}), WEIGHTS)",
            "slopes": "{1} * ({0} - {2}[None, :])",
            "slopes_low": f"ttgl.convert_layout({{0}}.to({self.element}), SLOPES)",
        }
        if operation.kind is OperationKind.STORE:
            first = self._piece(operation.name) * self.gradients[0].result.shape[0]
            return f"_add_up(dq_sum, {operands[0]}, {first}, {self._place(iteration)})"
        if stem not in forms:
            return super().statement(operation, operands, iteration)
        return forms[stem].format(*operands)

    def _suffix(self, name: str) -> str:
        return next((suffix for suffix in self.suffixes if suffix and name.endswith(suffix)), "")

    # --- masks ------------------------------------------------------------------------------------------------------

    def mask_stage(self, group: WarpGroup) -> int | None:
        """Return the least stage of an operation that is masked."""
        performed = [i for i in group.steady if i.action is Action.PERFORM and i.subject.startswith("shifted")]
        return min((i.stage for i in performed), default=None)

    def mask(self, operation: TileOperation, iteration: str, operands: Sequence[str]) -> Lines:
        """Return what a masked step does before an operation."""
        if not operation.name.startswith("shifted"):
            return []
        suffix = self._suffix(operation.name)
        seen = f"keys{suffix}[:, None] < kv_seq"
        if self.causal:
            limit = f"{self._block(iteration)} * BLOCK_M + queries + (kv_seq - seq + 1)"
            seen = f"keys{suffix}[:, None] < ttgl.minimum({limit}, kv_seq)[None, :]"
        return [f'{operands[0]} = ttgl.where({seen}, {operands[0]}, float("-inf"))']

    # --- tiles ------------------------------------------------------------------------------------------------------

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        lines = [
            "tiles = ttgl.cdiv(kv_seq, BLOCK_N) * batch * kv_heads",
            "tiles_done = 0",
            "blocks = ttgl.cdiv(seq, BLOCK_M)",
            "shared_by = heads // kv_heads",
            "last_head = batch * heads",
        ]
        masks = self.causal and any(self.makes(group, f"shifted{suffix}") for suffix in self.suffixes)
        return [*lines, *(["queries = ttgl.arange(0, BLOCK_M, QUERIES_IN_COLUMNS)"] if masks else [])]

    def tile(self, group: WarpGroup) -> Lines:
        """Return how a group finds its tile of the grid and the trips of its loop."""
        begin = "ttgl.maximum(first_key + seq - kv_seq, 0) // BLOCK_M" if self.causal else "0"
        whole = "ttgl.cdiv(ttgl.maximum(first_key + BLOCK_N - 1 + seq - kv_seq, 0), BLOCK_M)" if self.causal else "0"
        return [
            "first_key, kv_head = _tile_of(tile, batch, kv_heads, kv_seq)",
            "first_head = kv_head * shared_by",
            "# Blocks of queries from `begin` on see keys of this tile; the last `plain` of them see all of them.",
            f"begin = {begin}",
            f"plain = blocks - ttgl.minimum(ttgl.maximum({whole}, begin), blocks)",
            "plain = plain if first_key + BLOCK_N <= kv_seq else 0",
            "full = shared_by * plain",
            *self._blocks(),
            "first_place = kv_head * blocks * shared_by",
            "steps = shared_by * (blocks - begin)",
            f"trips = {self.trips('steps')}",
        ]

    def _blocks(self) -> Lines:
        """Return where blocks begin that see all keys and, as if counted from the first step on, those that do not."""
        return ["plain_block = blocks - plain", "cut_block = begin - plain"] if self.causal else []

    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile."""
        parity = f"_parity(tiles_done, {self.slots})"
        if self.is_load(group):
            return [line for suffix in self.suffixes for line in self._load_tile(suffix, parity)]
        lines: Lines = []
        for suffix in self.suffixes:
            for name in self._read_by(group, suffix):
                lines.append(f"mbarrier.wait({name}_full.index({self.slot()}), {parity})")
            if self.makes(group, f"shifted{suffix}"):
                lines.append(f"keys{suffix} = {self._row(suffix)} + ttgl.arange(0, {self.rows}, KEY_ROWS)")
            lines += self.first_values(group, suffix)
        return lines

    def first_values(self, group: WarpGroup, suffix: str) -> Lines:
        """Return the first values of what a group sums up."""
        return [
            f"{name}{suffix}_token = warpgroup_mma_init("
            f"ttgl.zeros(({self.rows}, {width}), ttgl.float32, {name.upper()}))"
            for name, width in (("dk", self.depth), ("dv", self.width))
            if self.makes(group, f"{name}{suffix}")
        ]

    def _read_by(self, group: WarpGroup, suffix: str) -> list[str]:
        return [f"{name}{suffix}" for name in ("k", "v") if self._reads(group, f"{name}{suffix}")]

    def _row(self, suffix: str) -> str:
        at = self.suffixes.index(suffix)
        return f"first_key + {at * self.rows}" if at else "first_key"

    def _load_tile(self, suffix: str, parity: str) -> Lines:
        lines: Lines = []
        for name in (f"k{suffix}", f"v{suffix}"):
            rows, slot = f"{name[0]}_rows", self.slot()
            target = self.destination(rows, f"{name}.index({slot})")
            lines += [
                f"mbarrier.wait({name}_empty.index({slot}), {parity} ^ 1)",
                f"mbarrier.expect({name}_full.index({slot}), {rows}.block_type.nbytes)",
                f"_copy({rows}, [kv_head, {self._row(suffix)}, 0], {name}_full.index({slot}), {target})",
            ]
        return lines

    def settle(self, group: WarpGroup, epilogue: Lines) -> Lines:
        """Wait for sums that no epilogue waits for: those of a loop without overlap."""
        names = [identifier(o.name) for o in self.products(group) if o.name.startswith(("dk", "dv"))]
        open_names = [name for name in names if not any(line.startswith(f"{name} = ") for line in epilogue)]
        return [f"{name} = warpgroup_mma_wait(0, deps=[{name}_token])" for name in open_names]

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile: keys and values are given back, then sums written."""
        if self.is_load(group):
            return ["tiles_done += 1"]
        lines: Lines = []
        for suffix in self.suffixes:
            for name in self._read_by(group, suffix):
                lines.append(f"mbarrier.arrive({name}_empty.index({self.slot()}), count=1)")
        sums = [f"{name}{suffix}" for suffix in self.suffixes for name in ("dv", "dk")]
        for name in (name for name in sums if self.makes(group, name)):
            row = self._row(self._suffix(name))
            rows = f"{name[:2]}_rows"
            lines += [
                "tma.store_wait(0)",
                f"{self._staging(name)}.store(({name}{self.factor(name)}).to({self.element}))",
                "fence_async_shared()",
                f"_copy_out({rows}, [kv_head, {row}, 0], {self.destination(rows, self._staging(name))})",
            ]
        return [*lines, "tiles_done += 1"]

    @staticmethod
    def factor(name: str) -> str:
        """Return what a sum is multiplied by: the scale has log2(e) in it, the gradient of scores has not."""
        return f" * (scale * {LOG_OF_2})" if name.startswith("dk") else ""

    def closing(self, group: WarpGroup) -> Lines:
        """Return what a group does after its last tile."""
        return [] if self.is_load(group) else ["tma.store_wait(0)"]
