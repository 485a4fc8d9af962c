"""Two products of the same activations in one kernel: x (m, k) @ a (n, k)^T and x @ b (n, k)^T.

`combine` says what becomes of the two tiles: both are stored, or their sum or product is. The activations are loaded
once for both.
"""

from __future__ import annotations

from treadle.frontends.programs.gemm import BLOCK_SIZES, MATRIX_SHAPE, pair_tiles, product_pair
from treadle.frontends.programs.shapes import Family, Options, Shape, TileSizes
from treadle.ir.tile.program import TileProgram

WEIGHTS = (("first", "load_a", "first weight"), ("second", "load_b", "second weight"))


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    return product_pair("dual_gemm", WEIGHTS, shape, sizes, options)


FAMILY = Family(
    name="dual_gemm",
    summary="x (m, k) @ a (n, k)^T and x @ b (n, k)^T: both, their sum or their product",
    shape=MATRIX_SHAPE,
    sizes=BLOCK_SIZES,
    tiles=pair_tiles,
    assemble=_assemble,
    options={"combine": ("both", "sum", "product")},
)
