"""Attention over sequences of different lengths, packed one behind the other: q is (tokens, heads, head dimension).

The kernel finds the bounds of each sequence in its prefix sums of lengths. The plan is that of sequences of the mean
length; the mask is causal within each sequence, or there is none.
"""

from __future__ import annotations

from treadle.frontends.programs.attention_fwd import QUERY_SIZES, attention_program, complete_heads, query_tiles
from treadle.frontends.programs.errors import InvalidExtent
from treadle.frontends.programs.shapes import Extent, Family, Options, Shape, TileSizes, ceil_div
from treadle.ir.tile.program import TileProgram


def _complete(shape: Shape) -> Shape:
    complete_heads(shape)
    if shape["tokens"] < shape["batch"]:
        raise InvalidExtent(
            family="attention_varlen",
            key="tokens",
            found=shape["tokens"],
            expected=f"at least one token for each of the {shape['batch']} sequences",
        )
    return shape


def _mean(shape: Shape) -> Shape:
    """Return the shape of one sequence of the mean length."""
    length = ceil_div(shape["tokens"], shape["batch"])
    return {**shape, "seq": length, "kv_seq": length}


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    return query_tiles(_mean(shape), options)


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    mean = _mean(shape)
    instances = shape["batch"] * shape["heads"] * ceil_div(mean["seq"], sizes["block_m"])
    return attention_program("attention_varlen", shape, mean, instances, sizes, options)


FAMILY = Family(
    name="attention_varlen",
    summary="softmax(Q K^T * scale) V within each of several packed sequences of different lengths",
    shape={
        "batch": Extent("sequences"),
        "tokens": Extent("tokens of all sequences together"),
        "heads": Extent("query heads"),
        "kv_heads": Extent("key-value heads; 0 is as many as query heads", 0, 0),
        "qk_head_dim": Extent("head dimension of queries and keys"),
        "v_head_dim": Extent("head dimension of values; 0 is that of queries", 0, 0),
        "causal": Extent("1 masks later keys of the sequence, 0 does not", 1, 0, 1),
    },
    sizes=QUERY_SIZES,
    tiles=_tiles,
    assemble=_assemble,
    complete=_complete,
    options={"lse": (False, True)},
)
