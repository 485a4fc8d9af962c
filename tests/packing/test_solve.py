"""The packer against brute force, its certificates, and what the checker says to tampered ones."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import pytest

from benchmarks.packing_instances import Cell, scheduled
from tests.packing.builders import best_by_force, random_cluster
from treadle.costmodels import migration
from treadle.costmodels.admissions import admissions, priced_departures
from treadle.costmodels.departures import disruption_points
from treadle.costmodels.eligibility import Eligibility
from treadle.costmodels.packing_claims import recheck
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.cluster import PENDING, may_arrive
from treadle.ir.cluster.objective import Objective, Order, measure
from treadle.ir.cluster.placement import check
from treadle.solvers.packing.migrate import order
from treadle.solvers.packing.solve import Options, Packed, pack

BOTH = list(Order)


def values(packed: Packed) -> list[int]:
    return [int(-level.value if level.maximize else level.value) for level in packed.certificate.levels]


@pytest.mark.parametrize("objective", [Objective(order) for order in BOTH])
@pytest.mark.parametrize("rules", [False, True])
def test_equals_brute_force(objective: Objective, rules: bool) -> None:
    moving_hosts = (1023, 1046, 1137) if rules else ()  # an affinity whose only matching pod may itself move
    for seed in (*range(6), *moving_hosts):
        cluster = random_cluster(seed, rules=rules)
        packed = pack(cluster, Options(objective, deterministic_s=2.0))
        assert check(cluster, packed.placement) == []
        assert packed.certificate.status is Status.OPTIMAL
        assert values(packed) == best_by_force(cluster, objective), f"seed {seed}"
        assert recheck(cluster, packed.placement, objective, packed.certificate).findings == ()


@pytest.mark.parametrize("cell", [Cell(4, 4, 2, 95), Cell(8, 8, 4, 100), Cell(16, 8, 1, 95)])
@pytest.mark.parametrize("order_name", BOTH)
def test_generated_instances_are_packed_and_reached(cell: Cell, order_name: Order) -> None:
    cluster = scheduled(cell, 1)
    objective = Objective(order_name)
    packed = pack(cluster, Options(objective, deterministic_s=0.4))
    assert check(cluster, packed.placement) == []
    assert recheck(cluster, packed.placement, objective, packed.certificate).findings == ()
    steps = order(cluster, packed.placement)
    assert migration.check(cluster, packed.placement, steps) == []
    running = sum(node != PENDING for node in cluster.current)
    assert sum(node != PENDING for node in packed.placement.nodes) >= running


def test_runs_repeat_exactly() -> None:
    cluster = scheduled(Cell(8, 8, 2, 100), 3)
    first, second = (pack(cluster, Options(deterministic_s=0.4)) for _ in range(2))
    assert first == second


def test_without_time_the_current_placement_remains() -> None:
    cluster = scheduled(Cell(8, 8, 2, 100), 3)
    packed = pack(cluster, Options(deterministic_s=0.0))
    assert packed.placement.nodes == cluster.current


@pytest.mark.parametrize("window_s", [0.05, 0.5])
def test_windows_bind(window_s: float) -> None:
    cluster = scheduled(Cell(32, 8, 2, 100), 0)
    started = time.perf_counter()
    packed = pack(cluster, Options(window_s=window_s))
    assert time.perf_counter() - started < window_s + 0.4
    assert not check(cluster, packed.placement)
    assert not recheck(cluster, packed.placement, Objective(), packed.certificate).findings


def test_eligibility_is_what_single_questions_say() -> None:
    for seed in range(30):
        cluster = random_cluster(seed, rules=True)
        eligibility = Eligibility(cluster)
        for index, shape in enumerate(cluster.shapes):
            expected = [not may_arrive(shape, node) for node in cluster.nodes]
            assert eligibility.open_to(index).tolist() == expected


def test_departures_bound_never_exceeds_what_is_found() -> None:
    for seed in range(6):
        cluster = scheduled(Cell(8, 4, 1, 95), seed)
        packed = pack(cluster, Options(Objective(Order.DISRUPTION_FIRST), deterministic_s=0.4))
        placed, disrupted = packed.certificate.levels
        assert disruption_points(cluster, 1, None, int(placed.value)) <= disrupted.value


def test_admission_prices_are_checked() -> None:
    cluster = scheduled(Cell(4, 8, 1, 95), 0)
    waiting = sum(pod.node == PENDING for pod in cluster.pods)
    found = admissions(cluster, 1, None)
    assert found is not None
    assert len(found[0]) == waiting == 2
    assert priced_departures(found[1], [Fraction(0)] * waiting) == 0
    everyone = len(cluster.pods)
    least = pack(cluster, Options(Objective(Order.DISRUPTION_FIRST), deterministic_s=2.0)).certificate.levels
    assert least[0].value == everyone
    for price in (Fraction(1, 2), Fraction(1), Fraction(3)):
        departures = priced_departures(found[1], [price] * waiting)
        assert disruption_points(cluster, 1, None, everyone, departures) <= least[1].value


def test_claims_by_prices_are_recomputed() -> None:
    cluster = scheduled(Cell(4, 8, 1, 95), 0)
    objective = Objective(Order.DISRUPTION_FIRST)
    packed = pack(cluster, Options(objective, deterministic_s=1.0))
    placed, disrupted = packed.certificate.levels
    for prices, expected in ((["0", "0"], {"TRD476"}), (["1"], {"TRD476"}), (["x", "1"], {"TRD476"})):
        level = replace(
            disrupted,
            status=Status.FEASIBLE,
            bound=disrupted.value,
            proof=ProofKind.LP_DUAL,
            evidence={"prices": prices},
        )
        certificate = Certificate("packing", packed.certificate.cost_model, (placed, level))
        found = recheck(cluster, packed.placement, objective, certificate).findings
        assert {finding.code for finding in found} == expected


def _tampered(level: Level, **changes: object) -> Level:
    return replace(level, **changes)  # type: ignore[arg-type]  # any field


def test_tampered_certificates_are_found() -> None:
    cluster = scheduled(Cell(4, 8, 1, 95), 0)
    objective = Objective(Order.DISRUPTION_FIRST)
    packed = pack(cluster, Options(objective, deterministic_s=1.0))
    placed, disrupted = packed.certificate.levels

    def codes(*levels: Level) -> set[str]:
        certificate = Certificate("packing", packed.certificate.cost_model, levels)
        return {finding.code for finding in recheck(cluster, packed.placement, objective, certificate).findings}

    assert codes(placed, disrupted) == set()
    assert codes(placed) == {"TRD475"}
    assert codes(_tampered(placed, value=placed.value - 1, status=Status.FEASIBLE), disrupted) >= {"TRD475", "TRD477"}
    claimed = _tampered(disrupted, bound=disrupted.value, proof=ProofKind.COUNT, evidence={})
    assert codes(placed, claimed) == {"TRD476"}
    assert codes(placed, _tampered(claimed, proof=ProofKind.LP_DUAL)) == {"TRD476"}
    frozen = _tampered(claimed, proof=ProofKind.RESOURCE, evidence={"frozen_tier": 1})
    assert codes(placed, frozen) == {"TRD476"}


def test_measure_names_follow_the_order() -> None:
    cluster = scheduled(Cell(4, 4, 2, 95), 1)
    packed = pack(cluster, Options(deterministic_s=0.1))
    names = [m.name for m in measure(cluster, packed.placement, Objective(Order.PLACE_FIRST))]
    assert names == ["placed>=2", "placed>=1", "evicted", "moved"]
