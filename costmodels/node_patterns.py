"""Bounds on the levels of a packing from prices of pods, the contents of every node being chosen as a whole.

Let every placement be a choice of contents per node (which residents stay, which pods arrive; Gilmore and Gomory,
1961). With a price per pod that stays and per pod that arrives, and a multiplier per earlier level, Lagrangian duality
splits the objective into one knapsack per node and one tiny problem per kind of pods (how many stay, how many arrive);
their sum bounds the level. Rules between pods are ignored, which only weakens the bound.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treadle.costmodels.eligibility import Eligibility
from treadle.costmodels.migration import loads, room
from treadle.costmodels.node_contents import Offer, best_contents
from treadle.ir.cluster.cluster import PENDING, Cluster
from treadle.ir.cluster.objective import Measure

MOST_LABELS = 60_000
_MOST_CELLS = 200_000
_MOST_RESIDENTS = 40


@dataclass(frozen=True, slots=True)
class Kind:
    """Pods that the bound does not tell apart."""

    shape: int
    restart_cost: int
    priority: int
    count: int
    running: int


@dataclass(frozen=True, slots=True)
class Prices:
    """Multipliers in units of 1/`unit`: a pod that stays, one that arrives (by kind), and earlier levels by name."""

    unit: int
    stay: tuple[int, ...]
    arrive: tuple[int, ...]
    levels: dict[str, int]


@dataclass(frozen=True, slots=True)
class Patterns:
    """Kinds of pods of a tier and above, and the nodes they choose among; nodes that are alike are one with a count.

    `standing`: pods by priority that stand whatever happens.
    """

    kinds: tuple[Kind, ...]
    offer: Offer
    members: tuple[tuple[int, ...], ...]
    standing: dict[int, int]


def patterns(cluster: Cluster, tier: int, frozen_tier: int | None, *, homes: bool) -> Patterns | None:
    """Return the kinds and nodes for levels of priority >= `tier`; None where there is too much to look at.

    Pods that are pinned, or run with priority >= `frozen_tier`, stand where they are. Without `homes` it is not looked
    at who runs where: enough for levels that only count placed pods.
    """
    shape_loads = loads(cluster)
    names = sorted({name for load in shape_loads for name in load})
    free = [[room(cluster, node, name) for name in names] for node in range(len(cluster.nodes))]
    numbers: dict[tuple[int, int], int] = {}
    counts: Counter[int] = Counter()
    residents: list[list[int]] = [[] for _ in cluster.nodes]
    standing: Counter[int] = Counter()
    for index, pod in enumerate(cluster.pods):
        priority = cluster.priority(index)
        runs = pod.node != PENDING
        if runs and (pod.pinned or (frozen_tier is not None and priority >= frozen_tier)):
            standing[priority] += 1
            for position, name in enumerate(names):
                free[pod.node][position] -= shape_loads[pod.shape].get(name, 0)
        elif priority >= tier:
            kind = numbers.setdefault((pod.shape, pod.restart_cost), len(numbers))
            counts[kind] += 1
            if runs:
                residents[pod.node].append(kind)
    if not numbers or not names or len(numbers) * len(cluster.nodes) > _MOST_CELLS:
        return None
    if homes and max(map(len, residents), default=0) > _MOST_RESIDENTS:
        return None
    return _assemble(cluster, list(numbers), counts, residents, (names, shape_loads, free), dict(standing), homes)


def _assemble(
    cluster: Cluster,
    keys: list[tuple[int, int]],
    counts: Counter[int],
    residents: list[list[int]],
    amounts: tuple[list[str], list[dict[str, int]], list[list[int]]],
    standing: dict[int, int],
    homes: bool,
) -> Patterns:
    names, shape_loads, free = amounts
    running = Counter(kind for inside in residents for kind in inside)
    weights = np.array([[shape_loads[shape].get(name, 0) for name in names] for shape, _ in keys], dtype=np.int64)
    weights = weights.reshape(len(keys), len(names))
    totals = weights.T @ np.array([counts[kind] for kind in range(len(keys))], dtype=np.int64)
    binding = [r for r in range(len(names)) if any(row[r] < totals[r] for row in free)] or [0]
    eligibility = Eligibility(cluster)
    rows = np.array([eligibility.open_to(shape) for shape, _ in keys], dtype=bool).reshape(len(keys), -1)
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    masks: list[list[bool]] = []
    for n in range(len(cluster.nodes)):
        mask = rows[:, n].tolist()
        for kind in residents[n]:
            mask[kind] = mask[kind] or not homes
        masks.append(mask)
        key = (tuple(free[n][r] for r in binding), tuple(mask), tuple(sorted(residents[n])) if homes else ())
        groups[key].append(n)
    first = [members[0] for members in groups.values()]
    offer = Offer(
        np.array([[max(0, free[n][r]) for r in binding] for n in first], dtype=np.int64).reshape(len(first), -1),
        weights[:, binding],
        np.array([counts[kind] for kind in range(len(keys))], dtype=np.int64),
        np.array([masks[n] for n in first], dtype=bool).reshape(len(first), len(keys)).T,
        tuple(tuple(sorted(residents[n])) if homes else () for n in first),
    )
    kinds = tuple(
        Kind(shape, cost, cluster.shapes[shape].priority, counts[kind], running[kind])
        for kind, (shape, cost) in enumerate(keys)
    )
    return Patterns(kinds, offer, tuple(tuple(members) for members in groups.values()), standing)


def term(kind: Kind, level: Measure, stays: int, arrives: int) -> int:
    """Return what pods of a kind add to a level (as a cost: placed pods count -1)."""
    missing = max(0, kind.running - stays - arrives)
    if level.maximize:
        return -(stays + arrives) if level.floor is None or kind.priority >= level.floor else 0
    if level.name.startswith("disruption"):
        counted = level.floor is None or kind.priority >= level.floor
        return (kind.running - stays + max(0, arrives - (kind.count - kind.running))) if counted else 0
    return missing if level.name == "evicted" else kind.restart_cost * (kind.running - stays - missing)


def counted(level: Measure) -> bool:
    """Whether a level is one that these bounds know."""
    known = level.name in ("evicted", "moved") or level.name.startswith("disruption>=")
    return known or (level.maximize and level.name.startswith("placed>="))


def right_side(found: Patterns, level: Measure) -> int:
    """Return a level's value as a cost over the kinds: standing pods are no part of it."""
    if not level.maximize:
        return level.value
    return -(level.value - sum(c for p, c in found.standing.items() if level.floor is None or p >= level.floor))


def pattern_bound(found: Patterns, level: Measure, earlier: Sequence[Measure], prices: Prices) -> int | None:
    """Return the bound on the level that the prices prove, given the earlier values; None if they are no prices.

    For levels that maximize it is an upper bound, else a lower one.
    """
    if len(prices.stay) != len(found.kinds) or len(prices.arrive) != len(found.kinds) or prices.unit < 1:
        return None
    multipliers = [prices.levels.get(one.name, 0) for one in earlier]
    if min(multipliers, default=0) < 0 or not all(counted(one) for one in (level, *earlier)):
        return None
    homes = any(found.offer.residents)
    if not homes and any(not one.maximize and m for one, m in zip((level, *earlier), (1, *multipliers), strict=True)):
        return None
    total = constant_part(found, level, earlier, prices)
    stay, arrive = np.array(prices.stay, dtype=np.int64), np.array(prices.arrive, dtype=np.int64)
    lower = np.zeros(len(found.members), dtype=np.int64)
    upper = best_contents(found.offer, stay, arrive, lower, MOST_LABELS).upper
    total -= sum(int(value) * len(members) for value, members in zip(upper, found.members, strict=True))
    return finish(found, level, earlier, total, prices.unit)


def constant_part(found: Patterns, level: Measure, earlier: Sequence[Measure], prices: Prices) -> int:
    """Return the bound's part outside the nodes, in whole prices: the best split of every kind at the prices."""
    multipliers = [prices.levels.get(one.name, 0) for one in earlier]
    homes = any(found.offer.residents)
    total = -sum(m * right_side(found, one) for m, one in zip(multipliers, earlier, strict=True))
    for g, kind in enumerate(found.kinds):
        total += min(
            prices.unit * term(kind, level, stays, arrives)
            + sum(m * term(kind, one, stays, arrives) for m, one in zip(multipliers, earlier, strict=True) if m)
            + prices.stay[g] * stays
            + prices.arrive[g] * arrives
            for stays in range(kind.running + 1 if homes else 1)
            for arrives in range(kind.count - stays + 1)
        )
    return total


def finish(found: Patterns, level: Measure, earlier: Sequence[Measure], total: int, unit: int) -> int:
    """Return a bound in prices as a bound of the level: whole, and even where disruptions only come as moves."""
    if level.maximize:
        standing = sum(c for p, c in found.standing.items() if level.floor is None or p >= level.floor)
        return -total // unit + standing
    bound = max(0, -(-total // unit))
    if level.name.startswith("disruption"):
        everyone = sum(k.count for k in found.kinds if level.floor is None or k.priority >= level.floor)
        placed = next((-right_side(found, one) for one in earlier if one.maximize and one.floor == level.floor), None)
        bound += bound % 2 if placed == everyone else 0
    return bound
