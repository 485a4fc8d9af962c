"""One step of the online softmax of attention, shared by the attention families.

Scores stay in base 2: with scale' = scale * log2(e), exp(scale * s - max) = exp2(scale' * s - max'), so scaling and
subtracting the maximum is one fused multiply-add per score (FlashAttention-2, arXiv 2307.08691, section 3.1).
"""

from __future__ import annotations

from treadle.frontends.programs.operations import compute, mma
from treadle.ir.tile.program import OperationKind, TileOperation


def score_products(
    queries: tuple[str, ...], keys: tuple[str, ...], parts: tuple[int, ...], rows: int, columns: int, suffix: str
) -> tuple[TileOperation, ...]:
    """Return the products that make the scores (rows, columns), one per part of the head dimension."""
    products: list[TileOperation] = []
    for position, (query, key, depth) in enumerate(zip(queries, keys, parts, strict=True)):
        last = position == len(parts) - 1
        name = f"scores{suffix}" if last else f"scores_{position}{suffix}"
        operands = (query, key) if not products else (query, key, products[-1].name)
        products.append(mma(name, operands, (rows, columns), depth, note="Q K^T"))
    return tuple(products)


def softmax_step(
    rows: int, columns: int, value_columns: int, values: str, dtype: str, suffix: str = "", masked: bool = False
) -> tuple[TileOperation, ...]:
    """Return the operations from `scores{suffix}` to the accumulator `acc{suffix}` (rows, value_columns).

    Carried over the iterations: running maximum, running sum and accumulator. `masked` puts `masked{suffix}` between
    the scores and all else, where keys are cut off.
    """
    high, total, acc = f"row_max{suffix}", f"row_sum{suffix}", f"acc{suffix}"
    scores, weights, alpha = f"scores{suffix}", f"weights{suffix}", f"alpha{suffix}"
    block, row = (rows, columns), (rows,)
    wide = (rows, value_columns)
    mask: tuple[TileOperation, ...] = ()
    if masked:
        mask = (compute(f"masked{suffix}", OperationKind.ELEMENTWISE, (scores,), block, note="-inf outside"),)
        scores = f"masked{suffix}"
    return (
        *mask,
        compute(f"tile_max{suffix}", OperationKind.REDUCE, (scores,), row, note="max over keys"),
        compute(high, OperationKind.ELEMENTWISE, (f"tile_max{suffix}", f"{high}@1"), row, work=2, note="running max"),
        compute(f"drop{suffix}", OperationKind.ELEMENTWISE, (f"{high}@1", high), row, note="old max - new max"),
        compute(alpha, OperationKind.EXP2, (f"drop{suffix}",), row, note="rescaling factor"),
        compute(f"shifted{suffix}", OperationKind.ELEMENTWISE, (scores, high), block, note="scale * score - max"),
        compute(weights, OperationKind.EXP2, (f"shifted{suffix}",), block),
        compute(f"tile_sum{suffix}", OperationKind.REDUCE, (weights,), row, note="sum over keys"),
        compute(total, OperationKind.ELEMENTWISE, (f"{total}@1", alpha, f"tile_sum{suffix}"), row, note="running sum"),
        compute(f"weights_low{suffix}", OperationKind.CONVERT, (weights,), block, dtype),
        compute(f"rescaled{suffix}", OperationKind.ELEMENTWISE, (f"{acc}@1", alpha), wide, note="acc * alpha"),
        mma(acc, (f"weights_low{suffix}", values, f"rescaled{suffix}"), wide, columns, note="P V"),
    )
