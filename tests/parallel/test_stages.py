"""As many recomputed layers on every stage as its memory asks for: exact against all counts, legal, written, found."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.codegen.training import megatron
from treadle.codegen.training.files import files, read_back
from treadle.costmodels.training_bounds import Quick, best_contiguous
from treadle.costmodels.training_breakdown import breakdowns
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices, layouts
from treadle.costmodels.training_memory import capacity_bytes
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.costmodels.training_tails import best_with_tails
from treadle.ir.errors import InvalidValue
from treadle.ir.training.check import check_layout
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.model import TrainingModel, dense_layer
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute, SearchSpace, Trainer, TrainingSpec
from treadle.ir.training.trainers import block_of, unsaid
from treadle.solvers.parallel.solve import search

_HIDDEN = 1024
Item = TypeVar("Item")


def problem(layers: int, limit: float = 0.0, sequence: int = 4096) -> Setting:
    """Return a small problem on eight GPUs, with a limit on memory in bytes."""
    kind = dense_layer("block", _HIDDEN, 16, 4, 4 * _HIDDEN, gated=True, bias=False, dropout=False)
    model = TrainingModel("small", _HIDDEN, 32000, (kind,), (("block", layers),))
    space = SearchSpace(most_memory=round(limit), most_micro_batch=4, recompute=(Recompute.NONE, Recompute.STAGES))
    cluster = ClusterTopology((NodeGroup("a100", 2, 4),), 25.0)
    return setting_of(model, cluster, TrainingSpec(16, sequence, search=space))


def degrees_of(pipeline: int, schedule: Pipeline = Pipeline.ONE_F_ONE_B, virtual: int = 1) -> Degrees:
    """Return degrees whose stages may recompute some layers."""
    data = 8 // pipeline
    return Degrees(data, 1, 1, pipeline, 1, virtual, zero=0, recompute=Recompute.STAGES, schedule=schedule)


def peak(setting: Setting, degrees: Degrees, layout: StageLayout) -> float:
    """Return the most memory of any stage with nothing run again."""
    return replay(setting, replace(degrees, recompute=Recompute.NONE), StageLayout(layout.layers)).peak_bytes


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 6), st.sampled_from([1, 2, 4]), st.floats(0.7, 1.0), st.booleans())
def test_no_counts_are_faster_than_the_solved_ones(layers: int, pipeline: int, share: float, split: bool) -> None:
    schedule = Pipeline.ZERO_BUBBLE if split and pipeline > 1 else Pipeline.ONE_F_ONE_B
    degrees = degrees_of(pipeline, schedule)
    free = problem(layers)
    even = StageLayout(tuple(layers // pipeline + (rank < layers % pipeline) for rank in range(pipeline)))
    setting = problem(layers, share * peak(free, degrees, even))
    timer = LayerTimer(setting)
    found = best_contiguous(setting, degrees, timer)
    fitting = [
        (replay(setting, degrees, layout, timer), layout)
        for layout in (StageLayout(cut, again) for cut in cuts(layers, pipeline) for again in below(cut))
    ]
    fitting = [item for item in fitting if item[0].peak_bytes <= capacity_bytes(setting)]
    if found.layout is None:
        assert not fitting
        return
    sharp = best_with_tails(setting, degrees, timer, found.layout, math.inf) if pipeline > 1 else found
    assert sharp.layout is not None
    least = min(played.step_us for played, _ in fitting)
    assert max(found.step_us, sharp.step_us, Quick(setting, timer).bound_us(degrees)) <= least * (1 + 1e-9)
    assert replay(setting, degrees, sharp.layout, timer).peak_bytes <= capacity_bytes(setting)
    for rank, count in enumerate(sharp.layout.recomputed):
        if count:
            fewer = tuple(n - (place == rank) for place, n in enumerate(sharp.layout.recomputed))
            less = replay(setting, degrees, StageLayout(sharp.layout.layers, fewer), timer)
            assert less.peak_bytes > capacity_bytes(setting)


def cuts(layers: int, pipeline: int) -> list[tuple[int, ...]]:
    """Return all splits with a layer on every stage between the ends."""
    every = (cut for cut in product(range(layers + 1), repeat=pipeline) if sum(cut) == layers)
    return [cut for cut in every if min(cut[1:-1], default=1) > 0]


def below(cut: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return all counts of layers that run again."""
    return list(product(*(range(count + 1) for count in cut)))


@pytest.mark.parametrize(("schedule", "virtual"), [(Pipeline.INTERLEAVED, 2), (Pipeline.ZERO_BUBBLE_V, 2)])
def test_chunks_take_the_fewest_layers_that_fit(schedule: Pipeline, virtual: int) -> None:
    degrees, free = degrees_of(2, schedule, virtual), problem(8)
    first = next(layouts(8, degrees))
    setting = problem(8, 0.8 * peak(free, degrees, first))
    timer = LayerTimer(setting)
    options = choices(setting, degrees, Quick(setting, timer))
    assert options
    for option in options:
        assert option.layout is not None
        assert any(option.layout.recomputed)
        played = replay(setting, degrees, option.layout, timer)
        assert played.peak_bytes <= capacity_bytes(setting)
        assert option.step_us <= played.step_us * (1 + 1e-9)


def test_search_finds_stages_where_nothing_else_is_as_fast() -> None:
    free = problem(12)
    space = replace(free.spec.search, pipeline=(4,), tensor=(1,), context=(1,), zero=(0,), micro_batch=(1,))
    layout = StageLayout((3, 3, 3, 3))
    limit = round(0.75 * peak(free, degrees_of(4), layout))
    both = replace(space, most_memory=limit, recompute=(Recompute.NONE, Recompute.FULL, Recompute.STAGES))
    state = search(setting_of(free.model, free.cluster, replace(free.spec, search=both)), 1)
    whole = replace(both, recompute=(Recompute.NONE, Recompute.FULL))
    plain = search(setting_of(free.model, free.cluster, replace(free.spec, search=whole)), 1)
    assert state.best.degrees.recompute is Recompute.STAGES
    assert state.best.replay.step_us < plain.best.replay.step_us
    again = state.best.layout.recomputed
    assert 0 < sum(again) < 12
    parts = breakdowns(free, state.best.degrees, state.best.layout, state.best.replay)
    assert [item.parts_us["recomputation"] > 0 for item in parts] == [count > 0 for count in again]


def test_counts_outside_their_stage_are_refused() -> None:
    with pytest.raises(InvalidValue, match="from none to all"):
        StageLayout((2, 2), (3, 0))
    with pytest.raises(InvalidValue, match="from none to all"):
        StageLayout((2, 2), (1,))


def test_counts_go_with_the_mode() -> None:
    model, degrees = problem(4).model, degrees_of(2)
    (missing,) = check_layout(model, degrees, StageLayout((2, 2)))
    assert missing.code == "TRD623"
    (extra,) = check_layout(model, replace(degrees, recompute=Recompute.NONE), StageLayout((2, 2), (1, 0)))
    assert extra.code == "TRD623"
    assert not check_layout(model, degrees, StageLayout((2, 2), (1, 0)))


def body_of(layout: StageLayout) -> ParallelBody:
    """Return a plan with a layout."""
    setting, degrees = problem(sum(layout.layers)), degrees_of(len(layout.layers))
    stages = replay(setting, degrees, layout).stages
    return ParallelBody(setting.model, setting.cluster, setting.spec, degrees, layout, stages)


def test_megatron_says_equal_counts_and_reads_them_back() -> None:
    body = body_of(StageLayout((3, 3, 3, 1), (2, 2, 2, 1)))
    written = {path: text.decode() for path, text in files(body).items()}
    assert "--recompute-method block" in written["training/megatron_args.sh"]
    assert "--recompute-num-layers 2" in written["training/megatron_args.sh"]
    assert read_back(body, written) == []
    assert megatron.parse_bridge(written["training/megatron_bridge.json"], body) == (body.degrees, body.layout)
    forged = written["training/megatron_args.sh"].replace("num-layers 2", "num-layers 3")
    assert [item.code for item in read_back(body, {"training/megatron_args.sh": forged})] == ["TRD428"]


def test_other_counts_are_noted_and_not_written() -> None:
    body = body_of(StageLayout((3, 3, 3, 1), (3, 1, 0, 0)))
    written = files(body)
    assert block_of(body.layout) is None
    assert not any(path.startswith("training/megatron") for path in written)
    assert "number of recomputed layers" in written["training/notes.txt"].decode()
    assert unsaid(Trainer.MEGATRON, body.degrees)
    assert not unsaid(Trainer.MEGATRON, degrees_of(1))
