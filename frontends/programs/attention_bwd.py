"""Attention backward: one block of keys and values walks over the queries that see it, five products per step.

Everything is transposed, so that keys are rows: the weights and the scores' gradients are the first operands of the
products into dv and dk as they lie in registers. The share of dq that a block makes is added up in global memory, as in
FlashAttention-2 (arXiv 2307.08691, section 3.2). Grouped-query heads are one loop per query head, since dk and dv sum
over them. A kernel before it makes delta = rowsum(dout * out), one behind it rounds dq.

With sub-tiles, blocks of keys are cut for warp groups, and so are the columns of dq, whose products then take the
scores' gradients of every sub-tile, its own first (FlashAttention-3, arXiv 2407.08608). Sub-tiles do the same: each
has numbers of queries of its own, so that they can run half an interval apart without handing anything but gradients.
"""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.programs.attention_fwd import HEAD_SHAPE, check_causal, complete_heads
from treadle.frontends.programs.errors import InvalidTileSize, UnsupportedHeadDimension
from treadle.frontends.programs.operations import compute, load, mma, store
from treadle.frontends.programs.shapes import (
    Family,
    Options,
    Shape,
    Size,
    TileSizes,
    ceil_div,
    next_power_of_two,
)
from treadle.ir.tile.program import Invariant, Memory, OperationKind, Tile, TileOperation, TileProgram

NARROW = 32
"""Keys of the narrowest block; with wide heads it runs on 8 warps, which hold its accumulators without spills."""
SMALLEST_PRODUCT = 64
"""Rows of the smallest asynchronous product (wgmma and tcgen05, PTX ISA): dq is not cut into less."""


def _complete(shape: Shape) -> Shape:
    shape["kv_seq"] = shape["kv_seq"] or shape["seq"]
    complete_heads(shape)
    check_causal("attention_bwd", shape)
    for key in ("qk_head_dim", "v_head_dim"):
        if next_power_of_two(shape[key]) != shape[key] or shape[key] > 256:
            raise UnsupportedHeadDimension(key=key, found=shape[key], expected="16, 32, 64, 128 or 256")
    return shape


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    keys = max(16, min(128, next_power_of_two(shape["kv_seq"])))
    queries = max(16, min(128, next_power_of_two(shape["seq"])))
    wide = shape["qk_head_dim"] + shape["v_head_dim"] > 256
    half, quarter = max(16, queries // 2), max(16, queries // 4)
    choices = [(quarter, max(16, keys // 2)), (16, max(16, keys // 2))] if wide else []
    choices += [(half, keys), (queries, keys), (quarter, keys)]
    choices += [(half, max(16, keys // 2)), (quarter, max(16, keys // 2))]
    tiles = [{"block_m": m, "block_n": n, "sub_tiles": 1} for m, n in dict.fromkeys(choices)]
    if keys // 2 >= SMALLEST_PRODUCT:
        # FlashAttention-3's tile on Hopper: a half of the keys, with its accumulators, for each of two warp groups.
        tiles.append({"block_m": half, "block_n": keys, "sub_tiles": 2})
    if keys // 4 >= NARROW:
        # Slow, but its accumulators leave room where Triton's own layouts take more registers than are planned.
        tiles.append({"block_m": quarter, "block_n": keys // 4, "sub_tiles": 1})
        # Where shared memory is small, fewer queries leave room for as many keys.
        tiles.append({"block_m": 16, "block_n": keys // 2, "sub_tiles": 1})
    return tuple(tiles)


def _gradients_of_scores(
    shape: Shape, rows: int, columns: int, dtype: str, t: str, masked: bool
) -> list[TileOperation]:
    """Return the operations from the loads to `slopes_low` and `weights_low`, both (keys, queries).

    In this order they need the fewest registers: weights are rounded when nothing reads them any more.
    """
    block = (rows, columns)
    scores = f"scores{t}"
    operations = [mma(scores, (f"k{t}", "load_q"), block, shape["qk_head_dim"], note="K Q^T")]
    if masked:
        operations.append(compute(f"masked{t}", OperationKind.ELEMENTWISE, (scores,), block, note="-inf outside"))
        scores = f"masked{t}"
    return [
        *operations,
        mma(f"dweights{t}", (f"v{t}", "load_dout"), block, shape["v_head_dim"], note="V dO^T"),
        compute(f"shifted{t}", OperationKind.ELEMENTWISE, (scores, f"load_lse{t}"), block, note="scale * score - lse"),
        compute(f"weights{t}", OperationKind.EXP2, (f"shifted{t}",), block),
        compute(
            f"slopes{t}",
            OperationKind.ELEMENTWISE,
            (f"dweights{t}", f"weights{t}", f"load_delta{t}"),
            block,
            work=2,
            note="weight * (dweight - delta)",
        ),
        compute(f"slopes_low{t}", OperationKind.CONVERT, (f"slopes{t}",), block, dtype),
        compute(f"weights_low{t}", OperationKind.CONVERT, (f"weights{t}",), block, dtype),
    ]


def _queries_gradient(shape: Shape, rows: int, columns: int, suffixes: list[str]) -> list[TileOperation]:
    """Return the products that make dq^T (head dimension, queries), summed over the sub-tiles, and their stores.

    A piece of the columns begins with the sub-tile of its number: all pieces then look alike.
    """
    depth = shape["qk_head_dim"]
    pieces = len(suffixes) if depth // len(suffixes) >= SMALLEST_PRODUCT else 1
    operations: list[TileOperation] = []
    for piece in range(pieces):
        own = suffixes[piece] if pieces > 1 else ""
        for step in range(len(suffixes)):
            t = suffixes[(piece + step) % len(suffixes)]
            name = f"dq{own}" if step == len(suffixes) - 1 else f"dq_step{step}{own}"
            before = (operations[-1].name,) if step else ()
            operands = (f"k{t}", f"slopes_low{t}", *before)
            operations.append(mma(name, operands, (depth // pieces, columns), rows, note="K^T dS"))
        operations.append(store(f"store_dq{own}", f"dq{own}", (depth // pieces, columns), "float32", "added up"))
    return operations


def _body(
    shape: Shape, sizes: TileSizes, dtype: str, masked: bool
) -> tuple[tuple[Invariant, ...], tuple[TileOperation, ...]]:
    subs, columns = sizes["sub_tiles"], sizes["block_m"]
    rows = sizes["block_n"] // subs
    suffixes = [f"_{index}" for index in range(subs)] if subs > 1 else [""]
    depth, wide = shape["qk_head_dim"], shape["v_head_dim"]
    invariants: list[Invariant] = []
    operations = [
        load("load_q", (columns, depth), dtype, "queries"),
        load("load_dout", (columns, wide), dtype, "gradient of the output"),
    ]
    for t in suffixes:
        operations.append(load(f"load_lse{t}", (1, columns), "float32", "log-sum-exp of each query"))
        operations.append(load(f"load_delta{t}", (1, columns), "float32"))
    for t in suffixes:
        invariants.append(Invariant(f"k{t}", Tile((rows, depth), dtype, Memory.SHARED)))
        invariants.append(Invariant(f"v{t}", Tile((rows, wide), dtype, Memory.SHARED)))
        operations += _gradients_of_scores(shape, rows, columns, dtype, t, masked)
        operations.append(mma(f"dv{t}", (f"weights_low{t}", "load_dout", f"dv{t}@1"), (rows, wide), columns))
        operations.append(mma(f"dk{t}", (f"slopes_low{t}", "load_q", f"dk{t}@1"), (rows, depth), columns))
    operations += _queries_gradient(shape, rows, columns, suffixes)
    return tuple(invariants), tuple(operations)


def query_tiles(shape: Shape, block_m: int, block_n: int) -> tuple[int, int]:
    """Return (tiles of queries that all blocks of keys of one head visit, those of them that need a mask)."""
    blocks, queries = ceil_div(shape["kv_seq"], block_n), shape["seq"]
    if not shape["causal"]:
        return blocks * ceil_div(queries, block_m), 0
    offset = shape["kv_seq"] - queries
    visited = masked = 0
    for block in range(blocks):
        first = max(0, block * block_n - offset)
        visited += ceil_div(queries, block_m) - first // block_m
        seen_by_all = max(0, min((block + 1) * block_n, shape["kv_seq"]) - 1 - offset)
        masked += ceil_div(min(seen_by_all, queries), block_m) - first // block_m
    return visited, masked


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    if sizes["block_n"] // sizes["sub_tiles"] < 16:
        raise InvalidTileSize(
            family="attention_bwd", key="sub_tiles", found=sizes["sub_tiles"], expected="sub-tiles of at least 16 rows"
        )
    dtype = str(options["dtype"])
    wide = shape["qk_head_dim"] + shape["v_head_dim"] >= 128
    blocks = ceil_div(shape["kv_seq"], sizes["block_n"])
    visited, cut = query_tiles(shape, sizes["block_m"], sizes["block_n"])
    trips, cut = ceil_div(visited, blocks), ceil_div(cut, blocks)
    invariants, operations = _body(shape, sizes, dtype, masked=False)
    program = TileProgram(
        name="attention_bwd",
        family="attention_bwd",
        operations=operations,
        trips=trips - cut if cut < trips else trips,
        instances=shape["batch"] * shape["kv_heads"] * blocks,
        shape=shape,
        tile_sizes=sizes,
        invariants=invariants,
        warps=8 if sizes["block_n"] >= 128 or (sizes["block_n"] == NARROW and wide) else 4,
        options=options,
    )
    nested = replace(program, repeats=shape["heads"] // shape["kv_heads"])
    if not 0 < cut < trips:
        return nested
    name, body = "attention_bwd_masked", _body(shape, sizes, dtype, masked=True)[1]
    return replace(nested, before=(replace(program, name=name, family=name, operations=body, trips=cut),))


FAMILY = Family(
    name="attention_bwd",
    summary="gradients dq, dk and dv of softmax(Q K^T * scale) V, given the output, its gradient and log-sum-exp",
    shape=HEAD_SHAPE,
    sizes={
        "block_m": Size("queries of one iteration", most=256),
        "block_n": Size("keys of one program instance", most=256),
        "sub_tiles": Size("independent key sub-tiles of one instance", least=1, most=4),
    },
    tiles=_tiles,
    assemble=_assemble,
    complete=_complete,
)
