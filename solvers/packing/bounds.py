"""Bounds that need no search: prices from linear programs, turned into bounds in exact rationals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ortools.math_opt.python import mathopt

from treadle.costmodels.admissions import Sets, admissions, priced_departures
from treadle.costmodels.departures import disruption_points, fewest_departures, restart_points
from treadle.costmodels.packing_bounds import Relaxation, heaviest, relaxation, volume_bound, weigh_shares
from treadle.ir.certificate import ProofKind
from treadle.ir.cluster.cluster import Cluster
from treadle.ir.cluster.objective import Measure
from treadle.ir.codec import encode
from treadle.solvers.backend import Limits, solve_linear

_MAX_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Bound:
    """A proven limit of a level's value, and what proves it."""

    value: int
    proof: ProofKind
    evidence: dict[str, Any]


def placed_bound(cluster: Cluster, tier: int, frozen_tier: int | None, at_least: int) -> Bound:
    """Return the best cheap bound on placed pods with priority >= `tier`; `at_least` of them are placed."""
    total = sum(cluster.priority(pod) >= tier for pod in range(len(cluster.pods)))
    count = Bound(total, ProofKind.COUNT, {})
    if at_least == total:
        return count
    relaxed = relaxation(cluster, tier, frozen_tier)
    weights = share_weights(cluster)
    weighed = weigh_shares(cluster, relaxed, weights) if weights and frozen_tier is None else None
    prices = volume_prices(weighed or relaxed)
    volume = math.floor(volume_bound(weighed or relaxed, prices))
    if volume >= total:
        return count
    evidence = {"tier": tier, "frozen_tier": frozen_tier, "prices": encode(prices)}
    if weighed is not None:
        shown = {str(size): str(weight) for size, weight in weights.items()}
        return Bound(volume, ProofKind.PATTERN_DUAL, {**evidence, "share_weights": shown})
    return Bound(volume, ProofKind.LP_DUAL, evidence)


def share_weights(cluster: Cluster) -> dict[int, Fraction]:
    """Return weights of device shares from the configuration LP of packing all shares onto devices; empty without any.

    Gilmore-Gomory column generation; the pricing problem is a one-dimensional knapsack.
    """
    slots = max((node.devices.slots for node in cluster.nodes if node.devices), default=0)
    counts: Counter[int] = Counter()
    for pod in cluster.pods:
        request = cluster.shapes[pod.shape].device
        if request and request.count == 1 and request.slots < slots and not request.profile:
            counts[request.slots] += 1
    return share_patterns(counts, slots)[0] if counts else {}


def share_patterns(counts: Counter[int], slots: int) -> tuple[dict[int, Fraction], list[dict[int, int]]]:
    """Return weights of shares (see `share_weights`), and the patterns that the configuration LP is made of.

    Args:
        counts: shares by size, at least one.
        slots: of a device.
    """
    patterns = [{size: slots // size} for size in sorted(counts)]
    weights: dict[int, Fraction] = {}
    for _ in range(_MAX_ROUNDS):
        duals = _cover_duals(patterns, counts)
        best, pattern = _heaviest_pattern(duals, slots)
        scale = max(Fraction(1), heaviest(duals, slots))
        weights = {size: dual / scale for size, dual in duals.items()}
        if best <= 1 + 1e-9 or pattern in patterns:
            break
        patterns.append(pattern)
    return weights, patterns


def _cover_duals(patterns: list[dict[int, int]], counts: Counter[int]) -> dict[int, Fraction]:
    """Solve min sum z s.t. sum_p a_sp z_p >= count_s; return the duals."""
    model = mathopt.Model(name="configurations")
    uses = [model.add_variable(lb=0.0) for _ in patterns]
    rows = {
        size: model.add_linear_constraint(
            mathopt.fast_sum(
                [pattern[size] * use for pattern, use in zip(patterns, uses, strict=True) if size in pattern]
            )
            >= count
        )
        for size, count in counts.items()
    }
    model.minimize(mathopt.fast_sum(uses))
    outcome = solve_linear(model, Limits(deterministic_s=None))
    return {
        size: max(Fraction(0), Fraction(outcome.duals.get(row.id, 0.0)).limit_denominator(10**6))
        for size, row in rows.items()
    }


def _heaviest_pattern(weights: dict[int, Fraction], slots: int) -> tuple[float, dict[int, int]]:
    """Return the heaviest set of shares for one device, in floating point: (weight, count by size)."""
    best = [0.0] * (slots + 1)
    took = [0] * (slots + 1)
    for room in range(1, slots + 1):
        best[room] = best[room - 1]
        for size, weight in weights.items():
            if size <= room and best[room - size] + float(weight) > best[room] + 1e-12:
                best[room], took[room] = best[room - size] + float(weight), size
    pattern: dict[int, int] = {}
    room = slots
    while room > 0:
        if took[room]:
            pattern[took[room]] = pattern.get(took[room], 0) + 1
            room -= took[room]
        else:
            room -= 1
    return best[slots], pattern


def disturbed_bound(
    cluster: Cluster,
    level: Measure,
    values: dict[str, int],
    frozen_tier: int | None,
    *,
    thorough: bool,
    go_on: Callable[[], bool] | None = None,
) -> Bound:
    """Return the bound on disruptions or moves that follows from the earlier levels' values.

    `thorough`: also count every waiting pod once, which takes seconds on large clusters. When `go_on` says no, the
    bound is the one that needs no time.
    """
    if not level.value or not (level.name == "moved" or level.name.startswith("disruption>=")):
        return Bound(0, ProofKind.COUNT, {})
    tier = level.floor if level.floor is not None else min(cluster.tiers)
    frozen_tier = None if level.name == "moved" else frozen_tier
    placed = values[f"placed>={tier}"]
    evidence: dict[str, Any] = {} if frozen_tier is None else {"frozen_tier": frozen_tier}

    def points(departures: int) -> int:
        if level.name == "moved":
            return restart_points(cluster, placed, values["evicted"], departures)
        return disruption_points(cluster, tier, frozen_tier, placed, departures)

    plain = points(fewest_departures(cluster, tier, frozen_tier, placed, go_on))
    everyone = sum(cluster.priority(pod) >= tier for pod in range(len(cluster.pods)))
    thorough = thorough and plain < level.value and placed == everyone
    if thorough and (found := admissions(cluster, tier, frozen_tier, go_on)):
        prices = _admission_prices(found[1], len(found[0]))
        priced = points(priced_departures(found[1], prices))
        if plain < priced <= level.value:
            return Bound(priced, ProofKind.LP_DUAL, {**evidence, "prices": encode(tuple(prices))})
    return Bound(plain, ProofKind.RESOURCE, evidence) if plain else Bound(0, ProofKind.COUNT, {})


def _admission_prices(nodes: list[Sets], waiting: int) -> list[Fraction]:
    """Return prices of the waiting pods: duals of covering each by one set of one node."""
    model = mathopt.Model(name="admissions")
    covers: list[list[Any]] = [[] for _ in range(waiting)]
    costs: list[Any] = []
    for sets in nodes:
        uses = []
        for chosen, departures in sets.items():
            if not chosen:
                continue
            use = model.add_variable(lb=0.0)
            uses.append(use)
            costs.append(departures * use)
            for pod in chosen:
                covers[pod].append(use)
        if uses:
            model.add_linear_constraint(mathopt.fast_sum(uses) <= 1)
    rows = [model.add_linear_constraint(mathopt.fast_sum(cover) >= 1) for cover in covers]
    model.minimize(mathopt.fast_sum(costs))
    outcome = solve_linear(model, Limits(deterministic_s=None))
    return [max(Fraction(0), Fraction(outcome.duals.get(row.id, 0.0)).limit_denominator(10**4)) for row in rows]


def volume_prices(relaxed: Relaxation) -> tuple[dict[str, Fraction], ...]:
    """Return the prices per class and resource that the volume relaxation's dual gives."""
    model = mathopt.Model(name="volume")
    uses: list[dict[str, list[Any]]] = [{} for _ in relaxed.capacity]
    objective: list[Any] = []
    for item in relaxed.items:
        shares = [model.add_variable(lb=0.0) for _ in item.classes]
        for number, share in zip(item.classes, shares, strict=True):
            for name, amount in item.demand.items():
                if amount:
                    whole = max(1, relaxed.capacity[number].get(name, 0))
                    uses[number].setdefault(name, []).append(share * float(amount / whole))
        if shares:
            model.add_linear_constraint(mathopt.fast_sum(shares) <= item.count)
            objective += shares
    rows = {
        (number, name): model.add_linear_constraint(
            mathopt.fast_sum(terms)
            <= relaxed.capacity[number].get(name, 0) / max(1, relaxed.capacity[number].get(name, 0))
        )
        for number, names in enumerate(uses)
        for name, terms in names.items()
    }
    model.maximize(mathopt.fast_sum(objective))
    outcome = solve_linear(model, Limits(deterministic_s=None))
    prices: list[dict[str, Fraction]] = [{} for _ in relaxed.capacity]
    for (number, name), row in rows.items():
        dual = outcome.duals.get(row.id, 0.0)
        if dual > 0:
            prices[number][name] = Fraction(dual) / max(1, relaxed.capacity[number].get(name, 0))
    return tuple(prices)
