"""Gate and up projection of a gated MLP in one kernel: out (m, n) = silu(x @ gate^T) * (x @ up^T).

`n` counts output features, so the two weights are (n, k) each; the activations are loaded once for both products.
"""

from __future__ import annotations

from treadle.frontends.programs.gemm import BLOCK_SIZES, MATRIX_SHAPE, pair_tiles, product_pair
from treadle.frontends.programs.shapes import Family, Options, Shape, TileSizes
from treadle.ir.tile.program import TileProgram

WEIGHTS = (("gate", "load_gate", "gate weight"), ("up", "load_up", "up weight"))


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    return product_pair("swiglu", WEIGHTS, shape, sizes, options)


FAMILY = Family(
    name="swiglu",
    summary="out (m, n) = silu(x (m, k) @ gate (n, k)^T) * (x @ up (n, k)^T)",
    shape=MATRIX_SHAPE,
    sizes=BLOCK_SIZES,
    tiles=pair_tiles,
    assemble=_assemble,
)
