"""Attention forward (prefill, training forward): one block of queries walks over the keys and values.

The steady loop is that of the tiles without a mask; the tiles that the diagonal or the end of the keys cuts are a
loop of their own after it, the same body with one more elementwise step. Causal masks are aligned at the bottom right:
query i of `seq` sees the keys up to i + kv_seq - seq.
"""

from __future__ import annotations

from dataclasses import replace

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


def complete_heads(shape: Shape) -> None:
    """Fill in the key-value heads and the head dimension of values; raises as `build`."""
    shape["kv_heads"] = shape["kv_heads"] or shape["heads"]
    shape["v_head_dim"] = shape["v_head_dim"] or shape["qk_head_dim"]
    check_heads(shape)
    head_parts(shape["qk_head_dim"], "qk_head_dim")
    value_columns(shape["v_head_dim"])


def _complete(shape: Shape) -> Shape:
    shape["kv_seq"] = shape["kv_seq"] or shape["seq"]
    complete_heads(shape)
    check_causal("attention_fwd", shape)
    return shape


def check_causal(family: str, shape: Shape) -> None:
    """Refuse queries before the first key under a causal mask; raises InvalidExtent."""
    if shape["causal"] and shape["seq"] > shape["kv_seq"]:
        raise InvalidExtent(
            family=family,
            key="seq",
            found=shape["seq"],
            expected=f"with a causal mask at most kv_seq = {shape['kv_seq']} queries: the first ones would see no key",
        )


def key_tiles(shape: Shape, block_m: int, block_n: int) -> int:
    """Return how many key tiles the query blocks of one head visit together."""
    blocks = ceil_div(shape["seq"], block_m)
    if not shape["causal"]:
        return blocks * ceil_div(shape["kv_seq"], block_n)
    offset = shape["kv_seq"] - shape["seq"]
    ends = (min((block + 1) * block_m, shape["seq"]) + offset for block in range(blocks))
    return sum(ceil_div(end, block_n) for end in ends)


def whole_key_tiles(shape: Shape, block_m: int, block_n: int) -> int:
    """Return how many of those tiles every query of the block sees in full, so that they need no mask."""
    blocks = ceil_div(shape["seq"], block_m)
    if not shape["causal"]:
        return blocks * (shape["kv_seq"] // block_n)
    offset = shape["kv_seq"] - shape["seq"]
    return sum((block * block_m + offset + 1) // block_n for block in range(blocks))


def query_tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    """Return tile sizes of a walk of `seq` queries over `kv_seq` keys, the usual choice first.

    Sub-tiles are offered on request only: one after the other they gain nothing, they are for warp groups.
    """
    rows = max(16, min(128, next_power_of_two(shape["seq"])))
    wide = shape["qk_head_dim"] + shape["v_head_dim"] > 256
    columns = max(16, min(64 if wide else 128, next_power_of_two(shape["kv_seq"])))
    half, quarter = max(16, columns // 2), max(16, columns // 4)
    choices = [(rows, columns), (rows, half), (rows, quarter), (max(16, rows // 2), half)]
    return tuple({"block_m": m, "block_n": n, "sub_tiles": 1} for m, n in dict.fromkeys(choices))


def _body(
    shape: Shape, sizes: TileSizes, dtype: str, masked: bool
) -> tuple[tuple[Invariant, ...], tuple[TileOperation, ...]]:
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
        operations += softmax_step(rows, columns, wide, "load_v", dtype, suffix, masked)
    return invariants, tuple(operations)


def attention_program(
    family: str, shape: Shape, mean: Shape, instances: int, sizes: TileSizes, options: Options
) -> TileProgram:
    """Return the walk of blocks of queries over their keys.

    Args:
        family: name of the family and of the program.
        shape: the family's shape; `mean` is that of one sequence, for the trips of a block on average.
        instances: blocks of queries of all heads.
        sizes, options: as the family has them.

    Raises:
        InvalidTileSize: sub-tiles of less than 16 rows.
    """
    if sizes["block_m"] // sizes["sub_tiles"] < 16:
        raise InvalidTileSize(
            family=family, key="sub_tiles", found=sizes["sub_tiles"], expected="sub-tiles of at least 16 rows"
        )
    block_m, block_n = sizes["block_m"], sizes["block_n"]
    blocks = ceil_div(mean["seq"], block_m)
    tiles = key_tiles(mean, block_m, block_n)
    trips = ceil_div(tiles, blocks)
    cut = ceil_div(tiles - whole_key_tiles(mean, block_m, block_n), blocks)
    invariants, operations = _body(shape, sizes, str(options["dtype"]), masked=False)
    program = TileProgram(
        name=family,
        family=family,
        operations=operations,
        trips=trips - cut if cut < trips else trips,
        instances=instances,
        shape=shape,
        tile_sizes=sizes,
        invariants=invariants,
        warps=8 if block_m >= 128 else 4,
        options=options,
    )
    if not 0 < cut < trips:
        return program
    body = _body(shape, sizes, str(options["dtype"]), masked=True)[1]
    name = f"{family}_masked"
    return replace(program, after=(replace(program, name=name, family=name, operations=body, trips=cut),))


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    instances = shape["batch"] * shape["heads"] * ceil_div(shape["seq"], sizes["block_m"])
    return attention_program("attention_fwd", shape, shape, instances, sizes, options)


HEAD_SHAPE = {
    "batch": Extent("sequences", 1),
    "heads": Extent("query heads"),
    "kv_heads": Extent("key-value heads; 0 is as many as query heads", 0, 0),
    "seq": Extent("queries per sequence"),
    "kv_seq": Extent("keys per sequence; 0 is as many as queries", 0, 0),
    "qk_head_dim": Extent("head dimension of queries and keys"),
    "v_head_dim": Extent("head dimension of values; 0 is that of queries", 0, 0),
    "causal": Extent("1 masks later keys (bottom-right aligned), 0 does not", 0, 0, 1),
}
QUERY_SIZES = {
    "block_m": Size("queries of one program instance", most=256),
    "block_n": Size("keys of one iteration", most=256),
    "sub_tiles": Size("independent query sub-tiles of one instance", least=1, most=4),
}

FAMILY = Family(
    name="attention_fwd",
    summary="softmax(Q K^T * scale) V for whole sequences; grouped-query and multi-head latent (192/128) shapes",
    shape=HEAD_SHAPE,
    sizes=QUERY_SIZES,
    tiles=query_tiles,
    assemble=_assemble,
    complete=_complete,
    options={"lse": (False, True)},
)
