"""Attention decode from a paged cache: one new query per sequence, its keys and values in pages all over the cache.

A block table names the pages of each sequence. An iteration looks up the pages of its keys, then gathers them; with
`lookup=copy` that is part of the copies' addresses (scalars of the group that issues them). The keys are cut into
`splits` pieces, whose partial results a second kernel merges by their log-sum-exp.
"""

from __future__ import annotations

from treadle.frontends.programs.attention_decode import DECODE_SIZES, decode_instances, decode_tiles
from treadle.frontends.programs.attention_fwd import complete_heads
from treadle.frontends.programs.operations import load, load_at
from treadle.frontends.programs.shapes import (
    Extent,
    Family,
    Options,
    Shape,
    TileSizes,
    ceil_div,
    head_parts,
    value_columns,
)
from treadle.frontends.programs.softmax import score_products, softmax_step
from treadle.ir.tile.program import Invariant, Memory, Tile, TileOperation, TileProgram


def _complete(shape: Shape) -> Shape:
    complete_heads(shape)
    return shape


def _body(
    shape: Shape, sizes: TileSizes, dtype: str, looked_up: bool
) -> tuple[tuple[Invariant, ...], tuple[TileOperation, ...]]:
    parts = head_parts(shape["qk_head_dim"], "qk_head_dim")
    wide = value_columns(shape["v_head_dim"])
    rows, columns = sizes["block_m"], sizes["block_n"]
    names = [f"_{index}" for index in range(len(parts))] if len(parts) > 1 else [""]
    keys = tuple(f"load_k{name}" for name in names)
    pages = ("load_pages",) if looked_up else ()
    operations = [load("load_pages", (columns,), "int32", "page of each key")] if looked_up else []
    for key, depth in zip(keys, parts, strict=True):
        operations.append(load_at(key, pages, (columns, depth), dtype, "keys"))
    operations.append(load_at("load_v", pages, (columns, wide), dtype, "values"))
    invariants = tuple(
        Invariant(f"q{name}", Tile((rows, depth), dtype, Memory.SHARED))
        for name, depth in zip(names, parts, strict=True)
    )
    operations += score_products(tuple(f"q{name}" for name in names), keys, parts, rows, columns, "")
    operations += softmax_step(rows, columns, wide, "load_v", dtype)
    return invariants, tuple(operations)


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    invariants, operations = _body(shape, sizes, str(options["dtype"]), options["lookup"] == "tile")
    return TileProgram(
        name="attention_paged",
        family="attention_paged",
        operations=operations,
        trips=ceil_div(ceil_div(shape["kv_seq"], sizes["block_n"]), sizes["splits"]),
        instances=decode_instances(shape, sizes),
        shape=shape,
        tile_sizes=sizes,
        invariants=invariants,
        warps=8 if shape["v_head_dim"] > 256 else 4,
        options=options,
    )


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    return decode_tiles(shape, options)


FAMILY = Family(
    name="attention_paged",
    summary="one query per sequence against a paged cache named by a block table, cut along the keys",
    shape={
        "batch": Extent("sequences"),
        "heads": Extent("query heads"),
        "kv_heads": Extent("key-value heads; 0 is as many as query heads", 0, 0),
        "kv_seq": Extent("keys per sequence (the longest)"),
        "page_size": Extent("keys of one page", 16, 1, 65536),
        "qk_head_dim": Extent("head dimension of queries and keys"),
        "v_head_dim": Extent("head dimension of values; 0 is that of queries", 0, 0),
    },
    sizes=DECODE_SIZES,
    tiles=_tiles,
    assemble=_assemble,
    complete=_complete,
    options={"lookup": ("tile", "copy")},
)
