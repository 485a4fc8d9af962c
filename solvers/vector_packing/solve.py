"""First fit decreasing, then column generation over contents of bins: a bound, and whole contents by CP-SAT."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from ortools.math_opt.python import mathopt
from ortools.sat.python import cp_model

from treadle.costmodels.node_contents import Offer, best_contents
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.vector_packing import VectorPacking, volume_bound
from treadle.solvers.backend import Limits, solve, solve_linear

_UNIT = 10_000
_MOST_LABELS, _QUICK_LABELS = 50_000, 2_000
"""Labels of the knapsack that proves, and of those that only look for better contents."""
_LABELS_PER_S = 1_000_000
_ROUND_S = 0.02
"""Work of a round in deterministic seconds, beside its labels."""
_GENERATED = 0.5
"""Share of the limit after which no more patterns are looked for."""
_MOST_ROUNDS = 300
Sizes = tuple[int, ...]
Pattern = dict[Sizes, int]


@dataclass(frozen=True, slots=True)
class Packed:
    """The bin of every item, and how good that is."""

    bins: tuple[int, ...]
    certificate: Certificate


def pack_vectors(instance: VectorPacking, deterministic_s: float = 10.0, seed: int = 0) -> Packed:
    """Return a packing into few bins; `pattern-dual` bounds come with prices per size in their evidence."""
    counts = Counter(instance.items)
    best = _first_fit(instance)
    bound, proof, evidence = volume_bound(instance), ProofKind.CAPACITY, dict[str, object]()
    if bound < len(best):
        patterns = [*best]
        priced, prices = _generate(instance, counts, patterns, _GENERATED * deterministic_s)
        if priced > bound:
            bound, proof = priced, ProofKind.PATTERN_DUAL
            evidence = {"unit": _UNIT, "prices": [[list(size), price] for size, price in sorted(prices.items())]}
        if bound < len(best):
            best = _whole(counts, patterns, best, Limits(deterministic_s, seed=seed))
    status = Status.OPTIMAL if bound == len(best) else Status.FEASIBLE
    level = Level("bins", "bins", len(best), bound, status, proof, evidence)
    return Packed(_assign(instance, best), Certificate("vector-packing", "volume/1", (level,)))


def prices_bound(instance: VectorPacking, prices: dict[Sizes, int], unit: int) -> int:
    """Return the bins that prices prove: their sum over all items, over the most that one bin can be worth."""
    counts = Counter(instance.items)
    sizes = sorted(counts)
    worth = np.array([prices.get(size, 0) for size in sizes], dtype=np.int64)
    most = int(best_contents(_offer(instance, counts), worth, worth, np.zeros(1, np.int64), _MOST_LABELS).upper[0])
    total = sum(prices.get(size, 0) * count for size, count in counts.items())
    return -(-total // max(most, unit))


def _offer(instance: VectorPacking, counts: Counter[Sizes]) -> Offer:
    sizes = sorted(counts)
    return Offer(
        np.array([instance.capacity], dtype=np.int64),
        np.array(sizes, dtype=np.int64).reshape(len(sizes), -1),
        np.array([counts[size] for size in sizes], dtype=np.int64),
        np.ones((len(sizes), 1), dtype=bool),
        ((),),
    )


def _first_fit(instance: VectorPacking) -> list[Pattern]:
    rooms: list[list[int]] = []
    patterns: list[Pattern] = []
    largest = [max(1, room) for room in instance.capacity]
    for size in sorted(
        instance.items, key=lambda size: (-max(s / c for s, c in zip(size, largest, strict=True)), size)
    ):
        fits = (i for i, row in enumerate(rooms) if all(s <= r for s, r in zip(size, row, strict=True)))
        number = next(fits, len(rooms))
        if number == len(rooms):
            rooms.append(list(instance.capacity))
            patterns.append({})
        rooms[number] = [r - s for s, r in zip(size, rooms[number], strict=True)]
        patterns[number][size] = patterns[number].get(size, 0) + 1
    return patterns


def _generate(
    instance: VectorPacking, counts: Counter[Sizes], patterns: list[Pattern], limit_s: float
) -> tuple[int, dict[Sizes, int]]:
    """Add patterns until none is worth more than a bin, or the limit is over; return the best bound and its prices.

    Few labels look for better contents while they find some; then, or at the end, many labels prove.
    """
    sizes, offer = sorted(counts), _offer(instance, counts)
    best, best_prices = 0, dict[Sizes, int]()
    labels, spent_s = _QUICK_LABELS, 0.0
    for number in range(_MOST_ROUNDS):
        last = spent_s >= limit_s or number == _MOST_ROUNDS - 1
        labels = _MOST_LABELS if last else labels
        duals = _duals(counts, patterns)
        worth = np.array([duals[size] for size in sizes], dtype=np.int64)
        found = best_contents(offer, worth, worth, np.array([_UNIT], dtype=np.int64), labels)
        spent_s += found.work / _LABELS_PER_S + _ROUND_S
        bound = -(-sum(duals[size] * count for size, count in counts.items()) // max(int(found.upper[0]), _UNIT))
        if bound > best:
            best, best_prices = bound, duals
        if last or (not found.chosen[0] and labels == _MOST_LABELS):
            break
        labels = _QUICK_LABELS if found.chosen[0] else _MOST_LABELS
        patterns += [dict(Counter(sizes[kind] for kind, _ in chosen)) for chosen in found.chosen[0]]
    return best, best_prices


def _duals(counts: Counter[Sizes], patterns: list[Pattern]) -> dict[Sizes, int]:
    model = mathopt.Model(name="bins")
    uses = [model.add_variable(lb=0.0) for _ in patterns]
    rows = {size: model.add_linear_constraint(lb=float(count)) for size, count in counts.items()}
    for pattern, use in zip(patterns, uses, strict=True):
        for size, count in pattern.items():
            rows[size].set_coefficient(use, float(count))
    model.minimize(mathopt.fast_sum(uses))
    outcome = solve_linear(model, Limits(deterministic_s=None))
    return {size: max(0, int(np.floor(outcome.duals.get(row.id, 0.0) * _UNIT + 0.5))) for size, row in rows.items()}


def _whole(counts: Counter[Sizes], patterns: list[Pattern], best: list[Pattern], limits: Limits) -> list[Pattern]:
    model = cp_model.CpModel()
    uses = [model.new_int_var(0, len(best), "") for _ in patterns]
    for size, count in counts.items():
        terms = [pattern[size] * use for pattern, use in zip(patterns, uses, strict=True) if size in pattern]
        model.add(cp_model.LinearExpr.sum(terms) >= count)
    model.minimize(cp_model.LinearExpr.sum(uses))
    outcome = solve(model, limits)
    if not outcome.solved:
        return best
    chosen = [pattern for pattern, use in zip(patterns, uses, strict=True) for _ in range(outcome[use])]
    return chosen if len(chosen) < len(best) else best


def _assign(instance: VectorPacking, patterns: list[Pattern]) -> tuple[int, ...]:
    """Return the bin of every item; a pattern may hold more of a size than there is."""
    places: dict[Sizes, list[int]] = {}
    for number, pattern in enumerate(patterns):
        for size, count in pattern.items():
            places.setdefault(size, []).extend([number] * count)
    taken: Counter[Sizes] = Counter()
    bins: list[int] = []
    for size in instance.items:
        bins.append(places[size][taken[size]])
        taken[size] += 1
    return tuple(bins)
