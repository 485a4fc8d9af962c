"""Layer normalization of rows: out = (x - mean(x)) * rsqrt(variance(x) + epsilon) * weight + bias.

One iteration takes `block_rows` whole rows; an instance walks over `rows_per_instance` of them. The variance is that of
the centred values, which loses no digits where the mean is large.
"""

from __future__ import annotations

from treadle.frontends.programs.operations import compute, load, store
from treadle.frontends.programs.rms_norm import ROW_SHAPE, ROW_SIZES, check_rows, row_tiles
from treadle.frontends.programs.shapes import Family, Options, Shape, TileSizes, ceil_div, next_power_of_two
from treadle.ir.tile.program import Invariant, Memory, OperationKind, Tile, TileOperation, TileProgram


def _body(block: tuple[int, int], dtype: str) -> tuple[TileOperation, ...]:
    row = (block[0],)
    elementwise = OperationKind.ELEMENTWISE
    return (
        load("load_x", block, dtype),
        compute("wide", OperationKind.CONVERT, ("load_x",), block),
        compute("mean", OperationKind.REDUCE, ("wide",), row, note="sum / columns"),
        compute("centred", elementwise, ("wide", "mean"), block),
        compute("squares", elementwise, ("centred",), block),
        compute("variance", OperationKind.REDUCE, ("squares",), row, note="sum / columns"),
        compute("inverse", elementwise, ("variance",), row, work=4, note="rsqrt"),
        compute("scaled", elementwise, ("centred", "inverse", "weight", "bias"), block, work=2),
        compute("low", OperationKind.CONVERT, ("scaled",), block, dtype),
        store("store_out", "low", block, dtype),
    )


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    check_rows("layer_norm", sizes)
    block_rows, columns = sizes["block_rows"], next_power_of_two(shape["columns"])
    vector = Tile((columns,), "float32", Memory.REGISTER)
    return TileProgram(
        name="layer_norm",
        family="layer_norm",
        operations=_body((block_rows, columns), str(options["dtype"])),
        trips=sizes["rows_per_instance"] // block_rows,
        instances=ceil_div(shape["rows"], sizes["rows_per_instance"]),
        shape=shape,
        tile_sizes=sizes,
        invariants=(Invariant("weight", vector), Invariant("bias", vector)),
        warps=max(4, min(16, block_rows * columns // 2048)),
        options=options,
    )


FAMILY = Family(
    name="layer_norm",
    summary="out (rows, columns) = (x - mean) * rsqrt(variance + epsilon) * weight + bias",
    shape=ROW_SHAPE,
    sizes=ROW_SIZES,
    tiles=row_tiles,
    assemble=_assemble,
)
