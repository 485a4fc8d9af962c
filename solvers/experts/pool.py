"""One pool of experts: exact when small, else greedy, exchanges, and packings of heavy experts between two bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from treadle.ir.layout.expert_bounds import enumerable, pair_exactly, pool_bound
from treadle.ir.layout.expert_skeletons import Answer, skeleton
from treadle.solvers.experts.balance import Loads, Slots, greedy, improve

CLOSE = Fraction(1, 1000)
"""Relative distance of placement and bound below which no more packings are tried."""
ROUNDS = 8
"""Targets tried between bound and placement."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Experts per slot (positions in the pool), the peak, and a peak that no placement goes below."""

    slots: tuple[int, ...]
    peak: Fraction
    bound: Fraction


def place_pool(loads: tuple[Fraction, ...], slots: int, gpus: int) -> Placed:
    """Place a pool; never worse than the greedy of EPLB on it."""
    bound = pool_bound(loads, slots, gpus).value
    if enumerable(len(loads), slots, gpus):
        value, pairs = pair_exactly(loads, slots, gpus)
        return Placed(tuple(position for pair in pairs for position in pair), value, bound)
    weights = np.array([float(load) for load in loads])
    best = improve(weights, greedy(weights, slots, gpus), float(bound))
    value = exact_peak(loads, best)
    low = bound  # targets below it have no solution, or none that could be filled up
    for _ in range(ROUNDS):
        if value <= low * (1 + CLOSE):
            break
        target = (low + value) / 2
        found = skeleton(loads, slots, gpus, target)
        filled = [improve(weights, _filled(weights, packing, slots), float(bound)) for packing in found.packings]
        tried = min(filled, key=lambda placed: exact_peak(loads, placed), default=best)
        if exact_peak(loads, tried) < value:
            best, value = tried, exact_peak(loads, tried)
            continue
        if found.answer is Answer.IMPOSSIBLE and low == bound:
            bound = target
        low = target
    return Placed(tuple(best.ravel().tolist()), value, bound)


def exact_peak(loads: tuple[Fraction, ...], placed: Slots) -> Fraction:
    """Return the highest GPU load exactly."""
    counts = np.bincount(placed.ravel(), minlength=len(loads)).tolist()
    shares = [load / max(1, count) for load, count in zip(loads, counts, strict=True)]
    return max(sum((shares[expert] for expert in row), Fraction(0)) for row in placed.tolist())


def _filled(loads: Loads, heavy: Sequence[Sequence[int]], slots: int) -> Slots:
    """Fill up GPUs that hold their heavy experts: light replicas in falling order onto the least loaded free GPU."""
    gpus = len(heavy)
    packed = {expert for row in heavy for expert in row}
    counts = np.ones(len(loads), np.int64)
    for expert in packed:
        counts[expert] = sum(row.count(expert) for row in heavy)
    light = np.array([expert not in packed for expert in range(len(loads))])
    if not light.any():
        light[:] = True
    for _ in range(slots - int(counts.sum())):
        counts[int(np.argmax(np.where(light, loads / counts, -1.0)))] += 1
    rows = [list(row) for row in heavy]
    for row in rows:
        for expert in row:
            counts[expert] -= 1
    return pack_around(loads, rows, counts, slots // gpus)


def pack_around(
    loads: Loads, rows: list[list[int]], left: np.ndarray[tuple[int], np.dtype[np.int64]], per_gpu: int
) -> Slots:
    """Add the replicas that are left to rows that hold some already."""
    whole = left.copy()
    for row in rows:
        for expert in row:
            whole[expert] += 1
    shares = loads / np.maximum(whole, 1)
    totals = [float(sum(shares[expert] for expert in row)) for row in rows]
    replicas = np.repeat(np.arange(len(loads)), left)
    for expert in replicas[np.argsort(-shares[replicas], kind="stable")].tolist():
        gpu = min((g for g in range(len(rows)) if len(rows[g]) < per_gpu), key=totals.__getitem__)
        rows[gpu].append(expert)
        totals[gpu] += float(shares[expert])
    return np.array(rows, np.int64)
