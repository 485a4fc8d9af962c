"""Matrix product of 8-bit floats with scales: out (m, n) = (a * scale_a) (m, k) @ (b * scale_b) (n, k)^T.

`scales=row`: one scale per row of a and of b, applied to the finished tile. `scales=block`: one per row of a and 128 of
k, and one per 128 x 128 block of b (DeepSeek-V3, arXiv 2412.19437, section 3.3); each iteration's product is scaled as
it is added, in float32.
"""

from __future__ import annotations

from treadle.frontends.programs.errors import InvalidTileSize
from treadle.frontends.programs.gemm import BLOCK_SIZES, MATRIX_SHAPE, product_tiles, product_warps
from treadle.frontends.programs.operations import compute, load, mma
from treadle.frontends.programs.shapes import Family, Options, Shape, TileSizes, ceil_div
from treadle.ir.tile.program import OperationKind, TileOperation, TileProgram

OPERANDS = "float8_e4m3"
SCALED_BLOCK = 128
"""Extent of a scaled block along k, and along n for b."""


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    deeper = [
        {**sizes, "block_k": min(256, max(32, 2 * sizes["block_k"]))}
        for sizes in product_tiles(shape["m"], shape["n"], shape["k"])
    ]
    if options["scales"] == "block":
        deeper = [
            {**sizes, "block_n": min(SCALED_BLOCK, sizes["block_n"]), "block_k": SCALED_BLOCK} for sizes in deeper
        ]
    return tuple(dict(items) for items in dict.fromkeys(tuple(sizes.items()) for sizes in deeper))


def _body(sizes: TileSizes, scales: str) -> tuple[TileOperation, ...]:
    rows, columns, depth = sizes["block_m"], sizes["block_n"], sizes["block_k"]
    loads = (
        load("load_a", (rows, depth), OPERANDS, "activations"),
        load("load_b", (columns, depth), OPERANDS, "weight"),
    )
    if scales == "row":
        return (*loads, mma("acc", ("load_a", "load_b", "acc@1"), (rows, columns), depth))
    return (
        *loads,
        load("load_scale_a", (rows,), "float32"),
        load("load_scale_b", (1,), "float32"),
        compute("factor", OperationKind.ELEMENTWISE, ("load_scale_a", "load_scale_b"), (rows,)),
        mma("partial", ("load_a", "load_b"), (rows, columns), depth),
        compute("acc", OperationKind.ELEMENTWISE, ("partial", "factor", "acc@1"), (rows, columns), note="scaled sum"),
    )


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    if sizes["block_k"] < 32:
        raise InvalidTileSize(
            family="gemm_fp8",
            key="block_k",
            found=sizes["block_k"],
            expected="at least 32, one 8-bit matrix instruction",
        )
    if options["scales"] == "block" and (sizes["block_k"] != SCALED_BLOCK or sizes["block_n"] > SCALED_BLOCK):
        key = "block_k" if sizes["block_k"] != SCALED_BLOCK else "block_n"
        expected = f"with scales=block: block_k {SCALED_BLOCK}, block_n at most {SCALED_BLOCK}"
        raise InvalidTileSize(family="gemm_fp8", key=key, found=sizes[key], expected=expected)
    return TileProgram(
        name="gemm_fp8",
        family="gemm_fp8",
        operations=_body(sizes, str(options["scales"])),
        trips=ceil_div(shape["k"], sizes["block_k"]),
        instances=ceil_div(shape["m"], sizes["block_m"]) * ceil_div(shape["n"], sizes["block_n"]),
        shape=shape,
        tile_sizes=sizes,
        warps=product_warps(sizes),
        options=options,
    )


FAMILY = Family(
    name="gemm_fp8",
    summary="out (m, n) = scaled a (m, k) @ scaled b (n, k)^T, operands float8_e4m3",
    shape=MATRIX_SHAPE,
    sizes=BLOCK_SIZES,
    tiles=_tiles,
    assemble=_assemble,
    options={"scales": ("row", "block")},
)
