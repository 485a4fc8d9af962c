"""Attention forward (prefill, training forward): one block of queries walks over the keys and values.

The steady loop is that of the tiles without a mask; the tiles that the diagonal or the end of the keys cuts are the
same body with one more elementwise step and are peeled off by the generated kernel. Causal masks are aligned at the
bottom right: query i of `seq` sees the keys up to i + kv_seq - seq.
"""

from __future__ import annotations

from treadle.frontends.programs.errors import InvalidExtent, InvalidTileSize
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


def _complete(shape: Shape) -> Shape:
    shape["kv_seq"] = shape["kv_seq"] or shape["seq"]
    shape["kv_heads"] = shape["kv_heads"] or shape["heads"]
    shape["v_head_dim"] = shape["v_head_dim"] or shape["qk_head_dim"]
    check_heads(shape)
    head_parts(shape["qk_head_dim"], "qk_head_dim")
    value_columns(shape["v_head_dim"])
    if shape["causal"] and shape["seq"] > shape["kv_seq"]:
        raise InvalidExtent(
            family="attention_fwd",
            key="seq",
            found=shape["seq"],
            expected=f"with a causal mask at most kv_seq = {shape['kv_seq']} queries: the first ones would see no key",
        )
    return shape


def key_tiles(shape: Shape, block_m: int, block_n: int) -> int:
    """Return how many key tiles the query blocks of one head visit together."""
    blocks = ceil_div(shape["seq"], block_m)
    if not shape["causal"]:
        return blocks * ceil_div(shape["kv_seq"], block_n)
    offset = shape["kv_seq"] - shape["seq"]
    ends = (min((block + 1) * block_m, shape["seq"]) + offset for block in range(blocks))
    return sum(ceil_div(end, block_n) for end in ends)


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    """Sub-tiles are offered on request only: one after the other they gain nothing, they are for warp groups."""
    rows = max(16, min(128, next_power_of_two(shape["seq"])))
    wide = shape["qk_head_dim"] + shape["v_head_dim"] > 256
    columns = max(16, min(64 if wide else 128, next_power_of_two(shape["kv_seq"])))
    half, quarter = max(16, columns // 2), max(16, columns // 4)
    choices = [(rows, columns), (rows, half), (rows, quarter), (max(16, rows // 2), half)]
    return tuple({"block_m": m, "block_n": n, "sub_tiles": 1} for m, n in dict.fromkeys(choices))


def _body(shape: Shape, sizes: TileSizes, dtype: str) -> tuple[tuple[Invariant, ...], tuple[TileOperation, ...]]:
    parts = head_parts(shape["qk_head_dim"], "qk_head_dim")
    wide = value_columns(shape["v_head_dim"])
    rows, columns = sizes["block_m"] // sizes["sub_tiles"], sizes["block_n"]
    suffixes = [f"_{index}" for index in range(sizes["sub_tiles"])] if sizes["sub_tiles"] > 1 else [""]
    part_names = [f"_{index}" for index in range(len(parts))] if len(parts) > 1 else [""]
    keys = tuple(f"load_k{name}" for name in part_names)
    invariants = tuple(
        Invariant(f"q{name}{suffix}", Tile((rows, depth), dtype, Memory.SHARED))
        for suffix in suffixes
        for name, depth in zip(part_names, parts, strict=True)
    )
    operations = [load(key, (columns, depth), dtype, "keys") for key, depth in zip(keys, parts, strict=True)]
    operations.append(load("load_v", (columns, wide), dtype, "values"))
    for suffix in suffixes:
        queries = tuple(f"q{name}{suffix}" for name in part_names)
        operations += score_products(queries, keys, parts, rows, columns, suffix)
        operations += softmax_step(rows, columns, wide, "load_v", dtype, suffix)
    return invariants, tuple(operations)


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    if sizes["block_m"] // sizes["sub_tiles"] < 16:
        raise InvalidTileSize(
            family="attention_fwd", key="sub_tiles", found=sizes["sub_tiles"], expected="sub-tiles of at least 16 rows"
        )
    invariants, operations = _body(shape, sizes, str(options["dtype"]))
    heads = shape["batch"] * shape["heads"]
    blocks = ceil_div(shape["seq"], sizes["block_m"])
    return TileProgram(
        name="attention_fwd",
        family="attention_fwd",
        operations=operations,
        trips=ceil_div(key_tiles(shape, sizes["block_m"], sizes["block_n"]), blocks),
        instances=heads * blocks,
        shape=shape,
        tile_sizes=sizes,
        invariants=invariants,
        warps=8 if sizes["block_m"] >= 128 else 4,
        options=options,
    )


FAMILY = Family(
    name="attention_fwd",
    summary="softmax(Q K^T * scale) V for whole sequences; grouped-query and multi-head latent (192/128) shapes",
    shape={
        "batch": Extent("sequences", 1),
        "heads": Extent("query heads"),
        "kv_heads": Extent("key-value heads; 0 is as many as query heads", 0, 0),
        "seq": Extent("queries per sequence"),
        "kv_seq": Extent("keys per sequence; 0 is as many as queries", 0, 0),
        "qk_head_dim": Extent("head dimension of queries and keys"),
        "v_head_dim": Extent("head dimension of values; 0 is that of queries", 0, 0),
        "causal": Extent("1 masks later keys (bottom-right aligned), 0 does not", 0, 0, 1),
    },
    sizes={
        "block_m": Size("queries of one program instance", most=256),
        "block_n": Size("keys of one iteration", most=256),
        "sub_tiles": Size("independent query sub-tiles of one instance", least=1, most=4),
    },
    tiles=_tiles,
    assemble=_assemble,
    complete=_complete,
)
