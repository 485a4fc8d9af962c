"""Replicas of one pool of experts over GPUs: a greedy start and improvement by exchanges and recounts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Loads = NDArray[np.float64]
Slots = NDArray[np.int64]


def greedy(loads: Loads, slots: int, gpus: int) -> Slots:
    """Return the experts per GPU (gpus, slots per GPU): replicate the heaviest share, then heaviest replica first.

    The rule of EPLB (deepseek-ai/EPLB): each spare slot goes to the expert with the largest load per replica; replicas
    in falling order go to the least loaded GPU that still has a free slot.
    """
    counts = np.ones(len(loads), np.int64)
    for _ in range(slots - len(loads)):
        counts[int(np.argmax(loads / counts))] += 1
    return pack(loads, counts, gpus)


def pack(loads: Loads, counts: NDArray[np.int64], gpus: int) -> Slots:
    """Place given replica counts, heaviest replica first, each on the least loaded GPU with a free slot."""
    replicas = np.repeat(np.arange(len(loads)), counts)
    shares = (loads / counts)[replicas]
    per_gpu = len(replicas) // gpus
    placed = np.zeros((gpus, per_gpu), np.int64)
    filled = np.zeros(gpus, np.int64)
    totals = np.zeros(gpus)
    for replica in np.argsort(-shares, kind="stable"):
        gpu = int(np.argmin(np.where(filled < per_gpu, totals, np.inf)))
        placed[gpu, filled[gpu]] = replicas[replica]
        filled[gpu] += 1
        totals[gpu] += shares[replica]
    return placed


def peak(loads: Loads, placed: Slots) -> float:
    """Return the highest GPU load of a placement."""
    return float(_shares(loads, placed)[placed].sum(axis=1).max())


def improve(loads: Loads, placed: Slots, bound: float, rounds: int = 400) -> Slots:
    """Lower the highest GPU load by exchanges; where they end, give a replica of one expert to another.

    Args:
        loads: load per expert.
        placed: experts per GPU.
        bound: stop when the peak is within 1e-6 of it.
        rounds: recounts at most.

    Returns: a placement no worse than the given one.
    """
    best = exchange(loads, placed.copy())
    for _ in range(rounds):
        if peak(loads, best) <= bound * (1 + 1e-6):
            return best
        candidate = _recount(loads, best)
        if candidate is None:
            return best
        best = candidate
    return best


def _shares(loads: Loads, placed: Slots) -> Loads:
    counts = np.bincount(placed.ravel(), minlength=len(loads))
    shares: Loads = loads / np.maximum(counts, 1)
    return shares


def exchange(loads: Loads, placed: Slots) -> Slots:
    """Swap one replica of the fullest GPU with one of another GPU while that lowers the larger of the two loads."""
    shares = _shares(loads, placed)
    value = shares[placed]
    totals = value.sum(axis=1)
    for _ in range(50 * placed.size):
        top = int(np.argmax(totals))
        given = value[top][:, None, None] - value[None, :, :]
        after = np.maximum(totals[top] - given, totals[None, :, None] + given)
        after[:, top, :] = np.inf
        best = int(np.argmin(after))
        if after.ravel()[best] >= totals[top] * (1 - 1e-12):
            return placed
        mine, other, theirs = (int(index) for index in np.unravel_index(best, after.shape))
        placed[top, mine], placed[other, theirs] = placed[other, theirs], placed[top, mine]
        value[top, mine], value[other, theirs] = value[other, theirs], value[top, mine]
        totals[[top, other]] = value[[top, other]].sum(axis=1)
    return placed


def _recount(loads: Loads, placed: Slots) -> Slots | None:
    """Turn one slot into a replica of another expert, exchange again; the first such change that lowers the peak."""
    counts = np.bincount(placed.ravel(), minlength=len(loads))
    shares = loads / counts
    current = peak(loads, placed)
    takers = np.argsort(-shares)[:6]
    givers = [expert for expert in np.argsort(loads / np.maximum(counts - 1, 1)) if counts[expert] > 1][:6]
    for taker in takers:
        for giver in givers:
            if giver == taker:
                continue
            gpu, slot = (int(axis[0]) for axis in np.nonzero(placed == giver))
            changed = placed.copy()
            changed[gpu, slot] = taker
            for start in (changed, pack(loads, np.bincount(changed.ravel(), minlength=len(loads)), len(placed))):
                candidate = exchange(loads, start)
                if peak(loads, candidate) < current * (1 - 1e-9):
                    return candidate
    return None
