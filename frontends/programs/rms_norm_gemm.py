"""Root-mean-square normalization and the product behind it in one kernel: out = rms_norm(x) (m, k) @ b (n, k)^T.

`form=two_loops`: one loop over k sums the squares of a block of rows, a second normalizes and multiplies; what is
multiplied is rounded as an unfused norm would round it. `form=one_loop`: the squares are summed beside the product of
x * weight, and the finished rows are scaled; x is read once.
"""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.programs.gemm import BLOCK_SIZES, MATRIX_SHAPE, product_tiles, product_warps
from treadle.frontends.programs.operations import compute, load, mma
from treadle.frontends.programs.shapes import Family, Options, Shape, TileSizes, ceil_div
from treadle.ir.tile.program import Invariant, Memory, OperationKind, Tile, TileOperation, TileProgram


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    return product_tiles(shape["m"], shape["n"], shape["k"])


def _squares(rows: int, depth: int) -> tuple[TileOperation, ...]:
    """Return the sum of squares of the rows of `wide`, carried over the iterations."""
    return (
        compute("squares", OperationKind.ELEMENTWISE, ("wide",), (rows, depth)),
        compute("tile_sum", OperationKind.REDUCE, ("squares",), (rows,), note="sum over columns"),
        compute("sum_squares", OperationKind.ELEMENTWISE, ("sum_squares@1", "tile_sum"), (rows,)),
    )


def _product(sizes: TileSizes, dtype: str, two_loops: bool) -> tuple[TileOperation, ...]:
    rows, columns, depth = sizes["block_m"], sizes["block_n"], sizes["block_k"]
    factors = ("wide", "load_weight", "inverse_rms") if two_loops else ("wide", "load_weight")
    return (
        load("load_x", (rows, depth), dtype, "activations"),
        load("load_weight", (depth,), dtype, "weight of the norm"),
        load("load_b", (columns, depth), dtype, "weight of the product"),
        compute("wide", OperationKind.CONVERT, ("load_x",), (rows, depth)),
        *(() if two_loops else _squares(rows, depth)),
        compute("scaled", OperationKind.ELEMENTWISE, factors, (rows, depth), work=len(factors) - 1),
        compute("low", OperationKind.CONVERT, ("scaled",), (rows, depth), dtype),
        mma("acc", ("low", "load_b", "acc@1"), (rows, columns), depth),
    )


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    dtype, two_loops = str(options["dtype"]), options["form"] == "two_loops"
    rows, depth = sizes["block_m"], sizes["block_k"]
    statistics = (Invariant("inverse_rms", Tile((rows,), "float32", Memory.REGISTER)),)
    program = TileProgram(
        name="rms_norm_gemm",
        family="rms_norm_gemm",
        operations=_product(sizes, dtype, two_loops),
        trips=ceil_div(shape["k"], depth),
        instances=ceil_div(shape["m"], rows) * ceil_div(shape["n"], sizes["block_n"]),
        shape=shape,
        tile_sizes=sizes,
        invariants=statistics if two_loops else (),
        warps=product_warps(sizes),
        options=options,
    )
    if not two_loops:
        return program
    name = "rms_norm_gemm_squares"
    operations = (
        load("load_x", (rows, depth), dtype, "activations"),
        compute("wide", OperationKind.CONVERT, ("load_x",), (rows, depth)),
        *_squares(rows, depth),
    )
    return replace(program, before=(replace(program, name=name, family=name, operations=operations, invariants=()),))


FAMILY = Family(
    name="rms_norm_gemm",
    summary="out (m, n) = (x * rsqrt(mean(x^2) + epsilon) * weight) (m, k) @ b (n, k)^T",
    shape=MATRIX_SHAPE,
    sizes=BLOCK_SIZES,
    tiles=_tiles,
    assemble=_assemble,
    options={"form": ("two_loops", "one_loop")},
)
