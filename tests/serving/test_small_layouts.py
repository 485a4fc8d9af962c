"""Adapters, tiers and batch order against brute force, with their errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.frontends.layout_tables import read_adapters, read_batch, read_tiers
from treadle.ir.certificate import Status
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue
from treadle.ir.layout import adapters, batch, tiers
from treadle.ir.layout.errors import DoesNotFit, WrongForm
from treadle.solvers.adapters.solve import solve_adapters
from treadle.solvers.backend import Limits
from treadle.solvers.batch_order.solve import solve_batch
from treadle.solvers.tiers.solve import solve_tiers


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 3), st.integers(2, 3))
def test_adapters_equal_brute_force(loads: list[int], replicas: int, slots: int) -> None:
    problem = adapters.AdaptersProblem(
        tuple(adapters.Adapter(f"a{i}", load) for i, load in enumerate(loads)),
        tuple(adapters.Replica(f"r{g}", slots) for g in range(replicas)),
    )
    if len(loads) > replicas * slots:
        with pytest.raises(DoesNotFit):
            solve_adapters(problem)
        return
    plan, certificate = solve_adapters(problem)
    every = (adapters.AdaptersPlan(problem, homes) for homes in product(range(replicas), repeat=len(loads)))
    best = min(max(adapters.relative_loads(one)) for one in every if not adapters.check(one))
    assert adapters.check(plan) == []
    assert max(adapters.relative_loads(plan)) == best
    assert certificate.levels[0].bound is not None
    assert certificate.levels[0].bound <= best


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from((1.0, 2.0, 0.5))), min_size=2, max_size=3),
)
def test_bounds_on_peak_and_moves_hold_and_are_met(
    given: list[tuple[int, int]], replicas: list[tuple[int, float]]
) -> None:
    problem = adapters.AdaptersProblem(
        tuple(adapters.Adapter(f"a{i}", load, 0, f"r{at}" if at < 3 else "") for i, (load, at) in enumerate(given)),
        tuple(adapters.Replica(f"r{g}", slots, speed=speed) for g, (slots, speed) in enumerate(replicas)),
    )
    every = [adapters.AdaptersPlan(problem, one) for one in product(range(len(replicas)), repeat=len(given))]
    legal = [one for one in every if not adapters.check(one)]
    if not legal:
        return
    plan, _ = solve_adapters(problem)
    assert adapters.check(plan) == []
    peak = min(max(adapters.relative_loads(one)) for one in legal)
    assert adapters.load_bound(problem)[0] <= peak == max(adapters.relative_loads(plan))
    fewest = min(one.moves for one in legal if max(adapters.relative_loads(one)) == peak)
    assert adapters.least_moves(problem, peak) <= fewest == plan.moves


def test_a_large_fleet_is_levelled_to_the_bound_with_few_moves() -> None:
    random = Random(1)
    problem = adapters.AdaptersProblem(
        tuple(adapters.Adapter(f"a{i}", random.randint(1, 100), 20, f"r{i % 8}", (f"b{i % 5}",)) for i in range(120)),
        tuple(adapters.Replica(f"r{j}", 24, 1000) for j in range(8)),
        tuple(adapters.Block(f"b{k}", 100) for k in range(5)),
    )
    plan, certificate = solve_adapters(problem, Limits(deterministic_s=0.2))
    assert adapters.check(plan) == []
    assert certificate["peak load"].status is Status.OPTIMAL
    assert plan.moves <= 24


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4), st.sets(st.integers(0, 2))), min_size=1, max_size=5),
    st.integers(8, 22),
)
def test_models_with_shared_blocks_equal_brute_force(models: list[tuple[int, int, set[int]]], memory: int) -> None:
    sizes = (3, 5, 7)
    problem = adapters.AdaptersProblem(
        tuple(
            adapters.Adapter(f"m{i}", load, own, blocks=tuple(f"b{one}" for one in sorted(used)))
            for i, (load, own, used) in enumerate(models)
        ),
        tuple(adapters.Replica(f"r{g}", 5, memory) for g in range(2)),
        tuple(adapters.Block(f"b{one}", size) for one, size in enumerate(sizes)),
    )
    legal: list[adapters.AdaptersPlan] = []
    for homes in product(range(2), repeat=len(models)):
        used = [
            sum(own for (_, own, _), home in zip(models, homes, strict=True) if home == g)
            + sum(
                sizes[b] for b in set().union(*(u for (_, _, u), home in zip(models, homes, strict=True) if home == g))
            )
            for g in range(2)
        ]
        one = adapters.AdaptersPlan(problem, homes)
        assert (not adapters.check(one)) == (max(used) <= memory)
        legal += [one] if max(used) <= memory else []
    if not legal:
        with pytest.raises(DoesNotFit):
            solve_adapters(problem)
        return
    plan, _ = solve_adapters(problem)
    assert adapters.check(plan) == []
    assert max(adapters.relative_loads(plan)) == min(max(adapters.relative_loads(one)) for one in legal)
    assert plan.shared_bytes >= 0


def test_sharing_makes_models_fit_and_unknown_blocks_are_refused() -> None:
    base = (adapters.Block("base", 16),)
    tuned = tuple(adapters.Adapter(f"m{i}", 1.0, 1, blocks=("base",)) for i in range(4))
    problem = adapters.AdaptersProblem(tuned, (adapters.Replica("r", 4, 20),), base)
    plan, certificate = solve_adapters(problem)
    assert certificate.status is Status.OPTIMAL
    assert plan.shared_bytes == 48
    with pytest.raises(TreadleError, match="unknown block `head`"):
        adapters.AdaptersProblem((adapters.Adapter("a", 1, blocks=("head",)),), problem.replicas, base)
    with pytest.raises(TreadleError, match="two blocks"):
        adapters.AdaptersProblem(tuned, problem.replicas, base * 2)


def test_adapters_stay_where_they_are_when_that_costs_nothing() -> None:
    problem = adapters.AdaptersProblem(
        (adapters.Adapter("a", 5, current="r1"), adapters.Adapter("b", 5, current="r0")),
        (adapters.Replica("r0", 2), adapters.Replica("r1", 2)),
    )
    assert solve_adapters(problem)[0].moves == 0


def test_adapter_findings() -> None:
    problem = adapters.AdaptersProblem((adapters.Adapter("a", 1, 10),), (adapters.Replica("r", 1, 5),))
    assert [f.code for f in adapters.check(adapters.AdaptersPlan(problem, (0,)))] == ["TRD447"]
    assert [f.code for f in adapters.check(adapters.AdaptersPlan(problem, (3,)))] == ["TRD446"]
    with pytest.raises(DoesNotFit):
        solve_adapters(problem)


TIERS = (tiers.Tier("hbm", 100, 100.0), tiers.Tier("dram", 300, 10.0, 0.5))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(10, 80), st.integers(1, 5)), min_size=1, max_size=4), st.integers(0, 2))
def test_tiers_equal_brute_force(sizes: list[tuple[int, int]], budget: int) -> None:
    items = tuple(
        tiers.Item(f"i{i}", (tiers.Option(size), tiers.Option(size // 2, 1.0)), reads)
        for i, (size, reads) in enumerate(sizes)
    )
    problem = tiers.TiersProblem(items, TIERS, budget)
    plan, certificate = solve_tiers(problem)
    best: Fraction | None = None
    for chosen in product(product(range(2), range(2)), repeat=len(items)):
        one = tiers.TiersPlan(problem, tuple(o for o, _ in chosen), tuple(t for _, t in chosen))
        if not tiers.check(one):
            best = one.step_time_s if best is None else min(best, one.step_time_s)
    assert tiers.check(plan) == []
    assert plan.step_time_s == best
    assert certificate.status is Status.OPTIMAL


def test_tiers_findings_and_refusal() -> None:
    problem = tiers.TiersProblem((tiers.Item("w", (tiers.Option(200),), 1.0, ("hbm",)),), TIERS)
    assert [f.code for f in tiers.check(tiers.TiersPlan(problem, (0,), (0,)))] == ["TRD449"]
    assert [f.code for f in tiers.check(tiers.TiersPlan(problem, (0,), (1,)))] == ["TRD448"]
    with pytest.raises(DoesNotFit):
        solve_tiers(problem)


PATHS = st.lists(st.lists(st.integers(0, 1), max_size=4).map(tuple), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(PATHS)
def test_batch_order_and_groups_are_best(paths: list[tuple[int, ...]]) -> None:
    problem = batch.BatchProblem(tuple(paths))
    plan, certificate = solve_batch(problem)
    assert batch.check(plan) == []
    nodes = {path[: end + 1] for path in paths for end in range(len(path))}
    assert batch.computed_blocks(problem, plan.order) == len(nodes) == batch.distinct_blocks(problem)
    every = product(*[range(len(path) + 1) for path in paths])
    best = max(batch.grouped_savings(batch.BatchPlan(problem, plan.order, shared)) for shared in every)
    assert batch.grouped_savings(plan) == best
    assert certificate.status is Status.OPTIMAL


def test_batch_findings_and_cache() -> None:
    problem = batch.BatchProblem(((1, 2, 3),), cache_blocks=2)
    assert [f.code for f in batch.check(batch.BatchPlan(problem, (0,), (4,)))] == ["TRD450", "TRD451"]
    assert [f.code for f in batch.check(batch.BatchPlan(problem, (), (0,)))] == ["TRD450"]
    with pytest.raises(DoesNotFit, match="3 blocks"):
        solve_batch(problem)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: adapters.Adapter("a", 1e300), "the load 1e.300"),
        (lambda: adapters.Replica("r", 1, speed=1e-300), "speed 1e-300"),
        (lambda: adapters.Block("b", 1 << 70), "bytes"),
        (lambda: tiers.Option(1 << 90), "the size"),
        (lambda: tiers.Option(1, 1e300), "the loss"),
        (lambda: tiers.Item("i", (), 1.0), "no options"),
        (lambda: tiers.Tier("t", 1, 1e-300), "is read at"),
        (lambda: tiers.TiersProblem((tiers.Item("i", (tiers.Option(1),), 1.0),), TIERS, -1.0), "loss budget"),
    ],
)
def test_sizes_beyond_all_measure_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        make()


@pytest.mark.parametrize(
    ("option", "tier", "budget", "words"),
    [
        (tiers.Option(1, 5.0), tiers.Tier("t", 10, 1.0), 1.0, "5 of loss are needed"),
        (tiers.Option(20), tiers.Tier("t", 10, 1.0), 1.0, "20 bytes are needed"),
    ],
)
def test_what_does_not_fit_is_named(option: tiers.Option, tier: tiers.Tier, budget: float, words: str) -> None:
    with pytest.raises(DoesNotFit, match=words):
        solve_tiers(tiers.TiersProblem((tiers.Item("i", (option,), 1.0),), (tier,), budget))


def test_loss_and_room_together_are_named() -> None:
    item = tiers.Item("i", (tiers.Option(20), tiers.Option(5, 3.0)), 1.0)
    with pytest.raises(DoesNotFit, match="no choice within the loss of 1"):
        solve_tiers(tiers.TiersProblem((item,), (tiers.Tier("t", 10, 1.0),), 1.0))


def test_documents_are_read_with_places(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"adapters": [{"name": "a", "load": 1, "lod": 2}], "replicas": []}))
    with pytest.raises(TreadleError, match="unknown field `lod`") as raised:
        read_adapters(file)
    assert "adapters[0].lod" in raised.value.render()
    file.write_text(json.dumps({"items": [{"name": "a", "options": [], "reads_per_step": 1}], "tiers": []}))
    with pytest.raises(TreadleError, match="no options"):
        read_tiers(file)
    file.write_text('{"hash_ids": [1, 2]}\n{"hash_ids": "x"}\n')
    with pytest.raises(WrongForm) as second:
        read_batch(file, 512, 0)
    assert "x.json:2" in second.value.render()
    file.write_text("")
    with pytest.raises(WrongForm, match="no requests"):
        read_batch(file, 512, 0)
