"""How many pods must leave so that *all* waiting ones come in: the departure bound with each waiting pod counted once.

For every node, the sets S of waiting pods that it can admit with k departures are enumerated (all sets of departing
pods for k <= 2, the k largest per resource beyond, so that k(S) is never too large). For prices p >= 0 of waiting
pods, the least number of departures is at least `sum p - sum_n max_S (p(S) - k_n(S))` (Lagrangian duality), rounded
up.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil

from treadle.costmodels.departures import Situation
from treadle.ir.cluster.cluster import Cluster

MOST_WAITING = 12
_MOST_SETS = 1_000
_MOST_SETS_IN_ALL = 20_000
Sets = dict[tuple[int, ...], int]
"""Set of waiting pods (by position) -> fewest departures that admit it."""


def admissions(
    cluster: Cluster, tier: int, frozen_tier: int | None, go_on: Callable[[], bool] | None = None
) -> tuple[list[int], list[Sets]] | None:
    """Return the shapes of the waiting pods of the tier and above, and what every node can admit.

    None if there are too many, or when `go_on` says no.
    """
    situation = Situation(cluster, tier, frozen_tier)
    if not 0 < len(situation.waiting) <= MOST_WAITING:
        return None
    found: list[Sets] = []
    in_all = 0
    for node in range(len(cluster.nodes)):
        if go_on is not None and not go_on():
            return None
        found.append(_of_node(situation, node))
        in_all += len(found[-1])
        if len(found[-1]) > _MOST_SETS or in_all > _MOST_SETS_IN_ALL:
            return None
    return [shape for shape, _ in situation.waiting], found


def priced_departures(nodes: list[Sets], prices: list[Fraction]) -> int:
    """Return the departures that the prices prove necessary for admitting all waiting pods."""
    total = sum(prices, Fraction(0))
    for sets in nodes:
        total -= max(
            (sum((prices[p] for p in chosen), Fraction(0)) - k for chosen, k in sets.items()), default=Fraction(0)
        )
    return max(0, ceil(total))


def _of_node(situation: Situation, node: int) -> Sets:
    admitted = [
        (position, vector)
        for position, (shape, vector) in enumerate(situation.waiting)
        if shape in situation.admitted_by[node]
    ]
    sets: Sets = {(): 0}
    for k in range(len(situation.leaving[node]) + 1):
        for space in _maximal(situation.spaces(node, k)):
            _fill(space, admitted, (), 0, k, sets)
            if len(sets) > _MOST_SETS:
                return sets
        if tuple(position for position, _ in admitted) in sets:
            break
    return sets


def _maximal(spaces: list[list[int]]) -> list[list[int]]:
    """Drop spaces that another one contains."""
    kept: list[list[int]] = []
    for space in sorted(spaces, reverse=True):
        if not any(all(a <= b for a, b in zip(space, other, strict=True)) for other in kept):
            kept.append(space)
    return kept


def _fill(
    space: list[int],
    admitted: list[tuple[int, tuple[int, ...]]],
    chosen: tuple[int, ...],
    first: int,
    k: int,
    sets: Sets,
) -> None:
    """Record every set that fits into the space."""
    for index in range(first, len(admitted)):
        position, vector = admitted[index]
        if all(amount <= free for amount, free in zip(vector, space, strict=True)):
            larger = (*chosen, position)
            sets.setdefault(larger, k)
            rest = [free - amount for amount, free in zip(vector, space, strict=True)]
            if len(sets) <= _MOST_SETS:
                _fill(rest, admitted, larger, index + 1, k, sets)
