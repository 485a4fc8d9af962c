"""Stages on different GPU types: legality, costs by type, and the search against brute force."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parallel.problems import dense_model, mixed_model
from tests.parallel.test_cli import SPEC, codes, mutated, write
from tests.parallel.test_search import contiguous
from treadle.cli.main import main
from treadle.costmodels.training_bounds import Quick
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_memory import stage_capacities
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.costmodels.training_tails import best_with_tails
from treadle.ir.plan import load
from treadle.ir.training.check import check
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.placement import check_placement, group_of_rank, placements, stage_groups
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.space import candidates
from treadle.ir.training.spec import Offload, Order, Pipeline, Recompute, SearchSpace, TrainingSpec
from treadle.solvers.parallel.solve import search
from treadle.verification.core import verify
from treadle.verification.parallel import review_decision

TWO = ClusterTopology((NodeGroup("h100", 1, 4), NodeGroup("a100", 1, 4)), 25.0)
THREE = ClusterTopology((NodeGroup("h100", 1, 2), NodeGroup("a100", 1, 4), NodeGroup("h200", 1, 2)), 25.0)
PLACED = Degrees(2, 1, 1, 4, 1, zero=1, placement=(0, 1))


@st.composite
def mixed_problems(draw: st.DrawFn) -> Setting:
    model = draw(st.sampled_from([dense_model(3), dense_model(5, predictors=1), mixed_model(1, 3)]))
    space = SearchSpace(
        zero=draw(st.sampled_from([(0,), (1,)])),
        recompute=draw(st.sampled_from([(Recompute.NONE, Recompute.FULL), (Recompute.NONE, Recompute.MLP)])),
        schedule=(Pipeline.ONE_F_ONE_B, Pipeline.ZERO_BUBBLE),
        offload=(Offload.NONE,),
        order=(Order.DATA_FIRST, Order.PIPELINE_FIRST),
        context=(1,),
        expert=(1, 2),
        overlap_tensor=(False,),
        pipeline=draw(st.sampled_from([(), (2, 4), (4,)])),
        most_micro_batch=2,
    )
    cluster = replace(
        draw(st.sampled_from([TWO, THREE])),
        network_gbytes_per_s=draw(st.sampled_from([1.0, 50.0])),
    )
    overlap = draw(st.booleans())
    spec = TrainingSpec(draw(st.sampled_from([4, 8, 12])), 1024, overlap_gradients=overlap, search=space)
    return setting_of(model, cluster, spec)


def fits(setting: Setting, degrees: Degrees, layout: StageLayout, timer: LayerTimer) -> bool:
    stages = replay(setting, degrees, layout, timer).stages
    rooms = stage_capacities(setting, degrees)
    return all(stage.memory_bytes <= room for stage, room in zip(stages, rooms, strict=True))


@given(mixed_problems())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_search_equals_brute_force_over_placements(setting: Setting) -> None:
    timer, best = LayerTimer(setting), math.inf
    quick = Quick(setting, timer)
    for degrees in candidates(setting.model, setting.cluster, setting.spec):
        for option in choices(setting, degrees, quick):
            layout = option.layout
            assert layout is not None
            if degrees.pipeline > 1:
                layout = best_with_tails(setting, degrees, timer, layout, math.inf).layout
                assert layout is not None
            assert quick.may_fit(degrees)
            best = min(best, replay(setting, degrees, layout, timer).step_us)
    found = search(setting).found
    assert min((item.replay.step_us for item in found), default=math.inf) == best


@given(mixed_problems(), st.integers(1, 17))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_bounds_hold_for_every_layout_of_a_placement(setting: Setting, stride: int) -> None:
    timer = LayerTimer(setting)
    quick = Quick(setting, timer)
    listed = [one for one in candidates(setting.model, setting.cluster, setting.spec) if one.placement]
    for degrees in listed[:: max(stride, len(listed) // 12)]:
        every = [
            layout
            for layout in contiguous(setting.model.layers, degrees.pipeline)
            if fits(setting, degrees, layout, timer)
        ]
        times = [replay(setting, degrees, layout, timer).step_us for layout in every]
        found = choices(setting, degrees, quick)
        assert bool(found) == bool(every)
        if not found or found[0].layout is None:
            continue
        assert quick.bound_us(degrees) <= min(times) * (1 + 1e-9), degrees.text()
        assert found[0].step_us <= min(times) * (1 + 1e-9), degrees.text()
        sharp = best_with_tails(setting, degrees, timer, found[0].layout, math.inf)
        assert found[0].step_us <= sharp.step_us * (1 + 1e-9)
        assert sharp.step_us <= min(times) * (1 + 1e-9), degrees.text()
        assert sharp.layout in every


def test_the_faster_type_takes_more_layers_and_has_its_own_memory() -> None:
    space = SearchSpace(pipeline=(2,), tensor=(1,), zero=(1,), context=(1,))
    setting = setting_of(dense_model(12, 4096), TWO, TrainingSpec(32, 1024, search=space))
    best = search(setting).best
    assert best.degrees.placement
    quick, slow = (best.layout.layers[best.degrees.placement.index(group)] for group in (0, 1))
    assert quick > slow
    plain = [item for item in search(setting, top=100).found if not item.degrees.placement]
    assert min(item.replay.step_us for item in plain) > best.replay.step_us
    other = replace(best.degrees, placement=best.degrees.placement[::-1])
    swapped = replay(setting, other, best.layout)
    assert swapped.step_us > best.replay.step_us
    wide = setting_of(dense_model(12, 4096), THREE, setting.spec)
    rooms = stage_capacities(wide, Degrees(2, 1, 1, 4, 1, placement=(0, 1, 2)))
    assert rooms[0] < rooms[1] == rooms[2] < rooms[3]


def test_placements_are_every_order_of_types_that_differs() -> None:
    assert list(placements(TWO, Degrees(2, 1, 1, 4, 1))) == [(), (0, 1), (1, 0)]
    assert list(placements(TWO, Degrees(8, 1, 1, 1, 1))) == [()]
    assert len(list(placements(THREE, Degrees(1, 2, 1, 4, 1)))) == 7
    twice = ClusterTopology((*TWO.groups, TWO.groups[0]))
    assert list(placements(twice, Degrees(4, 1, 1, 3, 1))) == [(), (0, 1, 2), (0, 2, 1), (1, 0, 2)]
    assert stage_groups(TWO, PLACED) == (0, 0, 1, 1)
    assert [group_of_rank(TWO, PLACED, rank) for rank in range(8)] == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    "changes",
    [
        {"placement": (0, 0)},
        {"placement": (0,)},
        {"placement": (0, 2)},
        {"data": 8, "pipeline": 1},
        {"data": 1},
        {"order": Order.PIPELINE_FIRST},
        {"schedule": Pipeline.INTERLEAVED, "virtual": 2},
    ],
)
def test_illegal_placements(changes: dict[str, object]) -> None:
    assert check_placement(TWO, PLACED) == []
    assert {item.code for item in check_placement(TWO, replace(PLACED, **changes))} == {"TRD605"}  # type: ignore[arg-type]  # values are of the fields' types
    alike = ClusterTopology((NodeGroup("h100", 2, 4),))
    assert [item.code for item in check_placement(alike, PLACED)] == ["TRD605"]


_TYPES = SPEC.replace(
    'gpu = "a100"\nnodes = 2\ngpus_per_node = 4\n',
    '[[cluster.groups]]\ngpu = "h100"\nnodes = 1\ngpus_per_node = 4\n'
    '[[cluster.groups]]\ngpu = "a100"\nnodes = 1\ngpus_per_node = 4\n',
).replace('network = "25GB/s"\n', "")
MIXED = _TYPES.replace("[search]", "[search]\npipeline = [2, 4]\ncontext = [1]\nzero = [1]")


def test_a_mixed_plan_from_file_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parallel", str(write(tmp_path, MIXED)), "-o", str(tmp_path / "plan")]) == 0
    assert "on 4 x h100 + 4 x a100" in capsys.readouterr().out
    assert verify(tmp_path / "plan").findings == ()
    plan = load(tmp_path / "plan")
    body: ParallelBody = plan.body
    assert body.degrees.placement
    rows = list(csv.DictReader(StringIO((tmp_path / "plan" / "training" / "ranks.csv").read_text())))
    groups = stage_groups(body.cluster, body.degrees)
    assert [int(row["group"]) for row in rows] == [groups[int(row["pipeline"])] for row in rows]
    page = (tmp_path / "plan" / "report.html").read_text()
    assert "allowed on a100" in page
    assert "allowed on h100" in page
    turned = replace(body.degrees, placement=body.degrees.placement[::-1])
    assert codes(mutated(plan, degrees=turned)) & {"TRD423", "TRD424", "TRD425"}
    assert "TRD605" in codes(mutated(plan, degrees=replace(body.degrees, placement=(0, 0))))
    assert not review_decision(plan)
    assert not check(body.model, body.cluster, body.spec, body.degrees, body.layout)
    ranks = tmp_path / "plan" / "training" / "ranks.csv"
    ranks.write_text(ranks.read_text().replace(",0\n", ",1\n", 1))
    assert verify(tmp_path / "plan").findings
