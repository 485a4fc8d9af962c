"""Bounds that need no search: prices from linear programs, turned into bounds in exact rationals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ortools.math_opt.python import mathopt

from treadle.costmodels.departures import disruption_points, restart_points
from treadle.costmodels.packing_bounds import Relaxation, relaxation, volume_bound
from treadle.ir.certificate import ProofKind
from treadle.ir.cluster.cluster import Cluster
from treadle.ir.cluster.objective import Measure
from treadle.ir.codec import encode
from treadle.solvers.backend import Limits, solve_linear


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
    prices = volume_prices(relaxed)
    volume = math.floor(volume_bound(relaxed, prices))
    if volume >= total:
        return count
    return Bound(volume, ProofKind.LP_DUAL, {"tier": tier, "frozen_tier": frozen_tier, "prices": encode(prices)})


def disturbed_bound(cluster: Cluster, level: Measure, values: dict[str, int], frozen_tier: int | None) -> Bound:
    """Return the bound on disruptions or moves that follows from the earlier levels' values."""
    if not level.value:
        return Bound(0, ProofKind.COUNT, {})
    if level.name == "moved":
        points = restart_points(cluster, values[f"placed>={min(cluster.tiers)}"], values["evicted"])
        frozen_tier = None
    elif level.name.startswith("disruption") and level.floor is not None:
        points = disruption_points(cluster, level.floor, frozen_tier, values[f"placed>={level.floor}"])
    else:
        points = 0
    if not points:
        return Bound(0, ProofKind.COUNT, {})
    return Bound(points, ProofKind.RESOURCE, {} if frozen_tier is None else {"frozen_tier": frozen_tier})


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
                    uses[number].setdefault(name, []).append(share * (amount / whole))
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
