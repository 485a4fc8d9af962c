"""The search against brute force: every legal choice of degrees, every layout, replayed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise, product

import pytest
from hypothesis import HealthCheck, given, settings

from tests.parallel.problems import dense_model, mixed_model, problem, problems
from treadle.costmodels.training_bounds import Bound, Quick, best_contiguous
from treadle.costmodels.training_factors import even_factor
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices, layouts
from treadle.costmodels.training_memory import capacity_bytes
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting
from treadle.costmodels.training_tails import best_with_tails
from treadle.ir.certificate import Status
from treadle.ir.training.check import check, check_batch
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.ranks import shapes
from treadle.ir.training.space import candidates, divisors
from treadle.ir.training.spec import Offload, Order, Recompute, SearchSpace
from treadle.solvers.parallel.explain import NoPlanFits, explain
from treadle.solvers.parallel.solve import certificate, search


def contiguous(layers: int, stages: int) -> Iterator[StageLayout]:
    """All splits with at least one layer on every stage but the first and the last."""
    for cuts in combinations(range(layers + stages - 1), stages - 1):
        edges = (-1, *cuts, layers + stages - 1)
        counts = tuple(b - a - 1 for a, b in pairwise(edges))
        if min(counts[1:-1], default=1) > 0:
            yield StageLayout(counts)


def legal_choices(setting: Setting) -> set[tuple[object, ...]]:
    """All choices that the checker lets pass, by trying everything; those that mean the same count once."""
    gpus, space = setting.cluster.gpus, setting.spec.search
    sides = divisors(gpus)
    found: set[tuple[object, ...]] = set()
    options = product(
        space.zero,
        space.recompute,
        space.schedule,
        space.order,
        space.sharding,
        space.context_mode,
        space.offload,
        space.overlap_tensor,
    )
    chosen = list(options)
    for tensor, context, pipeline, data in product(sides, repeat=4):
        if tensor * context * pipeline * data != gpus or pipeline > setting.model.layers + 2:
            continue
        for micro, virtual, expert in product(range(1, 5), range(1, 4), range(1, 9)):
            plain = Degrees(data, tensor, context, pipeline, micro, virtual, expert)
            if pipeline * virtual > setting.model.layers + 2 or check_batch(setting.spec, plain):
                continue
            for picked in chosen:
                trial = Degrees(data, tensor, context, pipeline, micro, virtual, expert, 1, *picked)
                if trial.zero == 0 or data * context > 1:
                    base, rest = divmod(setting.model.layers, trial.slots)
                    again = (0,) * trial.slots if trial.recompute is Recompute.STAGES else ()
                    layout = StageLayout(tuple(base + (slot < rest) for slot in range(trial.slots)), again)
                    findings = check(setting.model, setting.cluster, setting.spec, trial, layout)
                    if all(finding.code == "TRD437" for finding in findings):
                        found.add(meaning(setting, trial))
    return found


def meaning(setting: Setting, degrees: Degrees) -> tuple[object, ...]:
    """What a choice means, whatever it is called: orders by the shapes of their groups, recomputation by modules."""
    modules = degrees.recompute.modules(setting.spec.fused_attention)
    here = shapes(degrees, setting.cluster.domain)
    return replace(degrees, recompute=Recompute.NONE, order=Order.DATA_FIRST), modules, here


@given(problems())
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_space_is_exactly_what_the_checker_lets_pass(setting: Setting) -> None:
    listed = list(candidates(setting.model, setting.cluster, setting.spec))
    meant = {meaning(setting, degrees) for degrees in listed}
    assert len(listed) == len(meant)
    assert meant == legal_choices(setting)


@given(problems())
@settings(max_examples=14, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_search_equals_brute_force(setting: Setting) -> None:
    timer, best = LayerTimer(setting), math.inf
    quick = Quick(setting, timer)
    for degrees in candidates(setting.model, setting.cluster, setting.spec):
        options = choices(setting, degrees, quick)
        assert not options or quick.may_fit(degrees), degrees.text()
        for option in options:
            layout = option.layout
            assert layout is not None
            if degrees.virtual == 1 and degrees.pipeline > 1:
                layout = best_with_tails(setting, degrees, timer, layout, math.inf).layout
                assert layout is not None
            best = min(best, replay(setting, degrees, layout, timer).step_us)
    state = search(setting)
    if best == math.inf:
        assert not state.found
        return
    assert state.best.replay.step_us == best
    assert certificate(state).levels[0].status is Status.OPTIMAL
    assert certificate(state).levels[0].bound == best


@given(problems())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_bounds_hold_for_every_layout(setting: Setting) -> None:
    timer = LayerTimer(setting)
    quick = Quick(setting, timer)
    for degrees in list(candidates(setting.model, setting.cluster, setting.spec))[::23]:
        if degrees.virtual == 1:
            every = list(contiguous(setting.model.layers, degrees.pipeline))
        else:
            every = list(layouts(setting.model.layers, degrees))
        times = [replay(setting, degrees, layout, timer).step_us for layout in every]
        (bound, *_) = choices(setting, degrees, quick) or [Bound(math.inf)]
        if not times:
            continue
        assert quick.bound_us(degrees) <= min(times) * (1 + 1e-9), degrees.text()
        if bound.layout is None:
            continue
        assert bound.step_us <= min(times) * (1 + 1e-9), degrees.text()
        if degrees.virtual == 1:
            sharp = best_with_tails(setting, degrees, timer, bound.layout, math.inf)
            assert bound.step_us <= sharp.step_us * (1 + 1e-9)
            assert sharp.step_us <= min(times) * (1 + 1e-9), degrees.text()
            assert best_with_tails(setting, degrees, timer, bound.layout, sharp.step_us) == Bound(sharp.step_us)


@given(problems())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_memory_of_solved_layouts_fits_and_tight_memory_moves_layers(setting: Setting) -> None:
    timer = LayerTimer(setting)
    for degrees in list(candidates(setting.model, setting.cluster, setting.spec))[::41]:
        if degrees.virtual > 1 or degrees.offload is not Offload.NONE:
            continue
        every = list(contiguous(setting.model.layers, degrees.pipeline))
        peaks = [replay(setting, degrees, layout, timer).peak_bytes for layout in every]
        tight = replace(
            setting, gpu=replace(setting.gpu, memory_bytes=(min(peaks) + 1) / (1 - setting.spec.memory_reserve))
        )
        found = best_contiguous(tight, degrees, timer)
        assert found.layout is not None
        assert replay(tight, degrees, found.layout).peak_bytes <= capacity_bytes(tight)
        starved = replace(setting, gpu=replace(setting.gpu, memory_bytes=min(peaks) * 0.9))
        assert best_contiguous(starved, degrees, timer).layout is None


def test_even_factor_is_the_known_bubble() -> None:
    assert even_factor(1, 7) == 7
    assert even_factor(4, 12) == (12 + 3) / 4
    for ranks, count in ((4, 4), (4, 2), (8, 8), (2, 2)):
        assert count / ranks <= even_factor(ranks, count) <= (count + ranks - 1) / ranks


def test_uneven_layout_gives_the_loss_stage_fewer_layers() -> None:
    setting = problem(dense_model(16, vocabulary=256000), search=SearchSpace(pipeline=(4,), virtual=(1,), tensor=(1,)))
    best = search(setting).best
    assert best.layout.layers[-1] < max(best.layout.layers)
    even = replay(setting, best.degrees, StageLayout((4, 4, 4, 4)))
    assert best.replay.step_us < even.step_us


def test_experts_take_expert_ranks() -> None:
    setting = problem(mixed_model(), search=SearchSpace(expert=(4,), zero=(1,)))
    assert {found.degrees.expert for found in search(setting).found} == {4}


def test_conflict_is_smallest_and_names_the_way_out() -> None:
    setting = problem(dense_model(8), search=SearchSpace(recompute=(Recompute.NONE,), pipeline=(1,), tensor=(1,)))
    starved = replace(setting, gpu=replace(setting.gpu, memory_bytes=0.3e9))
    assert not search(starved).found
    error = explain(starved)
    assert isinstance(error, NoPlanFits)
    assert "memory" in str(error)
    assert "GPUs" in str(error)


def test_conflict_keeps_limits_that_stand_in_for_each_other() -> None:
    """Without one of them the other still forbids all plans; dropping both must not leave a set without conflict."""
    space = SearchSpace(recompute=(Recompute.NONE,), most_memory=int(0.3e9))
    setting = problem(dense_model(8), search=space)
    starved = replace(setting, gpu=replace(setting.gpu, memory_bytes=0.3e9))
    words = str(explain(starved))
    assert "memory of" in words or "most_memory" in words
    assert "GPUs" in words


@pytest.mark.parametrize("mode", list(Recompute))
def test_recomputation_trades_memory_for_time(mode: Recompute) -> None:
    setting = problem()
    plain = Degrees(8, 1, 1, 1, 4)
    other = replace(plain, recompute=mode)
    layout = StageLayout((8,))
    first, second = replay(setting, plain, layout), replay(setting, other, layout)
    assert second.step_us >= first.step_us
    assert second.stages[0].activation_bytes <= first.stages[0].activation_bytes
