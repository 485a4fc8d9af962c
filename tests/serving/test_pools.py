"""Engine pools: recursion and tree against brute force, legality, memory, goals, mutated plans."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.ir.certificate import Status
from treadle.ir.errors import InvalidValue
from treadle.ir.serving.check import check, place_engines
from treadle.ir.serving.errors import RateUnmet
from treadle.ir.serving.pools import (
    Engine,
    GpuPool,
    Objective,
    Pools,
    PoolsPlan,
    PoolsProblem,
    RequestClass,
    Role,
    Shape,
)
from treadle.ir.serving.recursion import best_pools
from treadle.solvers.serving.solve import solve_pools

ALL = (RequestClass("all", 1.0, 1000, 100),)


def engine(name: str, role: Role, gpus: int, *seconds: float, gpu: str = "h200", **more: int) -> Engine:
    kv = more.get("kv_tokens", 0), more.get("kv_tokens_needed", 0)
    return Engine(name, role, gpu, gpus, Shape(gpus), 8, seconds, kv_tokens=kv[0], kv_tokens_needed=kv[1])


@st.composite
def problems(draw: st.DrawFn) -> PoolsProblem:
    engines = tuple(
        engine(f"{role.value}{size}", role, size, 1.0 / draw(st.integers(1, 20)))
        for role in Role
        for size in draw(st.sets(st.sampled_from((1, 2, 4)), min_size=1, max_size=2))
    )
    return PoolsProblem(engines, ALL, (GpuPool("h200", (4,) * draw(st.integers(1, 2))),))


def brute_force(problem: PoolsProblem) -> float:
    """Try all counts."""
    total, best = problem.gpus[0].total, 0.0
    ranges = [range(total // one.gpus + 1) for one in problem.engines]
    for counts in product(*ranges):
        if sum(n * one.gpus for n, one in zip(counts, problem.engines, strict=True)) > total:
            continue
        rates = dict.fromkeys(Role, 0.0)
        for n, one in zip(counts, problem.engines, strict=True):
            rates[one.role] += n * float(problem.discount(one.role)) / one.seconds[0]
        best = max(best, rates[Role.AGGREGATED] + min(rates[Role.PREFILL], rates[Role.DECODE]))
    return best


@settings(max_examples=15, deadline=None)
@given(problems())
def test_recursion_and_tree_equal_brute_force(problem: PoolsProblem) -> None:
    plan, certificate = solve_pools(problem)
    best = brute_force(problem)
    assert check(plan) == []
    assert certificate.status is Status.OPTIMAL
    assert float(plan.rate_per_s) == pytest.approx(best)
    odd = replace(problem, gpus=(*problem.gpus, GpuPool("a100", (1,))))  # a second type sends it to the tree
    plan, certificate = solve_pools(odd)
    assert check(plan) == []
    assert certificate.status is Status.OPTIMAL
    assert float(plan.rate_per_s) == pytest.approx(best)


@settings(max_examples=10, deadline=None)
@given(problems(), st.integers(1, 8))
def test_fewest_gpus_is_the_first_count_that_sustains_the_rate(problem: PoolsProblem, rate: int) -> None:
    rate_per_s = rate - 0.5  # a whole rate is met or missed by rounding
    wanted = replace(problem, objective=Objective.FEWEST_GPUS, rate_per_s=rate_per_s)
    frontier = best_pools(problem)
    if frontier[-1][0] < rate_per_s:
        with pytest.raises(RateUnmet, match="at most"):
            solve_pools(wanted)
        return
    plan, certificate = solve_pools(wanted)
    assert check(plan) == []
    assert plan.gpus_used == next(gpus for gpus, (found, _) in enumerate(frontier) if found >= rate_per_s)
    by_tree, _ = solve_pools(replace(wanted, objective=Objective.LEAST_COST))
    assert float(by_tree.price) == plan.gpus_used
    assert certificate.status is Status.OPTIMAL


def test_classes_are_served_by_the_engines_that_suit_them() -> None:
    classes = (RequestClass("short", 0.5, 100, 10), RequestClass("long", 0.5, 9000, 10))
    engines = (
        engine("a", Role.AGGREGATED, 1, 0.1, 1.0),
        engine("b", Role.AGGREGATED, 1, 1.0, 0.1, gpu="b200"),
    )
    problem = PoolsProblem(engines, classes, (GpuPool("h200", (1,)), GpuPool("b200", (1,))))
    plan, certificate = solve_pools(problem)
    assert certificate.status is Status.OPTIMAL
    assert float(plan.rate_per_s) == pytest.approx(20.0)
    assert plan.pools.routing_per_s[0] == pytest.approx((10.0, 0.0))


def test_engines_stay_inside_nodes() -> None:
    engines = (engine("big", Role.AGGREGATED, 8, 0.1), engine("small", Role.AGGREGATED, 1, 10.0))
    problem = PoolsProblem(engines, ALL, (GpuPool("h200", (4, 4)),), within_nodes=True)
    assert place_engines(GpuPool("h200", (4, 4)), [8]) == (0,)
    mixed = replace(problem, gpus=(GpuPool("h200", (8, 4, 4)),))
    plan, certificate = solve_pools(mixed)
    assert check(plan) == []
    assert plan.pools.counts[0] == 1
    assert certificate.status is Status.OPTIMAL


PLAN, _ = solve_pools(
    PoolsProblem(
        (
            engine("p", Role.PREFILL, 2, 0.2),
            engine("d", Role.DECODE, 4, 0.15),
            engine("a", Role.AGGREGATED, 4, 0.5, kv_tokens=100, kv_tokens_needed=90),
        ),
        ALL,
        (GpuPool("h200", (8, 8)),),
    )
)


def mutate(
    counts: tuple[int, ...] = PLAN.pools.counts,
    routing_per_s: tuple[tuple[float, ...], ...] = PLAN.pools.routing_per_s,
) -> list[str]:
    return [finding.code for finding in check(PoolsPlan(PLAN.problem, Pools(counts, routing_per_s)))]


def test_two_hundred_mutated_plans_are_rejected() -> None:
    assert check(PLAN) == []
    counts, routing = PLAN.pools.counts, PLAN.pools.routing_per_s
    rejected = 0
    for step in range(1, 201):
        index = step % len(counts)
        if counts[index] and step % 2:
            rates = tuple((r[0] * (1 + 0.01 * step),) if i == index else r for i, r in enumerate(routing))
            rejected += bool(mutate(routing_per_s=rates))
        else:
            more = tuple(n + (8 + step if i == index else 0) for i, n in enumerate(counts))
            rejected += bool(mutate(counts=more))
    assert rejected == 200


def test_codes_of_findings() -> None:
    counts, routing = PLAN.pools.counts, PLAN.pools.routing_per_s
    assert mutate(counts=counts[:-1]) == ["TRD452"]
    assert mutate(counts=tuple(-1 for _ in counts)) == ["TRD452"]
    assert "TRD453" in mutate(counts=tuple(n + 9 for n in counts))
    assert "TRD454" in mutate(counts=tuple(0 for _ in counts))
    dropped = tuple(
        (0.0,) if one.role is Role.DECODE else r for one, r in zip(PLAN.problem.engines, routing, strict=True)
    )
    assert "TRD455" in mutate(routing_per_s=dropped)
    full = replace(PLAN.problem, engines=tuple(replace(one, kv_tokens_needed=200) for one in PLAN.problem.engines))
    assert "TRD459" in [finding.code for finding in check(PoolsPlan(full, PLAN.pools))]


def test_odd_problems_are_refused() -> None:
    with pytest.raises(InvalidValue, match="no GPUs"):
        PoolsProblem((engine("a", Role.AGGREGATED, 1, 1.0, gpu="x"),), ALL, (GpuPool("h200", (8,)),))
    with pytest.raises(InvalidValue, match="needs a rate"):
        replace(PLAN.problem, objective=Objective.FEWEST_GPUS)
    with pytest.raises(InvalidValue, match="request times"):
        engine("a", Role.AGGREGATED, 1, 0.0)
    assert isinstance(PLAN.price, Fraction)
    assert isinstance(PLAN.pools, Pools)
