"""Trainer files say what the plan says, and altered ones are found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parallel.problems import dense_model, problem
from treadle.codegen.training import megatron
from treadle.codegen.training.errors import NotReadBack
from treadle.codegen.training.files import files, ranks, read_back
from treadle.costmodels.training_replay import replay
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.spec import ContextMode, Offload, Order, Pipeline, Recompute, Sharding, Trainer
from treadle.ir.training.trainers import unsaid


def body(degrees: Degrees, layout: tuple[int, ...], predictors: int = 0) -> ParallelBody:
    setting = problem(dense_model(sum(layout), predictors=predictors), gpus=degrees.gpus, batch=32)
    stages = replay(setting, degrees, StageLayout(layout)).stages
    return ParallelBody(setting.model, setting.cluster, setting.spec, degrees, StageLayout(layout), stages)


PLANS = [
    body(Degrees(8, 1, 1, 1, 2, zero=3), (8,)),
    body(Degrees(4, 2, 1, 1, 1, zero=0, recompute=Recompute.FULL), (8,)),
    body(Degrees(2, 2, 1, 2, 1, zero=1, recompute=Recompute.SELECTIVE), (5, 3), predictors=1),
    body(
        Degrees(1, 2, 1, 4, 1, 2, zero=0, schedule=Pipeline.INTERLEAVED, order=Order.PIPELINE_FIRST),
        (1, 2, 2, 1, 1, 1, 1, 0),
    ),
    body(Degrees(2, 1, 1, 4, 1, zero=1, schedule=Pipeline.ZERO_BUBBLE), (2, 2, 2, 2)),
    body(Degrees(4, 1, 1, 2, 2, 2, zero=0, schedule=Pipeline.ZERO_BUBBLE_V), (2, 2, 2, 2)),
    body(Degrees(8, 1, 1, 1, 1, zero=3, sharding=Sharding.NODE), (8,)),
    body(Degrees(8, 1, 1, 1, 1, zero=3, sharding=Sharding.HIERARCHICAL), (8,)),
    body(Degrees(2, 1, 4, 1, 1, zero=1, context_mode=ContextMode.ALL_TO_ALL, recompute=Recompute.MLP_NORM), (8,)),
    body(Degrees(1, 1, 8, 1, 1, zero=1, context_mode=ContextMode.HIERARCHICAL), (8,)),
    body(Degrees(4, 2, 1, 1, 1, zero=1, offload=Offload.OPTIMIZER, overlap_tensor=True), (8,)),
    body(Degrees(2, 2, 2, 1, 1, zero=3, order=Order.CONTEXT_TENSOR_DATA_PIPELINE), (8,)),
    body(Degrees(8, 1, 1, 1, 1, zero=2, offload=Offload.ACTIVATIONS), (8,)),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.degrees.text())
def test_files_read_back_as_the_plan(plan: ParallelBody) -> None:
    contents = {path: data.decode() for path, data in files(plan).items()}
    assert read_back(plan, contents) == []
    for path, text in contents.items():
        if path.endswith(".py"):
            compile(text, path, "exec")


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("training/megatron_args.sh", "--micro-batch-size 1", "--micro-batch-size 2"),
        ("training/megatron_args.sh", "Et*5|tttm", "Et*4|t*4m"),
        ("training/megatron_args.sh", "PARALLEL_ARGS=(", "ARGS=("),
        ("training/megatron_bridge.json", '"tensor_model_parallel_size": 2', '"tensor_model_parallel_size": 4'),
        ("training/megatron_bridge.json", "{", ""),
        ("training/torchtitan.args", "tensor_parallel_degree=2", "tensor_parallel_degree=1"),
        ("training/torchtitan.args", "local_batch_size=16", "local_batch_size=15"),
    ],
)
def test_altered_files_are_found(path: str, old: str, new: str) -> None:
    plan = PLANS[2]
    text = files(plan)[path].decode()
    assert old in text
    assert [finding.code for finding in read_back(plan, {path: text.replace(old, new, 1)})][:1] == ["TRD428"]


def test_what_a_trainer_cannot_say_has_no_file_and_a_note() -> None:
    names = {Trainer.MEGATRON: "megatron_args.sh", Trainer.TORCHTITAN: "torchtitan.args"}
    names[Trainer.DEEPSPEED] = "deepspeed.json"
    for plan in PLANS:
        written = files(plan)
        for trainer, name in names.items():
            reasons = unsaid(trainer, plan.degrees)
            assert (f"training/{name}" in written) == (not reasons)
            if reasons:
                assert f"TRD621: {trainer.value}" in written["training/notes.txt"].decode()


@pytest.mark.parametrize(
    ("number", "path", "old", "new"),
    [
        (2, "training/ranks.csv", "\n1,1,0,0,0", "\n1,0,0,0,0"),
        (2, "training/schedule.csv", "0F1", "0F2"),
        (2, "training/schedule.csv", "0F1", "1F1"),
        (2, "training/device_mesh.py", "'tp': 2", "'tp': 1"),
        (2, "training/device_mesh.py", "SIZES", "SIZE"),
        (2, "training/torchtitan_config.py", "layers.5", "layers.6"),
        (0, "training/deepspeed.json", '"stage": 3', '"stage": 2'),
        (4, "training/torchtitan.args", "PipelineScheduleMulti", "1F1B"),
        (6, "training/megatron_args.sh", "--num-distributed-optimizer-instances 2", ""),
        (8, "training/megatron_args.sh", "a2a", "p2p"),
        (8, "training/megatron_args.sh", "mlp layernorm", "mlp"),
        (10, "training/megatron_bridge.json", '"optimizer_cpu_offload": true', '"optimizer_cpu_offload": false'),
        (10, "training/megatron_args.sh", "--tp-comm-overlap", ""),
    ],
)
def test_every_altered_file_is_found(number: int, path: str, old: str, new: str) -> None:
    plan = PLANS[number]
    text = files(plan)[path].decode()
    assert old in text
    assert [finding.code for finding in read_back(plan, {path: text.replace(old, new)})] == ["TRD428"]


PIPELINES = [plan for plan in PLANS if plan.degrees.pipeline > 1]


@pytest.mark.parametrize("plan", PIPELINES, ids=lambda plan: plan.degrees.text())
def test_pytorch_reads_the_schedule(plan: ParallelBody) -> None:
    """PyTorch's own parser and its checks accept the file (no process group is needed for them)."""
    schedules: Any = pytest.importorskip("torch.distributed.pipelining.schedules")
    lines = files(plan)["training/schedule.csv"].decode().splitlines()
    rows = [[schedules._Action.from_str(cell) for cell in line.split(",")] for line in lines]
    degrees = plan.degrees
    count = degrees.microbatches(plan.spec.global_batch)
    assert all(degrees.rank_of(action.stage_index) == rank for rank, row in enumerate(rows) for action in row)
    schedules._validate_schedule(dict(enumerate(rows)), degrees.pipeline, degrees.slots, count)
    assert sum(map(len, rows)) == degrees.slots * count * (3 if degrees.schedule.splits_backward else 2)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(0, 2))
def test_layout_strings_round_trip(counts: list[int], predictors: int) -> None:
    layout = StageLayout(tuple(counts))
    assert megatron.parse_layout(megatron.layout_text(layout, predictors)) == (layout, predictors)


def test_layout_string_of_the_megatron_documentation() -> None:
    layout, predictors = megatron.parse_layout("Et*3|tt|tt|m|L".replace("m|L", "mL"))
    assert (layout.layers, predictors) == ((3, 2, 2, 0), 1)
    with pytest.raises(NotReadBack):
        megatron.parse_layout("Ex|tL")


def test_ranks_cover_every_place_once() -> None:
    for order in Order:
        degrees = replace(PLANS[2].degrees, order=order)
        places = [line.split(",")[1:] for line in ranks(degrees, PLANS[2].cluster).splitlines()[1:]]
        assert len({tuple(place) for place in places}) == degrees.gpus
