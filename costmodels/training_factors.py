"""How many times the work of one microbatch a step takes at least, whatever the stage layout: 1F1B and ZB-H1.

Weights that are not negative combine the inequalities of all ranks (docs/design/parallel.md) into one bound.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=65536)
def even_factor(ranks: int, microbatches: int) -> float:
    """Return K such that the step is at least K times the time of all layers for one microbatch, whatever the cut.

    m >= p + 1: (m + p - 1) / p. Fewer microbatches: r / (r - 1) with r = (m / (m - 1))^p, from fill and work alone.
    """
    if ranks == 1:
        return float(microbatches)
    if microbatches > ranks:
        return (microbatches + ranks - 1) / ranks
    if microbatches == 1:
        return 1.0
    ratio = (microbatches / (microbatches - 1)) ** ranks
    return ratio / (ratio - 1)


_STEPS = 256
"""Shares are rounded down to whole steps of 1/256, so that factors are remembered."""


def split_factor(ranks: int, microbatches: int, early: float, forward: float) -> float:
    """Return K as `even_factor`, for ZB-H1.

    `early` is the least share of forward and input gradients in any work, `forward` the most of the forward. With x_j
    the work of rank j for one microbatch, the inequalities of `Tables` with the way home are, for m > p and otherwise:

        T >= early (sum of x_j over j < i) + ((m - p) + (i + 1) early) x_i + 2 early (sum of x_j over j > i)
        T >= early (sum of x_j over j != i) + (m early - (m' - 1) forward + max(0, m - 1 - i) (1 - early)) x_i

    with m' = min(m, p - i). Any weights of the rows that are not negative give a bound: the least column sum over the
    sum of the weights.
    """
    return _split_factor(ranks, microbatches, int(early * _STEPS), -int(-forward * _STEPS))


@lru_cache(maxsize=65536)
def _split_factor(ranks: int, microbatches: int, early_steps: int, forward_steps: int) -> float:
    even = np.ones(ranks)
    return max(microbatches / ranks, _mixed(_rows(ranks, microbatches, early_steps, forward_steps), even))


def mixed_factor(targets: tuple[float, ...], microbatches: int, early: float, forward: float) -> float:
    """Return K as `split_factor` for ranks of several types: a step takes at least K times all targets times work.

    `targets` has a positive number per rank, best one over what its type takes for everything. With `early` 1 and
    `forward` the greatest share of a forward, 1F1B. Each rank works m microbatches, whatever the schedule, so the least
    is m over the sum of the targets.
    """
    return _mixed_factor(targets, microbatches, int(early * _STEPS), -int(-forward * _STEPS))


@lru_cache(maxsize=65536)
def _mixed_factor(targets: tuple[float, ...], microbatches: int, early_steps: int, forward_steps: int) -> float:
    wanted = np.array(targets)
    matrix = _rows(len(targets), microbatches, early_steps, forward_steps)
    return max(microbatches / float(wanted.sum()), _mixed(matrix, wanted))


def _rows(ranks: int, microbatches: int, early_steps: int, forward_steps: int) -> NDArray[np.float64]:
    """Return the system's coefficients: row i bounds the step by sums over the ranks' work."""
    early, forward, numbers = early_steps / _STEPS, forward_steps / _STEPS, np.arange(ranks)
    matrix = np.full((ranks, ranks), early)
    if microbatches > ranks:
        matrix += np.triu(np.full((ranks, ranks), early), 1)
        own = microbatches - ranks + early * (numbers + 1)
    else:
        ahead = np.minimum(microbatches, ranks - numbers) - 1
        own = microbatches * early - ahead * forward + np.maximum(0, microbatches - 1 - numbers) * (1 - early)
    np.fill_diagonal(matrix, own)
    return matrix


def _mixed(matrix: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """Return the bound of weights that make all columns as large as their targets; those below zero are left out."""
    try:
        weights = np.linalg.solve(matrix.T, targets).clip(min=0.0)
    except np.linalg.LinAlgError:
        return 0.0
    if not weights.any():
        return 0.0
    return float((matrix.T @ weights / targets).min() / weights.sum()) * (1 - 1e-12)
