"""Matrix product of activations and a weight: out (m, n) = a (m, k) @ b (n, k)^T, as a linear layer stores it."""

from __future__ import annotations

from treadle.frontends.programs.operations import load, mma
from treadle.frontends.programs.shapes import (
    Extent,
    Family,
    Options,
    Shape,
    Size,
    TileSizes,
    ceil_div,
    next_power_of_two,
)
from treadle.ir.tile.program import TileProgram

BLOCK_SIZES = {
    "block_m": Size("rows of the output tile", most=256),
    "block_n": Size("columns of the output tile", most=256),
    "block_k": Size("contracted extent of one iteration", most=256),
}
MATRIX_SHAPE = {
    "m": Extent("rows of the activations"),
    "n": Extent("rows of the weight: output features"),
    "k": Extent("contracted extent: input features"),
}

_LARGE = ((128, 256, 64), (256, 128, 64), (128, 128, 64), (128, 128, 128), (64, 256, 64), (64, 128, 64), (64, 64, 128))


def product_tiles(m: int, n: int, k: int, accumulators: int = 1) -> tuple[TileSizes, ...]:
    """Return tile sizes for an (m, n, k) product, cut to its extents, the usual choice first.

    The accumulators of one instance stay within 128 registers of each of 256 threads.
    """
    rows = max(16, next_power_of_two(m))
    columns = max(16, min(256, next_power_of_two(n)))
    depth = max(16, next_power_of_two(k))
    choices = [(min(tm, rows), min(tn, columns), min(tk, depth)) for tm, tn, tk in _LARGE]
    if rows <= 64:
        narrow = ((rows, 64, 128), (rows, 128, 128), (rows, 32, 256), (rows, 64, 256))
        choices = [(tm, min(tn, columns), min(tk, depth)) for tm, tn, tk in narrow]
    fitting = [choice for choice in choices if choice[0] * choice[1] * accumulators <= 128 * 256]
    return tuple({"block_m": m, "block_n": n, "block_k": k} for m, n, k in dict.fromkeys(fitting))


def product_warps(sizes: TileSizes, accumulators: int = 1) -> int:
    """Return the warps of one instance: at most 128 float32 accumulators per thread and 64 rows per warp group."""
    elements = sizes["block_m"] * sizes["block_n"] * accumulators
    return 8 if elements > 128 * 128 or (sizes["block_m"] >= 128 and elements >= 128 * 128) else 4


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    return product_tiles(shape["m"], shape["n"], shape["k"])


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    dtype = str(options["dtype"])
    rows, columns, depth = sizes["block_m"], sizes["block_n"], sizes["block_k"]
    return TileProgram(
        name="gemm",
        family="gemm",
        operations=(
            load("load_a", (rows, depth), dtype, "activations"),
            load("load_b", (columns, depth), dtype, "weight"),
            mma("acc", ("load_a", "load_b", "acc@1"), (rows, columns), depth),
        ),
        trips=ceil_div(shape["k"], depth),
        instances=ceil_div(shape["m"], rows) * ceil_div(shape["n"], columns),
        shape=shape,
        tile_sizes=sizes,
        warps=product_warps(sizes),
        options=options,
    )


def pair_tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    """Return tile sizes for two products that share their activations, the usual choice first."""
    return product_tiles(shape["m"], shape["n"], shape["k"], accumulators=2)


def product_pair(
    family: str, weights: tuple[tuple[str, str, str], ...], shape: Shape, sizes: TileSizes, options: Options
) -> TileProgram:
    """Return the loop of two products of the same activations, which are loaded once for both.

    Args:
        family: name of the family and of the program.
        weights: per product its name, the name of its weight's load, and what the weight is.
        shape, sizes, options: as the family has them.
    """
    dtype = str(options["dtype"])
    rows, columns, depth = sizes["block_m"], sizes["block_n"], sizes["block_k"]
    return TileProgram(
        name=family,
        family=family,
        operations=(
            load("load_x", (rows, depth), dtype, "activations"),
            *(load(weight, (columns, depth), dtype, note) for _, weight, note in weights),
            *(mma(name, ("load_x", weight, f"{name}@1"), (rows, columns), depth) for name, weight, _ in weights),
        ),
        trips=ceil_div(shape["k"], depth),
        instances=ceil_div(shape["m"], rows) * ceil_div(shape["n"], columns),
        shape=shape,
        tile_sizes=sizes,
        warps=product_warps(sizes, accumulators=len(weights)),
        options=options,
    )


FAMILY = Family(
    name="gemm",
    summary="out (m, n) = a (m, k) @ b (n, k)^T",
    shape=MATRIX_SHAPE,
    sizes=BLOCK_SIZES,
    tiles=_tiles,
    assemble=_assemble,
)
