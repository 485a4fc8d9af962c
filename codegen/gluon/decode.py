"""Frames of attention decode: one query a sequence, keys cut into pieces, contiguous or in pages all over a cache."""

from __future__ import annotations

from collections.abc import Mapping

from treadle.codegen.gluon.attention import AttentionFrame
from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.frames import POINTERS, Descriptor, Extra
from treadle.codegen.gluon.kernel import WarpKernel, issues_only
from treadle.codegen.gluon.tensor_attention import TensorAttentionFrame
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import DTYPE_BYTES, TileOperation
from treadle.ir.warp.program import Role, WarpGroup

PANEL_BYTES = 128
"""Bytes of a row that lie together in a tile for products (128-byte swizzle, PTX ISA)."""
SWIZZLED_ROWS = 8
"""Rows after which the swizzle repeats: a copy begins at a multiple of them."""


class DecodeFrame(AttentionFrame):
    """The query heads that share keys are the rows of a tile; pieces of the keys are merged by a second kernel."""

    template = "attention_decode.py.j2"
    key_origin = "first_key + "
    keys = "keys"
    masked = ("tile_max", "acc")

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        self.splits = self.sizes["splits"]
        self.summary = "Attention of one new query per sequence, its keys in pieces"
        if self.shape.get("latent"):
            raise NotEmittable(kernel=kernel.name, reason="values that are a part of the keys")
        for group in self.warp.groups:
            if self.makes(group, "row_sum") != self.makes(group, "row_max"):
                raise NotEmittable(kernel=kernel.name, reason="sums and maxima of rows in different groups")
            if not kernel.blackwell and self.makes(group, "acc") and not self.makes(group, "row_max"):
                raise NotEmittable(kernel=kernel.name, reason="products of values in a group without their scores")

    def _staging_bytes(self) -> int:
        return 0

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA: outputs are written from registers."""
        return super().descriptors()[:-1]

    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop."""
        return tuple(extra for extra in super().extras() if not extra.name.startswith("staging"))

    def constants(self) -> Lines:
        """Return module-level constants."""
        return [*super().constants(), f"SPLITS = ttgl.constexpr({self.splits})", *self._clearing_layout()]

    def _clearing_layout(self) -> Lines:
        """Return how the group that multiplies holds rows of values: 16 bytes a thread, whole rows side by side."""
        warps = 1 if any(self.makes(g, "acc") and issues_only(self.kernel, g) for g in self.warp.groups) else 4
        run = 16 // int(DTYPE_BYTES[self.kernel.dtype])
        across = min(32, self.shape["v_head_dim"] // run)
        layout = f"ttgl.BlockedLayout([1, {run}], [{32 // across}, {across}], [{warps}, 1], [1, 0])"
        return [f"ROWS_OF_VALUES = ttgl.constexpr({layout})"]

    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""
        return {"lengths": "*i32", **self._results(), "scale": "fp32", **self._extents()}

    def _results(self) -> dict[str, int | str]:
        if self.splits > 1:
            return {"partial": "*fp32", "log_sum": "*fp32"}
        return {"out": POINTERS[self.kernel.dtype]}

    def _extents(self) -> dict[str, int | str]:
        return {key: self.shape[key] for key in ("batch", "heads", "kv_heads", "kv_seq")}

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        lines = ["tiles = ttgl.cdiv(heads // kv_heads, BLOCK_M) * batch * kv_heads * SPLITS", "tiles_done = 0"]
        return [*lines, *self.columns(group)]

    def tile(self, group: WarpGroup) -> Lines:
        """Return how a group finds its tile, the keys of its piece and the trips of its loop."""
        return [
            "split = tile % SPLITS",
            "blocks = ttgl.cdiv(heads // kv_heads, BLOCK_M)",
            "first_row = tile // SPLITS % blocks * BLOCK_M",
            "head = tile // SPLITS // blocks",
            *self.place(),
            f"length = ttgl.maximum(ttgl.minimum(ttgl.load(lengths + head // kv_heads), {self.most_keys()}), 0)",
            "# Every piece gets the same number of key tiles of this sequence; the last ones may get none.",
            "piece = ttgl.cdiv(ttgl.cdiv(length, BLOCK_N), SPLITS) * BLOCK_N",
            "first_key = ttgl.minimum(split * piece, length)",
            "keys = ttgl.minimum(first_key + piece, length) - first_key",
            "full = keys // BLOCK_N",
            f"trips = {self.trips('ttgl.cdiv(keys, BLOCK_N)', fewest=0)}",
        ]

    def place(self) -> Lines:
        """Return where keys of a sequence's head are found."""
        return ["kv_head = head"]

    def most_keys(self) -> str:
        """Return the most keys that a sequence can have, as text."""
        return "kv_seq"

    def mask_operands(self, operation: TileOperation, iteration: str, operands: Mapping[Role, str]) -> Lines:
        """Values behind the last key may be anything, even not finite: they become zeros."""
        if operation.name != "acc":
            return []
        start = f"({iteration}) * BLOCK_N" if " " in iteration else f"{iteration} * BLOCK_N"
        return [f"_clear({operands[Role.B]}, keys - {start})"]

    def written(self, suffix: str, source: str) -> Lines:
        """Return how `result` goes to its place, from registers; a piece without keys has the sum 0."""
        width = self.shape["v_head_dim"]
        rows = "first_row, heads // kv_heads"
        empty = f"result{suffix} = ttgl.where(keys > 0, result{suffix}, 0.0)"
        at = "head.to(ttgl.int64) * (heads // kv_heads)"
        if self.splits == 1:
            result = f"result{suffix}.to({self.element})"
            return [empty, f"_store_rows(out + {at} * {width}, {result}, {rows}, {width})"]
        total = f"ttgl.where(keys > 0, row_max{suffix} * scale + ttgl.log2(row_sum{suffix}), float('-inf'))"
        return [
            empty,
            f"_store_rows(partial + ({at} * SPLITS + split) * {width}, result{suffix}, {rows}, SPLITS * {width})",
            f"_store_column(log_sum + {at} * SPLITS + split, {total}, {rows}, SPLITS)",
        ]

    def closing(self, group: WarpGroup) -> Lines:
        """Return what a group does after its last tile."""
        return []


class TensorDecodeFrame(DecodeFrame, TensorAttentionFrame):
    """The same on Blackwell."""

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        if self.crosses(""):
            raise NotEmittable(kernel=kernel.name, reason="sums of rows in another group than the output")


class PagedFrame(DecodeFrame):
    """Keys and values are copied page by page, as a table names them; behind the last page come zeros."""

    template = "attention_paged.py.j2"

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        self.summary = "Attention of one new query per sequence over keys and values in pages"
        size = self.shape["page_size"]
        if size & (size - 1) or size < SWIZZLED_ROWS:
            raise NotEmittable(kernel=kernel.name, reason=f"pages of {size} keys; copies take a power of two from 8 on")
        self.chunk = min(size, self.sizes["block_n"])
        self.panel = PANEL_BYTES // int(DTYPE_BYTES[kernel.dtype])
        for key in ("qk_head_dim", "v_head_dim"):
            if self.shape[key] % self.panel:
                reason = f"{key} of {self.shape[key]}; pages are copied in panels of {self.panel} columns"
                raise NotEmittable(kernel=kernel.name, reason=reason)

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA: a block of the cache is of one page, and of one panel of columns."""
        queries, *cached = super().descriptors()
        block = (1, self.chunk, self.panel)
        return queries, *(Descriptor(d.name, block, d.dtype, f"{d.tensor}_pages") for d in cached)

    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""
        found = super().rings()
        keys = self.sizes["block_n"]
        for name, layout, columns in (("load_k", "KEYS", "qk_head_dim"), ("load_v", "VALUES", "v_head_dim")):
            found[name] = ((keys, self.shape[columns]), self.element, layout)
        return found

    def constants(self) -> Lines:
        """Return module-level constants."""
        layout = f"ttgl.NVMMASharedLayout.get_default_for([{self.chunk}, {self.panel}], {self.element})"
        return [
            *super().constants(),
            f"PAGE_SIZE = ttgl.constexpr({self.shape['page_size']})",
            f"CHUNK = ttgl.constexpr({self.chunk})",
            f"PANEL = ttgl.constexpr({self.panel})",
            f"CHUNK_LAYOUT = ttgl.constexpr({layout})",
            "# Triton 3.9 names it anew.",
            '_newer_shared = getattr(ttgl.shared_memory_descriptor, "reinterpret", None)',
            "_reinterpret_shared = _newer_shared or ttgl.shared_memory_descriptor._reinterpret",
        ]

    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""
        return {"block_table": "*i32", **super().scalars()}

    def _extents(self) -> dict[str, int | str]:
        most = -(-self.shape["kv_seq"] // self.shape["page_size"])
        sizes = {key: self.shape[key] for key in ("batch", "heads", "kv_heads")}
        return {**sizes, "most_pages": most, "pages": most * self.shape["batch"]}

    def place(self) -> Lines:
        """Return where keys of a sequence's head are found."""
        return ["kv_head = head % kv_heads", "table = block_table + head // kv_heads * most_pages"]

    def most_keys(self) -> str:
        """Return the most keys that a sequence can have, as text."""
        return "most_pages * PAGE_SIZE"

    def issued(self, descriptor: str, where: str, barrier: str, target: str) -> str:
        """Return the copy of a tile: a chunk of a page at a time, all of them counted by one barrier."""
        if descriptor == "q_rows":
            return super().issued(descriptor, where, barrier, target)
        row = where.strip("[]").split(", ")[1]
        return f"_copy_pages({descriptor}, table, kv_head, {row}, first_key + keys, pages, {barrier}, {target})"

    def destination(self, descriptor: str, slot: str) -> str:
        """Descriptors of queries are of heads x rows x columns; tiles of the cache are cut into chunks."""
        return slot if descriptor != "q_rows" else super().destination(descriptor, slot)

    def expected_bytes(self, descriptor: str, target: str) -> str:
        """Return the bytes that a copy brings, as text."""
        if descriptor == "q_rows":
            return super().expected_bytes(descriptor, target)
        columns = self.shape["qk_head_dim" if descriptor == "k_rows" else "v_head_dim"]
        return str(self.tile_bytes((self.sizes["block_n"], columns), self.kernel.dtype))


class TensorPagedFrame(PagedFrame, TensorDecodeFrame):
    """The same on Blackwell."""
