"""Re-derives what a packing's certificate claims: values by measuring, bounds from their evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from treadle.costmodels.admissions import admissions, priced_departures
from treadle.costmodels.departures import disruption_points, restart_points
from treadle.costmodels.node_patterns import Prices, pattern_bound, patterns
from treadle.costmodels.packing_bounds import Relaxation, relaxation, volume_bound, weigh_shares
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.cluster import Cluster
from treadle.ir.cluster.objective import Measure, Objective, Order, measure
from treadle.ir.cluster.placement import Placement
from treadle.ir.codec import decode
from treadle.ir.diagnostics import Finding, Place, TreadleError


@dataclass(frozen=True, slots=True)
class Claims:
    """Bounds re-derived, bounds on a solver's word, and what is wrong."""

    rederived: int
    on_solver_word: int
    findings: tuple[Finding, ...]


def recheck(cluster: Cluster, placement: Placement, objective: Objective, certificate: Certificate) -> Claims:
    """Measure the placement again and recompute every bound.

    Codes: TRD475 another value, TRD476 a bound its evidence does not prove, TRD477 a status that does not follow.
    """
    measured = measure(cluster, placement, objective)
    names = [level.name for level in certificate.levels]
    if names != [level.name for level in measured]:
        return Claims(
            0, 0, (Finding("TRD475", "certificate", "other levels", str([m.name for m in measured]), str(names)),)
        )
    findings: list[Finding] = []
    rederived = on_word = 0
    for position, (level, truth) in enumerate(zip(certificate.levels, measured, strict=True)):
        if level.value != truth.value or level.maximize != truth.maximize:
            findings.append(Finding("TRD475", level.name, "the value is another", str(truth.value), str(level.value)))
        if level.status is Status.OPTIMAL and any(
            x.status is not Status.OPTIMAL for x in certificate.levels[:position]
        ):
            findings.append(Finding("TRD477", level.name, "optimal after a level that is not"))
        if not level.proof.checkable:
            on_word += 1
            continue
        rederived += 2
        if problem := _bound_problem(cluster, objective, certificate.levels[:position], level, truth):
            findings.append(Finding("TRD476", level.name, problem))
    return Claims(rederived, on_word, tuple(findings))


def _bound_problem(
    cluster: Cluster, objective: Objective, earlier: tuple[Level, ...], level: Level, truth: Measure
) -> str:
    """Return why the evidence does not prove the bound, or an empty string."""
    frozen = level.evidence.get("frozen_tier")
    if frozen is not None and not frozen_follows(objective, earlier, frozen, truth.floor or 0):
        return f"no earlier level says that priorities >= {frozen} are undisturbed"
    try:
        proven = _proven(cluster, earlier, level, truth)
    except (TreadleError, KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError, IndexError) as error:
        return f"the evidence is not readable: {error!r}"
    if proven is None:
        return f"`{level.proof.value}` does not prove such a level with this evidence"
    claimed = level.bound if level.bound is not None else proven
    if (claimed < proven) if truth.maximize else (claimed > proven):
        return f"claims {claimed:g}, and the evidence proves {proven}"
    return ""


def _proven(cluster: Cluster, earlier: tuple[Level, ...], level: Level, truth: Measure) -> int | None:
    """Return the bound that the evidence proves, None if it is of no use for the level."""
    evidence: dict[str, Any] = level.evidence
    frozen = evidence.get("frozen_tier")
    if level.proof is ProofKind.COUNT:
        return _count(cluster, truth)
    if level.proof is ProofKind.PATTERN_DUAL and "node_prices" in evidence:
        return _by_contents(cluster, earlier, level, truth)
    if not truth.maximize:
        if level.proof is ProofKind.RESOURCE:
            return departure_bound(cluster, earlier, truth, frozen)
        if level.proof is ProofKind.LP_DUAL:
            return departure_bound(cluster, earlier, truth, frozen, [Fraction(p) for p in evidence["prices"]])
        return None
    if truth.floor is None or level.proof not in (ProofKind.LP_DUAL, ProofKind.PATTERN_DUAL):
        return None
    relaxed = _relaxed(cluster, truth.floor, frozen, level)
    prices = tuple({k: Fraction(v) for k, v in table.items()} for table in evidence["prices"])
    return None if relaxed is None else math.floor(volume_bound(relaxed, prices))


def _by_contents(cluster: Cluster, earlier: tuple[Level, ...], level: Level, truth: Measure) -> int | None:
    """Return the bound that prices of pods prove, the best contents of every node being found again."""
    tier = truth.floor if truth.floor is not None else min(cluster.tiers)
    prices = decode(Prices, level.evidence["node_prices"], lambda _: Place(""))
    frozen = level.evidence.get("frozen_tier")
    found = patterns(cluster, tier, frozen, homes=not truth.maximize)
    if found is None:
        return None
    before = [
        Measure(one.name, one.unit, int(one.value), one.maximize, _floor(one.name))
        for one in earlier
        if prices.levels.get(one.name)
    ]
    return pattern_bound(found, truth, before, prices)


def _floor(name: str) -> int | None:
    return int(name.split(">=")[1]) if ">=" in name else None


def _relaxed(cluster: Cluster, tier: int, frozen: int | None, level: Level) -> Relaxation | None:
    """Return the relaxation that the level's prices are for; None if its weights of shares do not hold."""
    relaxed = relaxation(cluster, tier, frozen)
    if level.proof is not ProofKind.PATTERN_DUAL:
        return relaxed
    weights = {int(size): Fraction(weight) for size, weight in level.evidence["share_weights"].items()}
    return weigh_shares(cluster, relaxed, weights)


def departure_bound(
    cluster: Cluster,
    earlier: tuple[Level, ...],
    truth: Measure,
    frozen_tier: int | None,
    prices: list[Fraction] | None = None,
) -> int:
    """Return the least disruption or moves that the earlier levels' values leave, by `departures.py`; 0 if none.

    With `prices` of the waiting pods, by `admissions.py` (only where all of them are placed).
    """
    values = {level.name: int(level.value) for level in earlier}
    tier = truth.floor if truth.floor is not None else min(cluster.tiers)
    if truth.name != "moved" and not truth.name.startswith("disruption>="):
        return 0
    placed = values[f"placed>={tier}"]
    departures = None
    if prices is not None:
        found = admissions(cluster, tier, frozen_tier)
        everyone = sum(cluster.priority(pod) >= tier for pod in range(len(cluster.pods)))
        if found is None or placed != everyone or len(prices) != len(found[0]) or min(prices) < 0:
            return 0
        departures = priced_departures(found[1], prices)
    if truth.name == "moved":
        return restart_points(cluster, placed, values["evicted"], departures)
    return disruption_points(cluster, tier, frozen_tier, placed, departures)


def _count(cluster: Cluster, truth: Measure) -> int:
    if not truth.maximize:
        return 0
    return sum(truth.floor is None or cluster.priority(pod) >= truth.floor for pod in range(len(cluster.pods)))


def frozen_follows(objective: Objective, earlier: tuple[Level, ...], frozen: int, floor: int) -> bool:
    """Whether the earlier levels' values force all running pods with priority >= `frozen` to stay."""
    if objective.order is not Order.DISRUPTION_FIRST or frozen < floor:
        return False
    return any(level.name == f"disruption>={frozen}" and level.value == 0 for level in earlier)
