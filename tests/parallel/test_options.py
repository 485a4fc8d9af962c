"""Options besides degrees: what is legal, what they cost and hold, and the zero-bubble schedules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.parallel_oracle import measure
from tests.parallel.problems import dense_model, mixed_model, problem
from treadle.costmodels.collectives import Group
from treadle.costmodels.training_exchange import Exchange, exposed_us, reduction_us
from treadle.costmodels.training_replay import Work, replay, run
from treadle.costmodels.training_schedules import BACKWARD, FORWARD, WEIGHT, holdings, schedule_of
from treadle.costmodels.training_setting import Pass
from treadle.ir.diagnostics import Severity
from treadle.ir.training.check import check
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.ranks import position_of, shapes
from treadle.ir.training.sharing import shares
from treadle.ir.training.spec import ContextMode, Offload, Order, Pipeline, Recompute, SearchSpace, Sharding, Trainer
from treadle.ir.training.trainers import notes

PLAIN = Degrees(8, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("code", "degrees"),
    [
        ("TRD615", replace(PLAIN, recompute=Recompute.CORE)),
        ("TRD616", replace(PLAIN, zero=0, sharding=Sharding.NODE)),
        ("TRD616", replace(PLAIN, sharding=Sharding.HIERARCHICAL)),
        ("TRD616", Degrees(2, 4, 1, 1, 1, sharding=Sharding.NODE)),
        ("TRD617", replace(PLAIN, context_mode=ContextMode.ALL_TO_ALL)),
        ("TRD617", Degrees(4, 1, 2, 1, 1, context_mode=ContextMode.BIDIRECTIONAL)),
        ("TRD617", Degrees(2, 1, 4, 1, 1, context_mode=ContextMode.HIERARCHICAL)),
        ("TRD617", Degrees(1, 4, 8, 1, 1, context_mode=ContextMode.ALL_TO_ALL)),
        ("TRD618", Degrees(2, 4, 1, 1, 1, order=Order.DATA_TENSOR_CONTEXT_PIPELINE)),
        ("TRD619", replace(PLAIN, offload=Offload.OPTIMIZER)),
        ("TRD619", Degrees(2, 1, 1, 4, 1, offload=Offload.ACTIVATIONS)),
        ("TRD620", replace(PLAIN, overlap_tensor=True)),
        ("TRD435", Degrees(1, 1, 1, 8, 8, schedule=Pipeline.ZERO_BUBBLE)),
        ("TRD435", Degrees(1, 1, 1, 8, 4, 2, schedule=Pipeline.ZERO_BUBBLE_V)),
    ],
)
def test_every_rule_has_its_finding(code: str, degrees: Degrees) -> None:
    setting = problem(dense_model(16), batch=32)
    layout = StageLayout((*([1] * (degrees.slots - 1)), 17 - degrees.slots))
    assert code in {item.code for item in check(setting.model, setting.cluster, setting.spec, degrees, layout)}


def test_experts_keep_the_stages_of_the_dense_layers() -> None:
    setting = problem(mixed_model())
    degrees = Degrees(4, 1, 1, 2, 1, expert=4, order=Order.PIPELINE_FIRST)
    found = check(setting.model, setting.cluster, setting.spec, degrees, StageLayout((4, 4)))
    assert "TRD618" in {item.code for item in found}


def test_a_trainer_that_cannot_say_the_plan_is_named() -> None:
    degrees = Degrees(1, 1, 1, 8, 1, schedule=Pipeline.ZERO_BUBBLE)
    setting = problem(search=SearchSpace(trainer=Trainer.MEGATRON))
    found = check(setting.model, setting.cluster, setting.spec, degrees, StageLayout((1,) * 8))
    assert {item.code for item in found} == {"TRD621"}
    assert {item.where for item in notes(degrees)} == {"megatron", "deepspeed"}
    assert all(item.severity is Severity.WARNING for item in notes(degrees))


@pytest.mark.parametrize(("ranks", "count"), [(2, 4), (4, 8), (4, 16), (8, 16)])
def test_zero_bubble_has_the_bubble_of_the_paper(ranks: int, count: int) -> None:
    times = Pass(10.0, 20.0, 10.0)
    ends = {}
    for schedule, chunks in ((Pipeline.ONE_F_ONE_B, 1), (Pipeline.ZERO_BUBBLE, 1), (Pipeline.ZERO_BUBBLE_V, 2)):
        degrees = Degrees(1, 1, 1, ranks, 1, chunks, schedule=schedule)
        passes = tuple((times * (1 / chunks),) * chunks for _ in range(ranks))
        nothing = (0.0,) * ranks
        work = Work(passes, ((0.0,) * chunks,) * ranks, 0.0, nothing, nothing, nothing, nothing)
        ends[schedule] = max(run(work, degrees, count)[0])
    assert ends[Pipeline.ONE_F_ONE_B] == (count + ranks - 1) * 30
    assert ends[Pipeline.ZERO_BUBBLE] == count * 30 + (ranks - 1) * 10
    assert ends[Pipeline.ZERO_BUBBLE_V] <= ends[Pipeline.ZERO_BUBBLE]


@pytest.mark.parametrize("schedule", [Pipeline.ZERO_BUBBLE, Pipeline.ZERO_BUBBLE_V])
def test_zero_bubble_orders_run_everything_and_hold_no_more_than_1f1b(schedule: Pipeline) -> None:
    chunks = 2 if schedule is Pipeline.ZERO_BUBBLE_V else 1
    for ranks in (2, 3, 5):
        degrees = Degrees(1, 1, 1, ranks, 1, chunks, schedule=schedule)
        for rank in range(ranks):
            order = schedule_of(rank, degrees, 3 * ranks)
            place = {entry: number for number, entry in enumerate(order)}
            assert len(place) == len(order) == 9 * ranks * chunks
            for chunk in range(chunks):
                for microbatch in range(3 * ranks):
                    forward, backward, weight = (place[k, chunk, microbatch] for k in (FORWARD, BACKWARD, WEIGHT))
                    assert forward < backward < weight
            assert holdings(rank, ranks, chunks, schedule, 3 * ranks).sum(axis=1).max() <= ranks * chunks


def test_positions_cover_the_grid_in_every_order() -> None:
    for order in Order:
        degrees = Degrees(2, 2, 3, 2, 1, order=order)
        found = {tuple(position_of(degrees, rank).values()) for rank in range(degrees.gpus)}
        assert len(found) == degrees.gpus
    assert shapes(Degrees(4, 2, 1, 2, 1), 4).replicas == 2
    assert shapes(Degrees(4, 2, 1, 2, 1, order=Order.PIPELINE_FIRST), 4).replicas == 1


def test_groups_inside_a_domain_share_less_and_talk_less() -> None:
    wide = Degrees(8, 1, 1, 1, 1, zero=3)
    near, both = (replace(wide, sharding=kind) for kind in (Sharding.NODE, Sharding.HIERARCHICAL))
    assert [shares(item, 4)[0].weights for item in (wide, near, both)] == [8, 4, 4]
    assert [shares(item, 4)[0].optimizer for item in (wide, near, both)] == [8, 4, 8]
    setting = problem(network=1.0)
    times = [replay(setting, item, StageLayout((8,))) for item in (wide, near, both)]
    assert times[1].step_us < times[0].step_us
    assert times[0].peak_bytes < times[2].peak_bytes < times[1].peak_bytes
    assert reduction_us(3, Sharding.GLOBAL, Group(8, 4), 1e6, 5e5, setting.links) == (0.0, 0.0)


def test_context_modes_trade_traffic() -> None:
    links = problem(network=1.0).links
    exchange = Exchange(Group(8, 4), 1e6, 8e6, 4.0, 1.0)
    ring, both, turned, levels = (
        exposed_us(mode, exchange, links)
        for mode in (ContextMode.RING, ContextMode.BIDIRECTIONAL, ContextMode.ALL_TO_ALL, ContextMode.HIERARCHICAL)
    )
    assert both[0] < ring[0]
    assert levels[0] < ring[0]
    assert turned[0] != ring[0]


def test_offload_moves_memory_to_the_host() -> None:
    setting = problem(host=64.0)
    plain = replay(setting, PLAIN, StageLayout((8,)))
    for kind in (Offload.OPTIMIZER, Offload.ACTIVATIONS, Offload.BOTH):
        moved = replay(setting, replace(PLAIN, offload=kind), StageLayout((8,)))
        assert moved.peak_bytes < plain.peak_bytes
        assert moved.step_us > plain.step_us
        assert moved.stages[0].host_bytes > 0


def test_normalizations_are_recomputed_for_less_memory() -> None:
    setting = problem()
    plain = replay(setting, PLAIN, StageLayout((8,)))
    norm = replay(setting, replace(PLAIN, recompute=Recompute.NORM), StageLayout((8,)))
    assert norm.stages[0].activation_bytes < plain.stages[0].activation_bytes
    assert norm.step_us > plain.step_us


@pytest.mark.parametrize("number", [0, 3])
def test_oracle_cases(number: int) -> None:
    row = measure(number)
    assert row["equal"]
    assert row["legal"]
    assert row["bound_holds"]
    assert row["forged"] == row["forged_rejected"]


def test_without_stages_no_order_makes_a_hop_cross() -> None:
    found = {shapes(Degrees(1, 1, 8, 1, 1, order=order), 4) for order in Order}
    assert len(found) == 1
    assert not found.pop().hop_crosses
    staged = {shapes(Degrees(1, 1, 1, 8, 1, order=order), 4).hop_crosses for order in Order}
    assert staged == {True}
