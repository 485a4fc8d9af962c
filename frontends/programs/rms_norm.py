"""Root-mean-square normalization of rows: out = x * rsqrt(mean(x^2) + epsilon) * weight.

One iteration takes `block_rows` whole rows; an instance walks over `rows_per_instance` of them. With a residual the sum
x + residual is normalized and also stored, as the next layer's residual.
"""

from __future__ import annotations

from treadle.frontends.programs.errors import InvalidTileSize
from treadle.frontends.programs.operations import compute, load, store
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

LARGEST_COLUMNS = 65536


def row_tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    """Return tile sizes of a walk over whole rows, the usual choice first."""
    choices: list[tuple[int, int]] = []
    for block_rows in (1, 2, 4):
        if block_rows > 1 and block_rows * next_power_of_two(shape["columns"]) > 8192:
            continue
        choices += [(block_rows, block_rows * steps) for steps in (4, 8, 16) if block_rows * steps <= shape["rows"]]
    return tuple({"block_rows": b, "rows_per_instance": r} for b, r in choices or [(1, 1)])


def _body(shape: Shape, block_rows: int, options: Options) -> tuple[TileOperation, ...]:
    dtype, residual = str(options["dtype"]), bool(options["residual"])
    block = (block_rows, next_power_of_two(shape["columns"]))
    operations = [load("load_x", block, dtype)]
    source = "wide"
    operations.append(compute("wide", OperationKind.CONVERT, ("load_x",), block))
    if residual:
        source = "sum"
        operations += [
            load("load_residual", block, dtype),
            compute("sum", OperationKind.ELEMENTWISE, ("wide", "load_residual"), block, note="x + residual"),
            compute("sum_low", OperationKind.CONVERT, ("sum",), block, dtype),
            store("store_residual", "sum_low", block, dtype),
        ]
    return (
        *operations,
        compute("squares", OperationKind.ELEMENTWISE, (source,), block),
        compute("mean_square", OperationKind.REDUCE, ("squares",), (block_rows,)),
        compute("inverse_rms", OperationKind.ELEMENTWISE, ("mean_square",), (block_rows,), work=4, note="rsqrt"),
        compute("scaled", OperationKind.ELEMENTWISE, (source, "inverse_rms", "weight"), block, work=2),
        compute("low", OperationKind.CONVERT, ("scaled",), block, dtype),
        store("store_out", "low", block, dtype),
    )


def check_rows(family: str, sizes: TileSizes) -> None:
    """Refuse instances that are not whole blocks of rows; raises InvalidTileSize."""
    block_rows, per_instance = sizes["block_rows"], sizes["rows_per_instance"]
    if per_instance % block_rows:
        raise InvalidTileSize(
            family=family,
            key="rows_per_instance",
            found=per_instance,
            expected=f"a multiple of block_rows = {block_rows}",
        )


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    check_rows("rms_norm", sizes)
    block_rows, per_instance = sizes["block_rows"], sizes["rows_per_instance"]
    columns = next_power_of_two(shape["columns"])
    weight = Invariant("weight", Tile((columns,), "float32", Memory.REGISTER))
    return TileProgram(
        name="rms_norm",
        family="rms_norm",
        operations=_body(shape, block_rows, options),
        trips=per_instance // block_rows,
        instances=ceil_div(shape["rows"], per_instance),
        shape=shape,
        tile_sizes=sizes,
        invariants=(weight,),
        warps=max(4, min(16, block_rows * columns // 2048)),
        options=options,
    )


ROW_SHAPE = {
    "rows": Extent("rows: tokens"),
    "columns": Extent("columns: hidden size", most=LARGEST_COLUMNS),
}
ROW_SIZES = {
    "block_rows": Size("rows of one iteration", least=1, most=16),
    "rows_per_instance": Size("rows of one program instance", least=1, most=1024, power_of_two=False),
}

FAMILY = Family(
    name="rms_norm",
    summary="out (rows, columns) = x * rsqrt(mean(x^2) + epsilon) * weight, with an optional residual",
    shape=ROW_SHAPE,
    sizes=ROW_SIZES,
    tiles=row_tiles,
    assemble=_assemble,
    options={"residual": (False, True)},
)
