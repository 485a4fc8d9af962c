"""Less traffic between nodes at the same peak: nodes and GPUs change places, then replicas where loads allow it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from treadle.ir.layout.experts import ExpertsProblem, Policy
from treadle.solvers.experts.balance import Slots

SWAPS = 2000
"""Exchanges per layer, at most."""


def nearer(problem: ExpertsProblem, layer: int, slots: tuple[int, ...]) -> tuple[int, ...]:
    """Return a placement with no higher peak and less traffic between nodes.

    Whole nodes change places where groups stay together (any order of nodes is as balanced); single replicas else.
    """
    placed = np.array(slots, np.int64).reshape(problem.nodes, -1)
    tokens = np.array(problem.sources[layer])
    counts = np.bincount(placed.ravel(), minlength=problem.experts)
    local = tokens / np.maximum(counts, 1)
    placed = _nodes_swapped(local, placed)
    if problem.policy is Policy.GLOBAL:
        shares = np.array(problem.loads[layer]) / np.maximum(counts, 1)
        placed = _replicas_swapped(local, shares, placed.reshape(problem.gpus, -1), problem.nodes)
    return tuple(placed.ravel().tolist())


def _nodes_swapped(local: NDArray[np.float64], placed: Slots) -> Slots:
    """Exchange the contents of two nodes while that keeps more tokens in their nodes."""
    nodes = len(placed)
    stays = np.array([[local[node][placed[content]].sum() for content in range(nodes)] for node in range(nodes)])
    order = list(range(nodes))
    improved = True
    while improved:
        improved = False
        for one in range(nodes):
            for other in range(one + 1, nodes):
                now = stays[one, order[one]] + stays[other, order[other]]
                if stays[one, order[other]] + stays[other, order[one]] > now * (1 + 1e-12):
                    order[one], order[other] = order[other], order[one]
                    improved = True
    return placed[order]


def _replicas_swapped(local: NDArray[np.float64], shares: NDArray[np.float64], placed: Slots, nodes: int) -> Slots:
    """Exchange the two replicas that gain most, while no GPU gets fuller than the fullest was."""
    gpus, per_gpu = placed.shape
    gpu = np.repeat(np.arange(gpus), per_gpu)
    node = gpu // (gpus // nodes)
    held = placed.ravel().copy()
    peak = float(shares[placed].sum(axis=1).max())
    for _ in range(SWAPS):
        size = shares[held]
        totals = np.bincount(gpu, weights=size, minlength=gpus)
        here = local[node, held]
        there = local[node][:, held]  # [slot whose node it is, slot whose expert it is]
        gain = there + there.T - here[:, None] - here[None, :]
        change = size[None, :] - size[:, None]
        fits = totals[gpu][:, None] + change <= peak
        gain[~(fits & fits.T)] = -1.0
        best = int(np.argmax(gain))
        one, other = divmod(best, len(held))
        if gain[one, other] <= 1e-9 * max(1.0, float(here.sum())):
            break
        held[one], held[other] = held[other], held[one]
    return held.reshape(gpus, per_gpu)
