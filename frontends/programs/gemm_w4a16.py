"""Matrix product with 4-bit weights: out (m, n) = a (m, k) @ (scale * (w - 8)) (n, k)^T, dequantized in registers.

Weights are the first operand (out is made transposed), so that they go from registers straight into the product. Two
4-bit values share a byte: byte j of a group of `group` values of k holds value j in its low half and value
j + group / 2 in its high half, with one scale per row of w and group.
"""

from __future__ import annotations

from treadle.frontends.programs.errors import InvalidExtent, InvalidTileSize
from treadle.frontends.programs.gemm import BLOCK_SIZES, MATRIX_SHAPE, product_warps
from treadle.frontends.programs.operations import compute, load, mma
from treadle.frontends.programs.shapes import Extent, Family, Options, Shape, TileSizes, ceil_div, next_power_of_two
from treadle.ir.tile.program import OperationKind, TileOperation, TileProgram

_COLUMNS = (128, 64, 256)


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    rows = max(16, min(128, next_power_of_two(shape["m"])))
    columns = max(16, next_power_of_two(shape["n"]))
    choices = [(tm, min(tn, columns)) for tm in dict.fromkeys((rows, max(16, rows // 2))) for tn in _COLUMNS]
    fitting = [choice for choice in choices if choice[0] * choice[1] <= 128 * 128]
    return tuple({"block_m": m, "block_n": n, "block_k": shape["group"]} for m, n in dict.fromkeys(fitting))


def _body(sizes: TileSizes, dtype: str) -> tuple[TileOperation, ...]:
    rows, columns, depth = sizes["block_m"], sizes["block_n"], sizes["block_k"]
    half = (columns, depth // 2)
    operations = [load("load_w", (columns, depth), "int4", "two weights per byte")]
    operations.append(load("load_scale", (columns,), dtype, "scale per row and group"))
    for part in ("low", "high"):
        operations.append(load(f"load_a_{part}", (rows, depth // 2), dtype, f"activations of the {part} halves"))
    for part in ("low", "high"):
        before = "acc@1" if part == "low" else "acc_low"
        name = "acc_low" if part == "low" else "acc"
        operations += [
            compute(f"bits_{part}", OperationKind.ELEMENTWISE, ("load_w",), half, "int8", work=2, note="mask or shift"),
            compute(f"wide_{part}", OperationKind.CONVERT, (f"bits_{part}",), half),
            compute(f"weight_{part}", OperationKind.ELEMENTWISE, (f"wide_{part}", "load_scale"), half, dtype, work=2),
            mma(name, (f"weight_{part}", f"load_a_{part}", before), (columns, rows), depth // 2),
        ]
    return tuple(operations)


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    if sizes["block_k"] != shape["group"]:
        raise InvalidTileSize(
            family="gemm_w4a16", key="block_k", found=sizes["block_k"], expected=f"the group, {shape['group']}"
        )
    transposed = {"block_m": sizes["block_n"], "block_n": sizes["block_m"]}
    return TileProgram(
        name="gemm_w4a16",
        family="gemm_w4a16",
        operations=_body(sizes, str(options["dtype"])),
        trips=ceil_div(shape["k"], sizes["block_k"]),
        instances=ceil_div(shape["m"], sizes["block_m"]) * ceil_div(shape["n"], sizes["block_n"]),
        shape=shape,
        tile_sizes=sizes,
        warps=product_warps(transposed),
        options=options,
    )


def _complete(shape: Shape) -> Shape:
    group = shape["group"]
    if next_power_of_two(group) != group:
        raise InvalidExtent(family="gemm_w4a16", key="group", found=group, expected="32, 64, 128 or 256")
    return shape


FAMILY = Family(
    name="gemm_w4a16",
    summary="out (m, n) = a (m, k) @ dequantized 4-bit w (n, k)^T, one scale per row of w and group of k",
    shape={**MATRIX_SHAPE, "group": Extent("values of k that share a scale", 128, 32, 256)},
    sizes=BLOCK_SIZES,
    tiles=_tiles,
    assemble=_assemble,
    complete=_complete,
)
