"""Gate and up projection of a gated MLP in one kernel: out (m, n) = silu(x @ gate^T) * (x @ up^T).

`n` counts output features, so the two weights are (n, k) each; the activations are loaded once for both products.
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
        name="swiglu",
        family="swiglu",
        operations=(
            load("load_x", (rows, depth), dtype, "activations"),
            load("load_gate", (columns, depth), dtype, "gate weight"),
            load("load_up", (columns, depth), dtype, "up weight"),
            mma("gate", ("load_x", "load_gate", "gate@1"), (rows, columns), depth),
            mma("up", ("load_x", "load_up", "up@1"), (rows, columns), depth),
        ),
        trips=ceil_div(shape["k"], depth),
        instances=ceil_div(shape["m"], rows) * ceil_div(shape["n"], columns),
        shape=shape,
        tile_sizes=sizes,
        warps=product_warps(sizes, accumulators=2),
        options=options,
    )


FAMILY = Family(
    name="swiglu",
    summary="out (m, n) = silu(x (m, k) @ gate (n, k)^T) * (x @ up (n, k)^T)",
    shape=MATRIX_SHAPE,
    sizes=BLOCK_SIZES,
    tiles=_tiles,
    assemble=_assemble,
)
