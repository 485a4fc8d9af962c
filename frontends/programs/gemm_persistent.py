"""Matrix product by a fixed set of instances: each makes several output tiles, one after the other.

Two loops, repeated for every tile: the products over `k`, then the stores of the finished tile, slice by slice, which a
warp-specialized kernel overlaps with the next tile's loads.
"""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.programs.gemm import BLOCK_SIZES, MATRIX_SHAPE, product_tiles
from treadle.frontends.programs.gemm import FAMILY as PLAIN
from treadle.frontends.programs.operations import compute, store
from treadle.frontends.programs.shapes import Family, Options, Shape, Size, TileSizes, ceil_div
from treadle.ir.tile.program import Invariant, Memory, OperationKind, Tile, TileProgram

MULTIPROCESSORS = (132, 148, 108, 304)
"""Of H100 and H200, B200, A100 and MI300X (datasheets): instances that fill these are offered."""

STORED_COLUMNS = 64
"""Columns of one stored slice: 128 bytes of 16-bit results, the widest swizzle of a TMA store (PTX ISA)."""


def _tiles(shape: Shape, options: Options) -> tuple[TileSizes, ...]:
    choices: list[TileSizes] = []
    for sizes in product_tiles(shape["m"], shape["n"], shape["k"])[:2]:
        tiles = _output_tiles(shape, sizes)
        repeats = dict.fromkeys(min(1024, ceil_div(tiles, count)) for count in MULTIPROCESSORS)
        choices += [{**sizes, "repeats": repeat} for repeat in repeats]
    return tuple(choices)


def _output_tiles(shape: Shape, sizes: TileSizes) -> int:
    return ceil_div(shape["m"], sizes["block_m"]) * ceil_div(shape["n"], sizes["block_n"])


def _assemble(shape: Shape, sizes: TileSizes, options: Options) -> TileProgram:
    plain = PLAIN.assemble(shape, sizes, options)
    instances = ceil_div(_output_tiles(shape, sizes), sizes["repeats"])
    main = replace(plain, name="gemm_persistent", family="gemm_persistent", instances=instances)
    rows, columns, dtype = sizes["block_m"], min(STORED_COLUMNS, sizes["block_n"]), str(options["dtype"])
    name = "gemm_persistent_store"
    epilogue = replace(
        main,
        name=name,
        family=name,
        operations=(
            compute("low", OperationKind.CONVERT, ("slice",), (rows, columns), dtype),
            store("store_out", "low", (rows, columns), dtype),
        ),
        trips=sizes["block_n"] // columns,
        invariants=(Invariant("slice", Tile((rows, columns), "float32", Memory.REGISTER)),),
    )
    return replace(main, after=(epilogue,), repeats=sizes["repeats"])


FAMILY = Family(
    name="gemm_persistent",
    summary="out (m, n) = a (m, k) @ b (n, k)^T by instances that each make several output tiles",
    shape=MATRIX_SHAPE,
    sizes={
        **BLOCK_SIZES,
        "repeats": Size("output tiles of one instance", least=1, most=1024, power_of_two=False),
    },
    tiles=_tiles,
    assemble=_assemble,
)
