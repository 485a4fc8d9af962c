"""Frames of attention over packed sequences: tensors hold the tokens of all sequences behind each other."""

from __future__ import annotations

from treadle.codegen.gluon.attention import AttentionFrame
from treadle.codegen.gluon.frames import POINTERS, indented
from treadle.codegen.gluon.tensor_attention import TensorAttentionFrame
from treadle.codegen.gluon.writer import Lines
from treadle.ir.warp.program import WarpGroup


class VarlenFrame(AttentionFrame):
    """Instances walk over sequences and share the tiles of each; a sequence's last rows are written one by one."""

    template = "attention_varlen.py.j2"
    origin = key_origin = "begin + "

    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""
        sizes: dict[str, int | str] = {key: self.shape[key] for key in ("batch", "heads", "kv_heads")}
        pointers: dict[str, int | str] = {"out_pointer": POINTERS[self.kernel.dtype], **self.sums_pointer()}
        return {**pointers, "bounds": "*i32", "scale": "fp32", **sizes}

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        lines = ["tiles_done = 0", "tiles_before = 0", "begin = ttgl.load(bounds)"]
        return [*lines, *self.columns(group)]

    def tile_loop(self, tile: Lines) -> Lines:
        """Return the walk over sequences and the tiles of each that are this instance's, in turn with the others."""
        return [
            "for sequence in range(batch):",
            "    seq = ttgl.load(bounds + sequence + 1) - begin",
            "    kv_seq = seq",
            "    tiles = ttgl.cdiv(seq, BLOCK_M) * heads",
            "    mine = ttgl.program_id(0) + ttgl.num_programs(0) - tiles_before % ttgl.num_programs(0)",
            "    for tile in range(mine % ttgl.num_programs(0), tiles, ttgl.num_programs(0)):",
            *indented(indented(tile)),
            "    tiles_before += tiles",
            "    begin += seq",
        ]

    def tile(self, group: WarpGroup) -> Lines:
        """Return how a group finds its tile of the sequence and the trips of its loop."""
        return [line.replace("(tile, batch, heads", "(tile, 1, heads") for line in super().tile(group)]

    def written(self, suffix: str, source: str) -> Lines:
        """Return how `result` goes to its place: by TMA where the sequence has all its rows, else row by row."""
        row, width = self.first_row(suffix), self.shape["v_head_dim"]
        begin = f"out_pointer + (begin.to(ttgl.int64) * heads + head) * {width}"
        result = f"result{suffix}.to({self.element})"
        return [
            f"if {row} + {self.rows} <= seq:",
            *indented(super().written(suffix, source)),
            "else:",
            f"    _store_rows({begin}, {result}, {row}, seq, heads * {width})",
        ]

    def sums_place(self) -> str:
        """Return pointer and stride of a sequence's logarithms of sums."""
        return "lse + begin.to(ttgl.int64) * heads + head, heads"


class TensorVarlenFrame(TensorAttentionFrame, VarlenFrame):
    """The same on Blackwell."""
