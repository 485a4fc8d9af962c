"""Contents of nodes against enumeration; bounds by prices against brute force; tampered prices."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from benchmarks.packing_instances import Cell, scheduled
from tests.packing.builders import best_by_force, random_cluster
from treadle.costmodels.node_contents import Offer, best_contents
from treadle.costmodels.node_patterns import Prices, pattern_bound, patterns
from treadle.costmodels.packing_claims import recheck
from treadle.ir.certificate import Certificate, ProofKind, Status
from treadle.ir.cluster.objective import Objective, Order, measure
from treadle.ir.cluster.placement import Placement
from treadle.solvers.packing.solve import Options, pack


def random_offer(seed: int) -> tuple[Offer, np.ndarray, np.ndarray]:
    source = np.random.default_rng(seed)
    kinds, nodes = int(source.integers(1, 5)), int(source.integers(1, 4))
    offer = Offer(
        source.integers(5, 12, (nodes, 2)),
        source.integers(0, 6, (kinds, 2)),
        source.integers(1, 3, kinds),
        source.random((kinds, nodes)) < 0.8,
        tuple(tuple(sorted(source.integers(0, kinds, int(source.integers(0, 3))).tolist())) for _ in range(nodes)),
    )
    return offer, source.integers(-3, 12, kinds), source.integers(-3, 9, kinds)


def by_enumeration(offer: Offer, node: int, stay: list[int], arrive: list[int]) -> int:
    """The best value: residents stay or not, up to all pods of an allowed kind arrive."""
    residents = offer.residents[node]
    best = 0
    for kept in product((0, 1), repeat=len(residents)):
        for more in product(
            *(range(int(c) + 1) if offer.allowed[g, node] else (0,) for g, c in enumerate(offer.counts))
        ):
            used = sum((k * offer.weights[g] for k, g in zip(kept, residents, strict=True)), np.zeros(2, dtype=int))
            used = used + sum((m * offer.weights[g] for g, m in enumerate(more)), np.zeros(2, dtype=int))
            if (used <= offer.capacity[node]).all():
                worth = sum(k * stay[g] for k, g in zip(kept, residents, strict=True))
                best = max(best, worth + sum(m * arrive[g] for g, m in enumerate(more)))
    return best


@pytest.mark.parametrize("seed", range(60))
def test_contents_equal_enumeration(seed: int) -> None:
    offer, stay, arrive = random_offer(seed)
    found = best_contents(offer, stay, arrive, np.zeros(len(offer.capacity), dtype=np.int64), 10_000)
    expected = [by_enumeration(offer, n, stay.tolist(), arrive.tolist()) for n in range(len(offer.capacity))]
    assert found.upper.tolist() == found.value.tolist() == expected
    for n, chosen in enumerate(found.chosen):
        if chosen:
            assert sum(int(stay[g] if stays else arrive[g]) for g, stays in chosen[0]) == expected[n]


@pytest.mark.parametrize("seed", range(20))
def test_few_labels_only_weaken_the_bound(seed: int) -> None:
    offer, stay, arrive = random_offer(seed)
    nothing = np.zeros(len(offer.capacity), dtype=np.int64)
    exact = best_contents(offer, stay, arrive, nothing, 10_000)
    rough = best_contents(offer, stay, arrive, nothing, 2)
    assert (rough.upper >= exact.value).all()
    assert (rough.value <= exact.value).all()


@pytest.mark.parametrize("order", list(Order))
def test_no_prices_bound_beyond_the_best(order: Order) -> None:
    source = random.Random(5)
    objective = Objective(order)
    for seed in range(25):
        cluster = random_cluster(seed, rules=False)
        names = measure(cluster, Placement(cluster.current), objective)
        best = [replace(m, value=abs(v)) for m, v in zip(names, best_by_force(cluster, objective), strict=True)]
        for position, level in enumerate(best):
            tier = level.floor if level.floor is not None else min(cluster.tiers)
            found = patterns(cluster, tier, None, homes=not level.maximize)
            assert found is not None
            if not level.maximize and not any(found.offer.residents):
                continue
            earlier = [one for one in best[:position] if one.maximize or not level.maximize]
            for _ in range(5):
                worths = [[source.randint(-5, 30) for _ in found.kinds] for _ in range(2)]
                levels = {one.name: source.randint(0, 20) for one in earlier}
                stay = worths[0] if not level.maximize else worths[1]
                bound = pattern_bound(found, level, earlier, Prices(10, tuple(stay), tuple(worths[1]), levels))
                assert bound is not None
                assert bound >= level.value if level.maximize else bound <= level.value


def test_tampered_prices_are_found() -> None:
    cluster = scheduled(Cell(16, 4, 1, 100), 0)
    objective = Objective(Order.DISRUPTION_FIRST)
    packed = pack(cluster, Options(objective, deterministic_s=3.0))
    placed, disrupted = packed.certificate.levels
    assert placed.proof is ProofKind.PATTERN_DUAL
    assert placed.status is Status.OPTIMAL
    prices = placed.evidence["node_prices"]

    def codes(**changes: object) -> set[str]:
        level = replace(placed, evidence={**placed.evidence, "node_prices": {**prices, **changes}})
        certificate = Certificate("packing", packed.certificate.cost_model, (level, disrupted))
        return {finding.code for finding in recheck(cluster, packed.placement, objective, certificate).findings}

    assert codes() == set()
    assert codes(arrive=[0 for _ in prices["arrive"]]) == {"TRD476"}
    assert codes(stay=prices["stay"][1:]) == {"TRD476"}
    assert codes(unit=0) == {"TRD476"}
    assert codes(levels={"placed>=1": -1}) == set()  # no earlier level of that name
    assert codes(arrive="many") == {"TRD476"}
