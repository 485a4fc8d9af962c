"""A tile program of one's own: attention of the query heads of one key-value head, which share a tile of 64 rows.

`treadle kernel softmax_product.py:heads_together --machine h100` schedules it; arguments come from `--shape`.
"""

from __future__ import annotations

from treadle.frontends.programs.operations import compute, load, mma
from treadle.ir.tile.program import Invariant, Memory, OperationKind, Tile, TileProgram


def heads_together(keys: int = 8192, rows: int = 64, block: int = 128, head: int = 128) -> TileProgram:
    """Return the loop over `keys`: scores, running maximum, weights, their sum, and the product with the values."""
    scores, columns = (rows, block), (rows,)
    operations = (
        load("k", (block, head), "bfloat16"),
        load("v", (block, head), "bfloat16"),
        mma("scores", ("q", "k"), scores, head),
        compute("tile_max", OperationKind.REDUCE, ("scores",), columns),
        compute("row_max", OperationKind.ELEMENTWISE, ("tile_max", "row_max@1"), columns),
        compute("drop", OperationKind.ELEMENTWISE, ("row_max@1", "row_max"), columns),
        compute("alpha", OperationKind.EXP2, ("drop",), columns),
        compute("shifted", OperationKind.ELEMENTWISE, ("scores", "row_max"), scores),
        compute("weights", OperationKind.EXP2, ("shifted",), scores),
        compute("tile_sum", OperationKind.REDUCE, ("weights",), columns),
        compute("row_sum", OperationKind.ELEMENTWISE, ("tile_sum", "alpha", "row_sum@1"), columns, work=2),
        compute("weights_low", OperationKind.CONVERT, ("weights",), scores, "bfloat16"),
        compute("rescaled", OperationKind.ELEMENTWISE, ("acc@1", "alpha"), (rows, head)),
        mma("acc", ("weights_low", "v", "rescaled"), (rows, head), block),
    )
    return TileProgram(
        name="heads_together",
        family="heads_together",
        operations=operations,
        trips=keys // block,
        instances=512,
        shape={"keys": keys},
        tile_sizes={"rows": rows, "block": block},
        invariants=(Invariant("q", Tile((rows, head), "bfloat16", Memory.SHARED)),),
        warps=4,
        options={"dtype": "bfloat16"},
    )
