"""Frame of attention forward on Hopper: queries once a tile, keys and values through rings, masks on the last steps.

A sub-tile may be cut over groups. Each gets the first values of what it makes or reads; where the sums of rows are made
apart from the output that they divide (or the maxima apart from the sums), they are handed over at a tile's end.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.frames import Descriptor, Extra, FrameBase, wgmma_layout
from treadle.codegen.gluon.handed import given, taken
from treadle.codegen.gluon.kernel import WarpKernel
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import TileOperation
from treadle.ir.warp.program import Action, Role, WarpGroup

HANDED = "ttgl.constexpr(ttgl.SwizzledSharedLayout(1, 1, 1, [0]))"
"""Layout of figures of rows in shared memory."""


class AttentionFrame(FrameBase):
    """softmax(Q K^T * scale) V; a tile is a block of queries of one head, tiles of one head follow each other."""

    template = "attention_fwd.py.j2"
    origin = key_origin = ""
    """Text before a query's and a key's row in its tensor."""
    keys = "kv_seq"
    """How many keys all queries of a tile see without a causal mask."""
    masked: tuple[str, ...] = ("tile_max",)
    """Operations that are masked, by the begin of their names."""

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        if len(self._key_loads()) > 1 or self.shape["v_head_dim"] & (self.shape["v_head_dim"] - 1):
            raise NotEmittable(kernel=kernel.name, reason="head dimensions that are no powers of two")
        parts = self.sizes.get("sub_tiles", 1)
        self.rows = self.sizes["block_m"] // parts
        if self.rows % 64:
            raise NotEmittable(kernel=kernel.name, reason=f"sub-tiles of {self.rows} rows; wgmma takes 64 at a time")
        self.suffixes = tuple(f"_{at}" for at in range(parts)) if parts > 1 else ("",)
        self.causal = bool(self.shape.get("causal"))
        self.summary = "Attention forward, softmax(Q K^T * scale) V" + (" with a causal mask" if self.causal else "")
        self.query_slots = 2 if self._query_bytes() + self._staging_bytes() <= self.free_bytes() else 1
        self.staged = self._staging_bytes() <= self.free_bytes()
        if not self.staged and (self.shape["v_head_dim"] > self.shape["qk_head_dim"] or self._outputs_apart()):
            self.need(kernel.name, self._staging_bytes())
        self.sums = bool(self.program.options.get("lse"))

    def _key_loads(self) -> list[str]:
        return [o.name for o in self.program.operations if o.name.startswith("load_k")]

    def _query_bytes(self) -> int:
        return self.tile_bytes((self.sizes["block_m"], self.shape["qk_head_dim"]), self.kernel.dtype)

    def _staging_bytes(self) -> int:
        return self.tile_bytes((self.sizes["block_m"], self.shape["v_head_dim"]), self.kernel.dtype)

    def _outputs_apart(self) -> bool:
        """Whether a group holds an output of queries that another group reads, so that it cannot be staged there."""
        return not all(self.together(f"scores{suffix}", f"acc{suffix}") for suffix in self.suffixes)

    def free_bytes(self) -> int:
        """Return what rings, barriers and one block of queries leave, bytes."""
        return super().free_bytes() - self._query_bytes()

    # --- module -----------------------------------------------------------------------------------------------------

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA, in the order of the kernel's arguments."""
        dtype, keys = self.kernel.dtype, self.sizes["block_n"]
        depth, width = self.shape["qk_head_dim"], self.shape["v_head_dim"]
        return (
            Descriptor("q_rows", (1, self.rows, depth), dtype, "q"),
            Descriptor("k_rows", (1, keys, depth), dtype, "k"),
            Descriptor("v_rows", (1, keys, width), dtype, "v"),
            Descriptor("out", (1, self.rows, width), dtype, "out"),
        )

    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""
        keys = ("batch", "heads", "kv_heads", "seq", "kv_seq")
        return {**self.sums_pointer(), "scale": "fp32", **{key: self.shape[key] for key in keys}}

    def sums_pointer(self) -> dict[str, int | str]:
        """Return the argument for the logarithms of sums, where they are asked for."""
        return {"lse": "*fp32"} if self.sums else {}

    def constants(self) -> Lines:
        """Return module-level constants."""
        depth, width = self.shape["qk_head_dim"], self.shape["v_head_dim"]
        dtype, keys = self.element, self.sizes["block_n"]

        def shared(rows: int, columns: int) -> str:
            return f"ttgl.constexpr(ttgl.NVMMASharedLayout.get_default_for([{rows}, {columns}], {dtype}))"

        return [
            f"SCORES = ttgl.constexpr({wgmma_layout(keys, self.kernel.dtype)})",
            f"ACC = ttgl.constexpr({wgmma_layout(width, self.kernel.dtype)})",
            "ROWS = ttgl.constexpr(ttgl.SliceLayout(1, SCORES.value))",
            "ACC_ROWS = ttgl.constexpr(ttgl.SliceLayout(1, ACC.value))",
            "COLUMNS = ttgl.constexpr(ttgl.SliceLayout(0, SCORES.value))",
            "WEIGHTS = ttgl.constexpr(ttgl.DotOperandLayout(0, ACC.value, 2))",
            f"QUERIES = {shared(self.rows, depth)}",
            f"KEYS = {shared(keys, depth)}",
            f"VALUES = {shared(keys, width)}",
            f"STAGING = {shared(self.rows, width)}",
            *([f"HANDED = {HANDED}"] if self._figures() else []),
        ]

    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop."""
        depth, width = self.shape["qk_head_dim"], self.shape["v_head_dim"]
        dtype = self.kernel.dtype
        queries = [
            Extra(f"q{suffix}", (self.rows, depth), dtype, "QUERIES", self.query_slots, 1) for suffix in self.suffixes
        ]
        staging = [Extra(f"staging{suffix}", (self.rows, width), dtype, "STAGING") for suffix in self.suffixes]
        figures = [Extra(name, (self.rows,), "float32", "HANDED", 1, 1) for name in self._figures()]
        return tuple(queries + (staging if self.staged else []) + figures)

    def _figures(self) -> list[str]:
        """Return the buffers over which figures of rows are handed to another group at the end of a tile."""
        return [
            f"{name}{suffix}"
            for suffix in self.suffixes
            for name, there in (("total", self.crosses(suffix)), ("most", self.apart_from_sums(suffix)))
            if there
        ]

    def output(self, suffix: str) -> str:
        """Return the operation whose group holds a sub-tile's output."""
        return f"acc{suffix}"

    def crosses(self, suffix: str) -> bool:
        """Whether the sums of rows are in another group than the output."""
        return not self.together(f"row_sum{suffix}", self.output(suffix))

    def apart_from_sums(self, suffix: str) -> bool:
        """Whether maxima of rows are in another group than the sums, and both are needed for their logarithms."""
        return self.sums and not self.together(f"row_max{suffix}", f"row_sum{suffix}")

    def together(self, *names: str) -> bool:
        """Whether one group performs all operations."""
        return any(all(self.makes(group, name) for name in names) for group in self.warp.groups)

    def holds(self, group: WarpGroup, value: str) -> bool:
        """Whether a group makes a value or reads it from another one."""
        return self.makes(group, value) or self._reads(group, value)

    def _reads(self, group: WarpGroup, value: str) -> bool:
        return any(i.action is Action.READ and i.subject == value for i in group.instructions())

    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""
        keys = self.sizes["block_n"]
        return {
            "load_k": ((keys, self.shape["qk_head_dim"]), self.element, "KEYS"),
            "load_v": ((keys, self.shape["v_head_dim"]), self.element, "VALUES"),
        }

    # --- loop -------------------------------------------------------------------------------------------------------

    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""
        row = f"({iteration}) * BLOCK_N" if " " in iteration else f"{iteration} * BLOCK_N"
        return ("k_rows" if operation == "load_k" else "v_rows"), f"[kv_head, {self.key_origin}{row}, 0]"

    def destination(self, descriptor: str, slot: str) -> str:
        """Descriptors are of heads x rows x columns; a tile in shared memory is of one head."""
        shape, layout = next((d.block, d.layout) for d in self.descriptors() if d.name == descriptor)
        return f"_one_head({slot}, {list(shape)}, {layout})"

    def layout(self, value: str) -> str:
        """Return the layout of a value in registers."""
        if value.startswith(("acc", "rescaled")):
            return "ACC"
        if value.startswith("weights_low"):
            return "WEIGHTS"
        return "SCORES" if value.startswith(("scores", "shifted", "weights")) else "ROWS"

    def invariant(self, value: str) -> str:
        """Return the text of a value made before the loop."""
        return f"{value}.index(_slot(tiles_done, {self.query_slots}))" if self.query_slots > 1 else f"{value}.index(0)"

    def view(self, value: str, slot: str, role: Role, reader: TileOperation) -> str:
        """Return the text of a product's operand in a slot of a buffer."""
        return f"{slot}.permute((1, 0))" if role is Role.B and value.startswith("load_k") else slot

    def has_first(self, value: str) -> bool:
        """Whether a value has a first one before the loop of a tile: running figures of rows have."""
        return value.startswith(("row_max", "row_sum"))

    def statement(self, operation: TileOperation, operands: Sequence[str], iteration: str) -> str:
        """Return the expression of an operation on registers."""
        stem = operation.name.removesuffix(self._suffix(operation.name))
        low, wide = self.element, operands[1] if len(operands) > 1 else ""
        forms = {
            "tile_max": "ttgl.max({0}, 1)",
            "row_max": "ttgl.maximum({0}, {1})",
            "drop": "({0} - {1}) * scale",
            "alpha": "ttgl.exp2({0})",
            "shifted": "{0} * scale - ({1} * scale)[:, None]",
            "weights": "ttgl.exp2({0})",
            "tile_sum": "ttgl.sum({0}, 1)",
            "row_sum": "{0} * {1} + {2}",
            "weights_low": f"ttgl.convert_layout({{0}}.to({low}), WEIGHTS)",
            "rescaled": f"{{0}} * ttgl.convert_layout({wide}, ACC_ROWS)[:, None]",
        }
        if stem not in forms:
            return super().statement(operation, operands, iteration)
        return forms[stem].format(*operands)

    def _suffix(self, name: str) -> str:
        return next((suffix for suffix in self.suffixes if suffix and name.endswith(suffix)), "")

    # --- masks ------------------------------------------------------------------------------------------------------

    def mask_stage(self, group: WarpGroup) -> int | None:
        """Return the least stage of an operation that is masked."""
        performed = [i for i in group.steady if i.action is Action.PERFORM]
        return min((i.stage for i in performed if self._is_masked(i.subject)), default=None)

    def _is_masked(self, name: str) -> bool:
        """Whether an operation is masked: the first one that reads a sub-tile's scores, or scores of another group."""
        suffix = self._suffix(name)
        anew = name == f"shifted{suffix}" and (
            not self.together(name, f"tile_max{suffix}")
            or any(self._reads(group, f"scores{suffix}") for group in self.warp.groups)
        )
        return anew or name.startswith(self.masked)

    def _sees_scores(self, group: WarpGroup, suffix: str) -> bool:
        """Whether a group masks a sub-tile's scores."""
        return any(self.makes(group, f"{name}{suffix}") for name in ("tile_max", "shifted"))

    def mask(self, operation: TileOperation, iteration: str, operands: Sequence[str]) -> Lines:
        """Return what a masked step does before an operation."""
        if operation.depth or not self._is_masked(operation.name):
            return []
        suffix, scores = self._suffix(operation.name), operands[0]
        start = f"({iteration}) * BLOCK_N" if " " in iteration else f"{iteration} * BLOCK_N"
        return [f'{scores} = ttgl.where(columns[None, :] < (seen{suffix} - {start})[:, None], {scores}, float("-inf"))']

    # --- tiles ------------------------------------------------------------------------------------------------------

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        lines = ["tiles = ttgl.cdiv(seq, BLOCK_M) * batch * heads", "tiles_done = 0"]
        return [*lines, *self.columns(group)]

    def columns(self, group: WarpGroup) -> Lines:
        """Return the keys of a tile, where a group masks scores by them."""
        masks = any(self._sees_scores(group, suffix) for suffix in self.suffixes)
        return ["columns = ttgl.arange(0, BLOCK_N, COLUMNS)"] if masks else []

    def tile(self, group: WarpGroup) -> Lines:
        """Return how a group finds its tile of the grid and the trips of its loop."""
        lines = ["first_row, head, kv_head = _tile_of(tile, batch, heads, kv_heads, seq)"]
        if self.causal:
            lines += [
                "# Query i sees the keys up to i + kv_seq - seq.",
                "end = ttgl.minimum(first_row + BLOCK_M, seq) + kv_seq - seq",
                "full = (first_row + kv_seq - seq + 1) // BLOCK_N",
            ]
        else:
            lines += ["end = kv_seq", "full = kv_seq // BLOCK_N"]
        return [*lines, f"trips = {self.trips('ttgl.cdiv(end, BLOCK_N)')}"]

    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile."""
        if self.is_load(group):
            return self._load_queries()
        lines: Lines = []
        for suffix in self.suffixes:
            output = self.first_output(suffix) if self.makes(group, self.output(suffix)) else []
            lines += [*self.first_figures(group, suffix), *output, *self.awaited(group, suffix)]
        return lines

    def first_figures(self, group: WarpGroup, suffix: str) -> Lines:
        """Return the first values of figures of rows that a group makes or reads."""
        rows = f"first_row + {self.rows * self.suffixes.index(suffix)} + ttgl.arange(0, {self.rows}, ROWS)"
        seen = f"{rows} + (kv_seq - seq + 1)"
        if not self.causal:
            seen = f"ttgl.full(({self.rows},), {self.keys}, ttgl.int32, ROWS)"
        lines = [f"seen{suffix} = {seen}"] if self._sees_scores(group, suffix) else []
        if self.holds(group, f"row_max{suffix}"):
            lines.append(f'row_max{suffix} = ttgl.full(({self.rows},), float("-inf"), ttgl.float32, ROWS)')
        if self.holds(group, f"row_sum{suffix}"):
            lines.append(f"row_sum{suffix} = ttgl.zeros(({self.rows},), ttgl.float32, ROWS)")
        return lines

    def awaited(self, group: WarpGroup, suffix: str) -> Lines:
        """Return the wait for queries, where a group reads them."""
        slot, parity = self._query_slot()
        reads = self.makes(group, f"scores{suffix}")
        return [f"mbarrier.wait(q{suffix}_full.index({slot}), {parity})"] if reads else []

    def first_output(self, suffix: str) -> Lines:
        """Return the first value of a sub-tile's output."""
        return [f"acc{suffix} = ttgl.zeros(({self.rows}, {self.shape['v_head_dim']}), ttgl.float32, ACC)"]

    def _query_slot(self) -> tuple[str, str]:
        slots = self.query_slots
        return ("0" if slots == 1 else f"_slot(tiles_done, {slots})"), f"_parity(tiles_done, {slots})"

    def _load_queries(self) -> Lines:
        lines: Lines = []
        slot, parity = self._query_slot()
        for at, suffix in enumerate(self.suffixes):
            row = f"first_row + {at * self.rows}" if at else "first_row"
            target = self.destination("q_rows", f"q{suffix}.index({slot})")
            lines += [
                f"mbarrier.wait(q{suffix}_empty.index({slot}), {parity} ^ 1)",
                f"mbarrier.expect(q{suffix}_full.index({slot}), q_rows.block_type.nbytes)",
                f"_copy(q_rows, [head, {self.origin}{row}, 0], q{suffix}_full.index({slot}), {target})",
            ]
        return lines

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile."""
        lines: Lines = []
        slot, _ = self._query_slot()
        for suffix in self.suffixes:
            reads, holds = (self.makes(group, name) for name in (f"scores{suffix}", self.output(suffix)))
            source = f"staging{suffix}.index(0)" if self.staged else f"q{suffix}.index({slot})"
            release = [f"mbarrier.arrive(q{suffix}_empty.index({slot}), count=1)"] if reads else []
            written = self.written(suffix, source) if holds else []
            lines += [
                *self.handed_figures(group, suffix),
                *(self._result(suffix) if holds else []),
                *(self.stored_sums(suffix) if self.makes(group, f"row_sum{suffix}") else []),
                *(release if self.staged else []),
                *(["tma.store_wait(0)"] if holds and self.staged else []),
                *written,
                *([] if self.staged or not holds else ["tma.store_wait(0)", *release]),
            ]
        return [*lines, "tiles_done += 1"]

    def _result(self, suffix: str) -> Lines:
        """Return how a sub-tile's output is divided by the sums of its rows."""
        lines = taken(f"total{suffix}", f"sum{suffix}", "ACC_ROWS") if self.crosses(suffix) else []
        total = f"sum{suffix}" if lines else f"ttgl.convert_layout(row_sum{suffix}, ACC_ROWS)"
        return [*lines, f"result{suffix} = acc{suffix} / {total}[:, None]"]

    def handed_figures(self, group: WarpGroup, suffix: str) -> Lines:
        """Return how a group hands over figures of rows at the end of a tile, and takes the maxima beside its sums."""
        lines: Lines = []
        if self.apart_from_sums(suffix) and self.makes(group, f"row_max{suffix}"):
            lines += given(f"most{suffix}", f"row_max{suffix}")
        if self.makes(group, f"row_sum{suffix}"):
            lines += given(f"total{suffix}", f"row_sum{suffix}") if self.crosses(suffix) else []
            if self.apart_from_sums(suffix):
                lines += taken(f"most{suffix}", f"row_max{suffix}", "ROWS")
        return lines

    def first_row(self, suffix: str) -> str:
        """Return the first row of a sub-tile within its sequence, as text."""
        at = self.suffixes.index(suffix)
        return f"first_row + {at * self.rows}" if at else "first_row"

    def written(self, suffix: str, source: str) -> Lines:
        """Return how `result` goes to its place in the output by way of shared memory."""
        shared = source
        if not self.staged and self.shape["v_head_dim"] != self.shape["qk_head_dim"]:
            shared = f"{source}.slice(0, {self.shape['v_head_dim']}, dim=1)"
        where = f"[head, {self.origin}{self.first_row(suffix)}, 0]"
        return [
            f"{shared}.store(result{suffix}.to({self.element}))",
            "fence_async_shared()",
            f"_copy_out(out, {where}, {self.destination('out', source)})",
        ]

    def stored_sums(self, suffix: str) -> Lines:
        """Return how the logarithms of the rows' sums are written, where they are asked for."""
        if not self.sums:
            return []
        total = f"row_max{suffix} * scale + ttgl.log2(row_sum{suffix})"
        return [f"_store_sums({self.sums_place()}, {total}, {self.first_row(suffix)}, seq)"]

    def sums_place(self) -> str:
        """Return pointer and stride of a sequence's logarithms of sums."""
        return "lse + head.to(ttgl.int64) * seq, 1"

    def closing(self, group: WarpGroup) -> Lines:
        """Return what a group does after its last tile."""
        return [] if self.is_load(group) else ["tma.store_wait(0)"]
