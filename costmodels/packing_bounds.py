"""Bounds on packings from multipliers, in exact rationals: what a certificate's evidence is checked against.

*Volume* (LP duality). Nodes that admit the same pods form a class with a total capacity C. For prices l >= 0 per
class and resource, a pod of shape g costs at least k_g = min over its classes of l.a_g, so no placement has more than
`l.C + sum_g c_g max(0, 1 - k_g)` pods.

*Shares of devices.* Let weights w(s) in [0, 1] be such that no set of shares that fits on one device weighs more than
1. Then a share may be counted as w(s) of a device in the volume bound, which sees what slots alone do not: shares
never straddle.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd

import numpy as np

from treadle.costmodels.eligibility import Eligibility
from treadle.costmodels.migration import loads, room
from treadle.ir.cluster.cluster import PENDING, Cluster


@dataclass(frozen=True, slots=True)
class Item:
    """Pods of one shape that may be placed: demand by resource, how many, and the classes of nodes that admit them."""

    shape: int
    demand: dict[str, Fraction]
    count: int
    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Pods of a tier and above against node classes; `standing` pods are placed whatever happens."""

    items: tuple[Item, ...]
    capacity: tuple[dict[str, int], ...]
    standing: int


def relaxation(cluster: Cluster, tier: int | None, frozen_tier: int | None = None) -> Relaxation:
    """Return the relaxation for pods with priority >= `tier` (None: all).

    Pods that are pinned, or that run with priority >= `frozen_tier`, stand where they are (`frozen_tier` is given when
    an earlier level says that none of them is disrupted).
    """
    shape_loads = loads(cluster)
    names = sorted({name for load in shape_loads for name in load})
    free = [{name: room(cluster, node, name) for name in names} for node in range(len(cluster.nodes))]
    counts: Counter[int] = Counter()
    hosts: dict[int, set[int]] = defaultdict(set)
    standing = 0
    for index, pod in enumerate(cluster.pods):
        priority = cluster.priority(index)
        stands = pod.node != PENDING and (bool(pod.pinned) or (frozen_tier is not None and priority >= frozen_tier))
        if stands:
            for name, amount in shape_loads[pod.shape].items():
                free[pod.node][name] -= amount
        if tier is not None and priority < tier:
            continue
        standing += stands
        if not stands:
            counts[pod.shape] += 1
            hosts[pod.shape].add(pod.node)
    class_of, members = _classes(cluster, sorted(counts), hosts)
    capacity = [Counter[str]() for _ in members]
    for node, number in enumerate(class_of):
        capacity[number].update(free[node])
    items = tuple(
        Item(
            shape,
            {k: Fraction(v) for k, v in shape_loads[shape].items()},
            count,
            tuple(i for i, admitted in enumerate(members) if shape in admitted),
        )
        for shape, count in sorted(counts.items())
    )
    return Relaxation(items, tuple(dict(amounts) for amounts in capacity), standing)


def _classes(cluster: Cluster, shapes: list[int], hosts: dict[int, set[int]]) -> tuple[list[int], list[frozenset[int]]]:
    """Return the class of every node, and the shapes that each class admits (those it hosts included)."""
    eligibility = Eligibility(cluster)
    open_to = np.array([eligibility.open_to(shape) for shape in shapes], dtype=bool).reshape(len(shapes), -1)
    hosted: list[set[int]] = [set() for _ in cluster.nodes]
    for row, shape in enumerate(shapes):
        for node in hosts[shape]:
            if node != PENDING and not open_to[row, node]:
                hosted[node].add(shape)
    packed = np.packbits(open_to, axis=0)
    admitted: dict[bytes, frozenset[int]] = {}
    numbers: dict[frozenset[int], int] = {}
    class_of: list[int] = []
    for node in range(len(cluster.nodes)):
        column = packed[:, node].tobytes()
        if column not in admitted:
            admitted[column] = frozenset(shape for row, shape in enumerate(shapes) if open_to[row, node])
        members = admitted[column] | hosted[node] if hosted[node] else admitted[column]
        class_of.append(numbers.setdefault(members, len(numbers)))
    return class_of, list(numbers)


def volume_bound(relaxed: Relaxation, prices: tuple[dict[str, Fraction], ...]) -> Fraction:
    """Return the bound on placed pods that the prices prove (per class and resource, not negative)."""
    total = Fraction(relaxed.standing)
    for amounts, price in zip(relaxed.capacity, prices, strict=True):
        total += sum(
            (max(Fraction(0), price.get(name, Fraction(0))) * amount for name, amount in amounts.items()), Fraction(0)
        )
    for item in relaxed.items:
        cheapest = min(
            (
                sum(
                    (
                        max(Fraction(0), prices[c].get(name, Fraction(0))) * amount
                        for name, amount in item.demand.items()
                    ),
                    Fraction(0),
                )
                for c in item.classes
            ),
            default=Fraction(1),
        )
        total += item.count * max(Fraction(0), 1 - cheapest)
    return total


def heaviest(weights: dict[int, Fraction], slots: int) -> Fraction:
    """Return the largest total weight of shares that fit on one device (an unbounded knapsack, exactly)."""
    step = gcd(slots, *weights)
    best = [Fraction(0)] * (slots // step + 1)
    for room_left in range(1, len(best)):
        best[room_left] = max(
            (best[room_left - size // step] + weight for size, weight in weights.items() if size // step <= room_left),
            default=Fraction(0),
        )
        best[room_left] = max(best[room_left], best[room_left - 1])
    return best[-1]


def weigh_shares(cluster: Cluster, relaxed: Relaxation, weights: dict[int, Fraction]) -> Relaxation | None:
    """Return the relaxation with shares of devices counted by weight; None if the weights do not hold.

    They apply where all devices have the same number of slots, without positions, and no share is bound to stay.
    """
    kinds = {(node.devices.slots, bool(node.devices.starts)) for node in cluster.nodes if node.devices}
    if len(kinds) != 1 or relaxed.standing or any(weight < 0 for weight in weights.values()):
        return None
    slots, positioned = kinds.pop()
    if positioned or any(size < 1 for size in weights) or heaviest(weights, slots) > 1:
        return None
    items: list[Item] = []
    for item in relaxed.items:
        request = cluster.shapes[item.shape].device
        if request is None or request.count != 1 or request.slots not in weights:
            items.append(item)
        else:
            items.append(replace(item, demand={**item.demand, "device-slots": weights[request.slots] * slots}))
    return replace(relaxed, items=tuple(items))
