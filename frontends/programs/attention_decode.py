"""Attention decode: one new query per sequence against the cached keys and values, cut along the keys (split-KV).

The query heads of one key-value head are the rows of the tile, so the cache is read once per group. In the latent
form (multi-head latent attention with absorbed projections, DeepSeek-V2, arXiv 2405.04434, section 2.1) the values are
the first `v_head_dim` columns of the keys: one load feeds both products. With more than one split a second kernel
merges the partial results by their log-sum-exp.
"""

from __future__ import annotations

from treadle.frontends.programs.errors import UnsupportedHeadDimension
from treadle.frontends.programs.operations import load
from treadle.frontends.programs.shapes import (
    Extent,
    Family,
    Options,
    Shape,
    Size,
    TileSizes,
    ceil_div,
    check_heads,
    head_parts,
    next_power_of_two,
    value_columns,
)
from treadle.frontends.programs.softmax import score_products, softmax_step
from treadle.ir.tile.program import Invariant, Memory, Tile, TileOperation, TileProgram

AUTOMATIC = -1


def _complete(shape: Shape) -> Shape:
    shape["kv_heads"] = shape["kv_heads"] or shape["heads"]
    shape["v_head_dim"] = shape["v_head_dim"] or shape["qk_head_dim"]
    check_heads(shape)
    parts = head_parts(shape["qk_head_dim"], "qk_head_dim")
    value_columns(shape["v_head_dim"])
    if shape["latent"] == AUTOMATIC:
        shape["latent"] = int(shape["kv_heads"] == 1 and shape["v_head_dim"] < shape["qk_head_dim"])
    if shape["latent"] and shape["v_head_dim"] != parts[0]:
        raise UnsupportedHeadDimension(
            key="v_head_dim",
            found=shape["v_head_dim"],
            expected=f"with latent=1 the largest part of the key dimension, {parts[0]}",
        )
    return shape


NARROW = 16
"""Keys of an iteration that 4 warps share: 8 spill there, with half the registers each (CDNA3)."""


def decode_tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    """Return tile sizes of a decode, the usual choice first."""
    group = shape["heads"] // shape["kv_heads"]
    wide = shape["v_head_dim"] > 256
    rows = max(16, min(32 if wide else 64, next_power_of_two(group)))
    columns = max(16, min(64 if wide else 128, next_power_of_two(shape["kv_seq"])))
    choices: list[tuple[int, int, int]] = []
    # The narrowest fits shared memory of 64 KiB beside 512 columns of values.
    for block_n in (columns, max(16, columns // 2), *([max(16, columns // 4)] if wide else [])):
        tiles = ceil_div(shape["kv_seq"], block_n)
        splits = [1 << bit for bit in range(7) if (1 << bit) * 4 <= tiles] or [1]
        choices += [(rows, block_n, split) for split in reversed(splits[-4:])]
    return tuple({"block_m": m, "block_n": n, "splits": s} for m, n, s in dict.fromkeys(choices))


def _body(shape: Shape, sizes: TileSizes, dtype: str) -> tuple[tuple[Invariant, ...], tuple[TileOperation, ...]]:
    parts = head_parts(shape["qk_head_dim"], "qk_head_dim")
    wide = value_columns(shape["v_head_dim"])
    rows, columns = sizes["block_m"], sizes["block_n"]
    names = [f"_{index}" for index in range(len(parts))] if len(parts) > 1 else [""]
    keys = tuple(f"load_k{name}" for name in names)
    operations = [load(key, (columns, depth), dtype, "keys") for key, depth in zip(keys, parts, strict=True)]
    values = keys[0]
    if not shape["latent"]:
        values = "load_v"
        operations.append(load(values, (columns, wide), dtype, "values"))
    invariants = tuple(
        Invariant(f"q{name}", Tile((rows, depth), dtype, Memory.SHARED))
        for name, depth in zip(names, parts, strict=True)
    )
    operations += score_products(tuple(f"q{name}" for name in names), keys, parts, rows, columns, "")
    operations += softmax_step(rows, columns, wide, values, dtype)
    return invariants, tuple(operations)


def decode_instances(shape: Shape, sizes: TileSizes) -> int:
    """Return the program instances of a decode: blocks of query heads of one key-value head, times the splits."""
    group = shape["heads"] // shape["kv_heads"]
    return shape["batch"] * shape["kv_heads"] * ceil_div(group, sizes["block_m"]) * sizes["splits"]


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    invariants, operations = _body(shape, sizes, str(options["dtype"]))
    return TileProgram(
        name="attention_decode",
        family="attention_decode",
        operations=operations,
        trips=ceil_div(ceil_div(shape["kv_seq"], sizes["block_n"]), sizes["splits"]),
        instances=decode_instances(shape, sizes),
        shape=shape,
        tile_sizes=sizes,
        invariants=invariants,
        warps=8 if shape["v_head_dim"] > 256 and sizes["block_n"] > NARROW else 4,
        options=options,
    )


DECODE_SIZES = {
    "block_m": Size("query heads of one program instance", most=128),
    "block_n": Size("keys of one iteration", most=256),
    "splits": Size("pieces the keys of a sequence are cut into", least=1, most=128),
}

FAMILY = Family(
    name="attention_decode",
    summary="one query per sequence against its cache, cut along the keys; grouped-query and latent (576/512)",
    shape={
        "batch": Extent("sequences"),
        "heads": Extent("query heads"),
        "kv_heads": Extent("key-value heads; 0 is as many as query heads", 0, 0),
        "kv_seq": Extent("keys per sequence (the longest)"),
        "qk_head_dim": Extent("head dimension of queries and keys"),
        "v_head_dim": Extent("head dimension of values; 0 is that of queries", 0, 0),
        "latent": Extent(
            "1: values are the first v_head_dim columns of the keys; -1 decides (one key-value head, narrower values)",
            AUTOMATIC,
            AUTOMATIC,
            1,
        ),
    },
    sizes=DECODE_SIZES,
    tiles=decode_tiles,
    assemble=_assemble,
    complete=_complete,
)
