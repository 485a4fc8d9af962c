"""Assignment step of k-means: the nearest of the centroids for each point, without writing the distances.

The squared distance of a point x and a centroid c differs from |c|^2 - 2 x c by |x|^2, which no choice depends on. One
block of points walks over the centroids; smallest value and index are carried along. Ties go to the lower index.
"""

from __future__ import annotations

from treadle.frontends.programs.operations import compute, load, mma
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
from treadle.ir.tile.program import Invariant, Memory, OperationKind, Tile, TileOperation, TileProgram


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    rows = max(16, min(128, next_power_of_two(shape["points"])))
    columns = max(16, min(256 if shape["dimension"] <= 128 else 128, next_power_of_two(shape["centroids"])))
    half, quarter = max(16, columns // 2), max(16, columns // 4)
    choices = ((rows, half), (rows, columns), (rows, quarter), (max(16, rows // 2), half))
    return tuple({"block_m": m, "block_n": n} for m, n in dict.fromkeys(choices))


def _body(sizes: TileSizes, depth: int, dtype: str) -> tuple[TileOperation, ...]:
    rows, columns = sizes["block_m"], sizes["block_n"]
    block, row = (rows, columns), (rows,)
    return (
        load("load_c", (columns, depth), dtype, "centroids"),
        load("load_norm", (columns,), "float32", "squared norms of the centroids"),
        mma("dots", ("x", "load_c"), block, depth, note="X C^T"),
        compute("distance", OperationKind.ELEMENTWISE, ("dots", "load_norm"), block, note="norm - 2 * dot"),
        compute("tile_best", OperationKind.REDUCE, ("distance",), row, note="min over centroids"),
        compute("tile_index", OperationKind.REDUCE, ("distance", "tile_best"), row, "int32", note="first at the min"),
        compute("nearer", OperationKind.ELEMENTWISE, ("tile_best", "best@1"), row, "bool"),
        compute("best", OperationKind.ELEMENTWISE, ("nearer", "tile_best", "best@1"), row, note="running min"),
        compute("index", OperationKind.ELEMENTWISE, ("nearer", "tile_index", "index@1"), row, "int32", work=2),
    )


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    dtype, depth = str(options["dtype"]), max(16, next_power_of_two(shape["dimension"]))
    return TileProgram(
        name="kmeans_assign",
        family="kmeans_assign",
        operations=_body(sizes, depth, dtype),
        trips=ceil_div(shape["centroids"], sizes["block_n"]),
        instances=ceil_div(shape["points"], sizes["block_m"]),
        shape=shape,
        tile_sizes=sizes,
        invariants=(Invariant("x", Tile((sizes["block_m"], depth), dtype, Memory.SHARED)),),
        warps=8 if sizes["block_m"] >= 128 else 4,
        options=options,
    )


FAMILY = Family(
    name="kmeans_assign",
    summary="index (points,) of the nearest of the centroids (centroids, dimension), and the distances squared",
    shape={
        "points": Extent("points to assign"),
        "centroids": Extent("centroids to choose from"),
        "dimension": Extent("coordinates of a point", most=512),
    },
    sizes={
        "block_m": Size("points of one program instance", most=256),
        "block_n": Size("centroids of one iteration", most=256),
    },
    tiles=_tiles,
    assemble=_assemble,
)
