"""Arithmetic of the library's tile operations by family, in float64, for the interpreter of warp programs.

A rule takes the operands in their order and gives the result. Row statistics (rows,) meet blocks (rows, columns) along
rows, column statistics (columns,) along columns. Products say how their operands lie: `nt` is a (m, k) times b (n, k)
transposed, `nn` b (k, n), `tn` a (k, m) transposed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rule = Callable[..., Array]


def _rows(statistic: Array) -> Array:
    return statistic[:, None]


def _same(block: Array) -> Array:
    return block


def _high(block: Array) -> Array:
    result: Array = block.max(-1)
    return result


def _total(block: Array) -> Array:
    result: Array = block.sum(-1)
    return result


def _mean(block: Array) -> Array:
    result: Array = block.mean(-1)
    return result


def _larger(tile: Array, before: Array) -> Array:
    return np.maximum(tile, before)


def _power(exponent: Array) -> Array:
    result: Array = np.exp2(exponent)
    return result


def _square(block: Array) -> Array:
    return block * block


def _add(first: Array, second: Array) -> Array:
    return first + second


def _inverse_root(variance: Array) -> Array:
    result: Array = 1 / np.sqrt(variance + EPSILON)
    return result


def _masked(scores: Array) -> Array:
    """A mask that leaves every row and every column something: the lower triangle, the first column, the last row."""
    seen = np.tril(np.ones(scores.shape, dtype=bool))
    seen[:, 0] = seen[-1, :] = True
    return np.where(seen, scores, -np.inf)


def _scaled_total(total: Array, alpha: Array, tile: Array) -> Array:
    result: Array = total * alpha + tile
    return result


def _by_row(block: Array, statistic: Array) -> Array:
    result: Array = block * _rows(statistic)
    return result


def _centred(block: Array, statistic: Array) -> Array:
    result: Array = block - _rows(statistic)
    return result


def _times(first: Array, second: Array) -> Array:
    result: Array = first * second
    return result


def _add_scaled(partial: Array, factor: Array, acc: Array) -> Array:
    result: Array = acc + partial * _rows(factor)
    return result


def _low_half(packed: Array) -> Array:
    result: Array = packed[:, : packed.shape[1] // 2]
    return result


def _high_half(packed: Array) -> Array:
    result: Array = packed[:, packed.shape[1] // 2 :]
    return result


def _slopes(dweights: Array, weights: Array, delta: Array) -> Array:
    result: Array = weights * (dweights - delta)
    return result


def _distance(dots: Array, norms: Array) -> Array:
    result: Array = norms - 2 * dots
    return result


def _low(block: Array) -> Array:
    result: Array = block.min(-1)
    return result


def _first_at(block: Array, best: Array) -> Array:
    result: Array = (block == _rows(best)).argmax(-1).astype(np.float64)
    return result


def _nearer(tile: Array, best: Array) -> Array:
    result: Array = (tile < best).astype(np.float64)
    return result


def _chosen(nearer: Array, tile: Array, best: Array) -> Array:
    result: Array = np.where(nearer > 0, tile, best)
    return result


def _affine(centred: Array, inverse: Array, weight: Array, bias: Array) -> Array:
    result: Array = centred * _rows(inverse) * weight + bias
    return result


def _normed(wide: Array, inverse: Array, weight: Array) -> Array:
    result: Array = wide * _rows(inverse) * weight
    return result


def _weighted(wide: Array, weight: Array, inverse: Array | None = None) -> Array:
    result: Array = wide * weight * (1.0 if inverse is None else _rows(inverse))
    return result


EPSILON = 1e-6
"""Added to variances, as the kernels' default."""

_SOFTMAX: dict[str, Rule] = {
    "masked": _masked,
    "tile_max": _high,
    "row_max": _larger,
    "alpha": _power,
    "weights": _power,
    "tile_sum": _total,
    "row_sum": _scaled_total,
    "weights_low": _same,
    "rescaled": _by_row,
}

_NORM: dict[str, Rule] = {
    "wide": _same,
    "low": _same,
    "sum": _add,
    "sum_low": _same,
    "mean": _mean,
    "centred": _centred,
    "squares": _square,
    "variance": _mean,
    "mean_square": _mean,
    "inverse": _inverse_root,
    "inverse_rms": _inverse_root,
    "tile_sum": _total,
    "sum_squares": _add,
}

RULES: dict[str, dict[str, Rule]] = {
    "gemm": {},
    "gemm_persistent": {},
    "grouped_gemm": {},
    "dual_gemm": {},
    "swiglu": {},
    "gemm_fp8": {
        "factor": _times,
        "acc": _add_scaled,
    },
    "gemm_w4a16": {
        "bits_low": _low_half,
        "bits_high": _high_half,
        "wide_low": _same,
        "wide_high": _same,
        "weight_low": _by_row,
        "weight_high": _by_row,
    },
    "attention_fwd": _SOFTMAX,
    "attention_varlen": _SOFTMAX,
    "attention_decode": _SOFTMAX,
    "attention_paged": _SOFTMAX,
    "attention_bwd": {
        "masked": _masked,
        "weights": _power,
        "weights_low": _same,
        "slopes": _slopes,
        "slopes_low": _same,
    },
    "kmeans_assign": {
        "distance": _distance,
        "tile_best": _low,
        "tile_index": _first_at,
        "nearer": _nearer,
        "best": _chosen,
    },
    "layer_norm": {**_NORM, "scaled": _affine},
    "rms_norm": {**_NORM, "scaled": _normed},
    "rms_norm_gemm": {
        **_NORM,
        "scaled": _weighted,
    },
}
"""Rules by family and by name of the operation without the number of its sub-tile; conversions of other names copy."""

LIE: dict[str, dict[str, str]] = {
    "attention_fwd": {"acc": "nn"},
    "attention_varlen": {"acc": "nn"},
    "attention_decode": {"acc": "nn"},
    "attention_paged": {"acc": "nn"},
    "attention_bwd": {"dv": "nn", "dk": "nn", "dq": "tn"},
}
"""How the operands of a product lie, where not `nt`."""

INITIAL: dict[str, float] = {"row_max": -np.inf, "best": np.inf}
"""Carried values that do not begin at zero."""
