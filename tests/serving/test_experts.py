"""Expert placement: the published case, brute force, bounds, findings, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.frontends.layout_experts import ExpertOptions, read_experts
from treadle.ir.certificate import Status
from treadle.ir.diagnostics import TreadleError
from treadle.ir.layout.errors import InconsistentCounts, WrongForm
from treadle.ir.layout.expert_bounds import (
    bound_of,
    least_replica_load,
    least_worst_partition,
    pair_exactly,
    refuted,
)
from treadle.ir.layout.expert_skeletons import Answer, skeleton
from treadle.ir.layout.expert_traffic import cross_traffic, traffic_bound
from treadle.ir.layout.experts import ExpertsPlan, ExpertsProblem, Policy, check, gpu_loads
from treadle.ir.plan import Plan
from treadle.solvers.experts.balance import greedy, peak
from treadle.solvers.experts.solve import solve_experts
from treadle.verification.core import review_plan

README = (
    (90.0, 132.0, 40.0, 61.0, 104.0, 165.0, 39.0, 4.0, 73.0, 56.0, 183.0, 86.0),
    (20.0, 107.0, 104.0, 64.0, 19.0, 197.0, 187.0, 157.0, 172.0, 86.0, 16.0, 27.0),
)


@pytest.mark.parametrize(("policy", "peaks"), [(Policy.HIERARCHICAL, (151, 179.5)), (Policy.GLOBAL, (136, 172))])
def test_published_case_is_proven(policy: Policy, peaks: tuple[float, float]) -> None:
    plan, certificate = solve_experts(ExpertsProblem(README, 16, 8, 2, 4, policy))
    assert check(plan) == []
    assert tuple(level.value for level in certificate.levels) == peaks
    assert certificate.status is Status.OPTIMAL


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=3), st.integers(0, 1))
def test_pairing_equals_brute_force(loads: list[int], spare: int) -> None:
    slots = len(loads) + spare + (len(loads) + spare) % 2
    exact = tuple(Fraction(load) for load in loads)
    best = None
    for placed in product(range(len(loads)), repeat=slots):
        if len(set(placed)) < len(loads):
            continue
        shares = [exact[e] / placed.count(e) for e in placed]
        worst = max(shares[i] + shares[i + 1] for i in range(0, slots, 2))
        best = worst if best is None else min(best, worst)
    assert pair_exactly(exact, slots, slots // 2)[0] == best


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("seed", range(3))
def test_large_cases_stay_within_one_percent_and_never_behind_the_greedy(policy: Policy, seed: int) -> None:
    loads = np.random.default_rng(seed).lognormal(0, 1, 64)
    problem = ExpertsProblem((tuple(loads.tolist()),), 80, 16, 4, 8, policy)
    plan, certificate = solve_experts(problem)
    assert check(plan) == []
    gap = certificate.levels[0].gap
    assert gap is not None
    assert gap <= 0.01
    if policy is Policy.GLOBAL:
        assert certificate.levels[0].value <= peak(loads, greedy(loads, 80, 16)) * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=4), st.integers(0, 1), st.sampled_from([2, 3]))
def test_no_placement_goes_below_what_packings_refute(loads: list[int], spare: int, gpus: int) -> None:
    slots = len(loads) + spare + -(len(loads) + spare) % gpus
    exact = tuple(Fraction(load) for load in loads)
    best = min(
        _peak_of(exact, placed, gpus)
        for placed in product(range(len(loads)), repeat=slots)
        if len(set(placed)) == len(loads)
    )
    for target in {best, *(best * Fraction(part, 10) for part in (11, 12, 15))} - {Fraction(0)}:
        reached = skeleton(exact, slots, gpus, target).answer
        assert reached is not Answer.IMPOSSIBLE or target <= best
    problem = ExpertsProblem((tuple(map(float, loads)),), slots, gpus, 1, 1, Policy.GLOBAL)
    assert not refuted(problem, 0, best + Fraction(1, 1000))
    _, certificate = solve_experts(problem)
    assert (certificate.levels[0].bound or 0) - 1e-12 <= float(best) <= certificate.levels[0].value + 1e-12


def _peak_of(loads: tuple[Fraction, ...], placed: tuple[int, ...], gpus: int) -> Fraction:
    shares = [loads[expert] / placed.count(expert) for expert in placed]
    size = len(placed) // gpus
    return max(sum(shares[gpu * size : (gpu + 1) * size], Fraction(0)) for gpu in range(gpus))


def test_packings_of_heavy_experts_prove_what_means_and_counts_do_not() -> None:
    seven = (7.0,) * 7 + (0.01,) * 25
    problem = ExpertsProblem((seven,), 64, 32, 1, 1, Policy.GLOBAL)
    plan, certificate = solve_experts(problem)
    assert check(plan) == []
    assert certificate.levels[0].gap is not None
    assert certificate.levels[0].gap < 0.01
    assert (certificate.levels[0].bound or 0) > bound_of(problem, 0).value  # seven in 32 places: 4 or 5 replicas each


@pytest.mark.parametrize(("groups", "nodes"), [(8, 4), (16, 2), (4, 4)])
def test_hierarchical_loads_with_heavy_experts_are_proven_and_reviewed(groups: int, nodes: int) -> None:
    loads = np.random.default_rng(3).permutation(1.0 / np.arange(1, 129))
    problem = ExpertsProblem((tuple(loads.tolist()),), 144, 16, nodes, groups, Policy.HIERARCHICAL)
    plan, certificate = solve_experts(problem)
    assert check(plan) == []
    envelope = Plan("experts", (), {}, {}, plan, (certificate,), ()).sealed()
    assert review_plan(envelope, None).errors == ()
    level = certificate.levels[0]
    assert level.bound is not None
    assert level.value / level.bound < 1.01
    bold = replace(level, bound=(level.value + max(level.bound, level.value * 0.999)) / 2)
    forged = replace(envelope, certificates=(replace(certificate, levels=(bold,)),)).sealed()
    assert [finding.code for finding in review_plan(forged, None).errors] == ["TRD458"]


def test_groups_go_to_nodes_as_the_best_partition_of_brute_force_does() -> None:
    values: dict[tuple[int, ...], Fraction] = {
        pair: Fraction((pair[0] * 7 + pair[1] * 5) % 11) for pair in combinations(range(6), 2)
    }
    problem = ExpertsProblem(((1.0,) * 6,), 6, 3, 3, 6, Policy.HIERARCHICAL)
    partition, worst = least_worst_partition(problem, values.__getitem__)
    everything = [
        max(values[pair] for pair in three)
        for three in combinations(values, 3)
        if len({group for pair in three for group in pair}) == 6
    ]
    assert worst == min(everything) == max(values[pair] for pair in partition)


@pytest.mark.parametrize("policy", list(Policy))
def test_traffic_between_nodes_falls_and_the_peak_does_not_rise(policy: Policy) -> None:
    random = np.random.default_rng(1)
    tokens = random.random((4, 64)) * random.integers(0, 2, (4, 64)).repeat(1, axis=1) ** 2
    loads = tuple(tokens.sum(axis=0).tolist())
    plain = ExpertsProblem((loads,), 80, 16, 4, 8, policy)
    problem = replace(plain, sources=(tuple(tuple(node) for node in tokens.tolist()),))
    before, _ = solve_experts(plain)
    plan, certificate = solve_experts(problem)
    assert check(plan) == []
    assert max(gpu_loads(problem, 0, plan.slots[0])) <= max(gpu_loads(problem, 0, before.slots[0]))
    assert cross_traffic(problem, 0, plan.slots[0]) < cross_traffic(problem, 0, before.slots[0])
    assert [level.name for level in certificate.levels] == ["layer 0 peak", "layer 0 traffic"]
    envelope = Plan("experts", (), {}, {}, plan, (certificate,), ()).sealed()
    assert review_plan(envelope, None).errors == ()
    level = certificate.levels[1]
    bold = replace(level, bound=(level.bound or 0) + 0.5 * (level.value - (level.bound or 0)))
    forged = replace(envelope, certificates=(replace(certificate, levels=(certificate.levels[0], bold)),)).sealed()
    assert [finding.code for finding in review_plan(forged, None).errors] == ["TRD458"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=2, max_size=2))
def test_no_placement_has_less_traffic_than_the_bound(sources: list[list[int]]) -> None:
    tables = (tuple(tuple(map(float, node)) for node in sources),)
    problem = ExpertsProblem(((1.0,) * 4,), 4, 4, 2, 1, Policy.GLOBAL, tables)
    least = min(cross_traffic(problem, 0, slots) for slots in product(range(4), repeat=4) if len(set(slots)) == 4)
    assert traffic_bound(problem, 0) <= least


def test_findings() -> None:
    problem = ExpertsProblem(((4.0, 3.0, 2.0, 1.0),), 4, 2, 2, 2, Policy.HIERARCHICAL)
    assert check(ExpertsPlan(problem, ((0, 1, 2, 3),))) == []
    assert [f.code for f in check(ExpertsPlan(problem, ((0, 2, 1, 3),)))] == ["TRD445", "TRD445"]
    assert "TRD444" in [f.code for f in check(ExpertsPlan(problem, ((0, 0, 2, 3),)))]
    assert [f.code for f in check(ExpertsPlan(problem, ((0, 1, 2),)))] == ["TRD443"]
    assert [f.code for f in check(ExpertsPlan(problem, ()))] == ["TRD443"]
    assert list(gpu_loads(problem, 0, (0, 1, 2, 3))) == [7, 3]
    assert bound_of(problem, 0).value == 7


def test_reads_both_vocabularies_and_options(tmp_path: Path) -> None:
    file = tmp_path / "loads.json"
    file.write_text(json.dumps({"weight": README, "num_replicas": 16, "num_groups": 4, "num_nodes": 2, "num_gpus": 8}))
    assert read_experts(file, ExpertOptions()).policy is Policy.HIERARCHICAL
    assert read_experts(file, ExpertOptions(policy=Policy.GLOBAL)).policy is Policy.GLOBAL
    file.write_text(json.dumps([1, 2, 3]))
    assert read_experts(file, ExpertOptions(slots=4, gpus=2)).loads == ((1, 2, 3),)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ({"loads": [[1, 2]], "slots": 3, "gpus": 2}, InconsistentCounts, "3 slots do not divide"),
        ({"loads": [[1, 2]], "slots": 1, "gpus": 1}, InconsistentCounts, "cannot hold"),
        ({"loads": [[1, "x"]], "slots": 2, "gpus": 1}, WrongForm, "loads[0]"),
        ({"loads": [], "slots": 2, "gpus": 1}, WrongForm, "no loads"),
        ({"loads": [[1, 2]], "slots": 2}, TreadleError, "--gpus"),
        ({"loads": [[1, 2]], "slots": 2, "gpus": 1, "gpu": 3}, TreadleError, "did you mean"),
        ({"loads": [[1, 2]], "slots": 2, "gpus": 1, "policy": "x"}, WrongForm, "hierarchical, global"),
        ({"loads": [[1, 2], [1]], "slots": 2, "gpus": 1}, TreadleError, "different numbers"),
        ({"loads": [[1, -2]], "slots": 2, "gpus": 1}, TreadleError, "negative"),
        ({"loads": [[1, 2]], "slots": 2, "gpus": 1, "sources": [[1]]}, InconsistentCounts, "`sources` need"),
        ({"loads": [[1, 2]], "slots": 2, "gpus": 1, "sources": [[1, -1]]}, TreadleError, "negative"),
        ({"loads": [[1, 2]], "slots": 2, "gpus": 1, "sources": 7}, WrongForm, "no table of tokens"),
        ({"loads": [[1, 2]], "slots": 2, "gpus": 1, "sources": [[1, "x"]]}, WrongForm, "sources[0]"),
        ({"loads": [[1, 2]], "slots": 0, "gpus": 1}, WrongForm, "at least 1"),
    ],
)
def test_bad_documents(tmp_path: Path, data: object, error: type[TreadleError], words: str) -> None:
    file = tmp_path / "loads.json"
    file.write_text(json.dumps(data))
    with pytest.raises(error) as raised:
        read_experts(file, ExpertOptions())
    assert words in raised.value.render()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 6))
def test_the_least_replica_load_is_the_least_that_fits_the_slots(loads: list[int], spare: int) -> None:
    slots = len(loads) + spare
    fitting = [
        peak
        for peak in {Fraction(load, count) for load in loads if load for count in range(1, slots + 1)}
        if sum(max(1, ceil(load / peak)) for load in loads) <= slots
    ]
    found = least_replica_load([Fraction(load) for load in loads], slots)
    assert found == min(fitting, default=Fraction(0))
