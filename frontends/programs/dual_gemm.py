"""Two products of the same activations in one kernel: x (m, k) @ a (n, k)^T and x @ b (n, k)^T.

`combine` says what becomes of the two tiles: both are stored, or their sum or product is. The activations are loaded
once for both.
"""

from __future__ import annotations

from treadle.frontends.programs.gemm import BLOCK_SIZES, MATRIX_SHAPE, product_tiles, product_warps
from treadle.frontends.programs.operations import load, mma
from treadle.frontends.programs.shapes import Family, Options, Shape, TileSizes, ceil_div
from treadle.ir.tile.program import TileProgram


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    return product_tiles(shape["m"], shape["n"], shape["k"], accumulators=2)


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    dtype = str(options["dtype"])
    rows, columns, depth = sizes["block_m"], sizes["block_n"], sizes["block_k"]
    return TileProgram(
        name="dual_gemm",
        family="dual_gemm",
        operations=(
            load("load_x", (rows, depth), dtype, "activations"),
            load("load_a", (columns, depth), dtype, "first weight"),
            load("load_b", (columns, depth), dtype, "second weight"),
            mma("first", ("load_x", "load_a", "first@1"), (rows, columns), depth),
            mma("second", ("load_x", "load_b", "second@1"), (rows, columns), depth),
        ),
        trips=ceil_div(shape["k"], depth),
        instances=ceil_div(shape["m"], rows) * ceil_div(shape["n"], columns),
        shape=shape,
        tile_sizes=sizes,
        warps=product_warps(sizes, accumulators=2),
        options=options,
    )


FAMILY = Family(
    name="dual_gemm",
    summary="x (m, k) @ a (n, k)^T and x @ b (n, k)^T: both, their sum or their product",
    shape=MATRIX_SHAPE,
    sizes=BLOCK_SIZES,
    tiles=_tiles,
    assemble=_assemble,
    options={"combine": ("both", "sum", "product")},
)
