"""Grouped matrix product of a mixture of experts: rows sorted by expert, one weight per expert.

out (rows, n): the rows of expert e are a[offsets[e] : offsets[e + 1]] (., k) @ weight[e] (n, k)^T, where
rows = tokens * top_k. The instance count is that of evenly spread routing; the kernel takes any routing.
"""

from __future__ import annotations

from treadle.frontends.programs.errors import InvalidExtent
from treadle.frontends.programs.gemm import BLOCK_SIZES, product_tiles, product_warps
from treadle.frontends.programs.operations import load, mma
from treadle.frontends.programs.shapes import Extent, Family, Options, Shape, TileSizes, ceil_div
from treadle.ir.tile.program import TileProgram


def _complete(shape: Shape) -> Shape:
    if shape["top_k"] > shape["experts"]:
        raise InvalidExtent(
            family="grouped_gemm",
            key="top_k",
            found=shape["top_k"],
            expected=f"at most the number of experts, {shape['experts']}",
        )
    return shape


def _even_rows(shape: Shape) -> tuple[int, int]:
    """Return (experts with work, rows of each) under evenly spread routing."""
    rows = shape["tokens"] * shape["top_k"]
    active = min(shape["experts"], rows)
    return active, ceil_div(rows, active)


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    return product_tiles(_even_rows(shape)[1], shape["n"], shape["k"])


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    dtype = str(options["dtype"])
    rows, columns, depth = sizes["block_m"], sizes["block_n"], sizes["block_k"]
    active, expert_rows = _even_rows(shape)
    return TileProgram(
        name="grouped_gemm",
        family="grouped_gemm",
        operations=(
            load("load_a", (rows, depth), dtype, "activations"),
            load("load_b", (columns, depth), dtype, "weight of the expert"),
            mma("acc", ("load_a", "load_b", "acc@1"), (rows, columns), depth),
        ),
        trips=ceil_div(shape["k"], depth),
        instances=active * ceil_div(expert_rows, rows) * ceil_div(shape["n"], columns),
        shape=shape,
        tile_sizes=sizes,
        warps=product_warps(sizes),
        options=options,
    )


FAMILY = Family(
    name="grouped_gemm",
    summary="per expert: out (rows, n) = a (rows, k) @ weight (n, k)^T, rows sorted by expert",
    shape={
        "experts": Extent("experts, one weight each", most=1024),
        "tokens": Extent("tokens before routing"),
        "top_k": Extent("experts per token", 1),
        "n": Extent("output features of an expert"),
        "k": Extent("input features of an expert"),
    },
    sizes=BLOCK_SIZES,
    tiles=_tiles,
    assemble=_assemble,
    complete=_complete,
)
