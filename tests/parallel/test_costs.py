"""Closed forms, collectives, schedules and readers of the training cost model."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parallel.problems import dense_model, problem
from treadle.costmodels.collectives import Links, all_reduce_us, all_to_all_us, gather_us, group_of, interpolate
from treadle.costmodels.training_memory import layer_saved_bytes
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_schedules import order_of
from treadle.frontends.hf import parse_model
from treadle.frontends.training_model import UnsupportedTrainingLayer, training_model
from treadle.frontends.training_nccl import NotNcclTests, parse_curve
from treadle.ir.errors import InvalidValue
from treadle.ir.training.cluster import Curve
from treadle.ir.training.model import dense_layer
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute, TrainingSpec

LINKS = Links(300_000.0, 25_000.0, 10.0)
NCCL = """# nThread 1 nGpus 2 minBytes 8 maxBytes 134217728
#  Rank  0 Group  0 Pid  1 on  hostA device  0 [0x00] NVIDIA
#  Rank  1 Group  0 Pid  1 on  hostA device  1 [0x00] NVIDIA
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
     1048576        262144     float     sum      -1    20.00   52.43   52.43      0    20.00   52.43   52.43      0
    16777216       4194304     float     sum      -1    160.0  104.86  104.86      0    160.0  104.86  104.86      0
"""


@pytest.mark.parametrize(
    ("hidden", "heads", "layers", "pipeline", "virtual", "full_gib", "selective_gib"),
    [(12288, 96, 96, 8, 3, 66.85, None), (20480, 128, 105, 35, 3, 114.0, 23.1), (25600, 160, 128, 64, 1, 131.25, 26.6)],
)
def test_activations_are_korthikantis_closed_form(
    hidden: int, heads: int, layers: int, pipeline: int, virtual: int, full_gib: float, selective_gib: float | None
) -> None:
    kind = dense_layer("block", hidden, heads, heads, 4 * hidden, gated=False, bias=True, dropout=True)
    degrees = Degrees(1, 8, 1, pipeline, 1, virtual)
    held = 1 + (pipeline - 1) / (pipeline * virtual) if virtual > 1 else 1.0
    factor = layers * held / 2**30
    spec = TrainingSpec(1, 2048, "fp16", fused_attention=False, sequence_parallel=False)
    closed = 2048 * hidden * (10 + 24 / 8 + 5 * heads * 2048 / (hidden * 8))
    assert layer_saved_bytes(kind, spec, degrees, hidden, Recompute.NONE) == pytest.approx(closed, rel=1e-9)
    assert closed * factor == pytest.approx(full_gib, rel=1e-2)
    split = TrainingSpec(1, 2048, "fp16", fused_attention=False)
    selective = layer_saved_bytes(kind, split, degrees, hidden, Recompute.SELECTIVE)
    assert selective == pytest.approx(34 * 2048 * hidden / 8, rel=1e-9)
    if selective_gib:
        assert selective * factor == pytest.approx(selective_gib, rel=1e-2)
    assert layer_saved_bytes(kind, spec, degrees, hidden, Recompute.FULL) == 2 * 2048 * hidden


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 4))
def test_orders_run_everything_once_and_forward_first(ranks: int, chunks: int, groups: int) -> None:
    chunks = chunks if ranks > 1 else 1
    count = ranks * groups
    for rank in range(ranks):
        order = order_of(rank, ranks, chunks, count)
        assert len(set(order)) == len(order) == 2 * count * chunks
        for forward, chunk, microbatch in order:
            if not forward:
                assert order.index((True, chunk, microbatch)) < order.index((False, chunk, microbatch))


def test_even_pipeline_without_hops_has_the_known_bubble() -> None:
    setting = problem(dense_model(8, hidden=8192, vocabulary=8), network=1e9)
    for degrees, layout in (
        (Degrees(1, 1, 1, 4, 1, zero=0), (2, 2, 2, 2)),
        (Degrees(1, 1, 1, 4, 1, 2, zero=0, schedule=Pipeline.INTERLEAVED), (1,) * 8),
    ):
        played = replay(setting, degrees, StageLayout(layout))
        bubble = played.pipeline_us / max(played.busy_us) - 1
        assert bubble == pytest.approx(3 / (32 * degrees.virtual), rel=0.1)


def test_more_data_ranks_reduce_more_slowly_and_groups_count_their_domains() -> None:
    assert group_of(16, 1, 8).inside == 8
    assert group_of(16, 8, 8).domains == 16
    near, far = all_reduce_us(1e8, group_of(8, 1, 8), LINKS), all_reduce_us(1e8, group_of(8, 8, 8), LINKS)
    assert near < far
    assert all_reduce_us(1e8, group_of(1, 1, 8), LINKS) == 0
    assert gather_us(1e8, group_of(8, 1, 8), LINKS) == pytest.approx(near / 2)
    assert all_to_all_us(1e8, group_of(16, 1, 8), LINKS) > all_to_all_us(1e8, group_of(8, 1, 8), LINKS)


def test_measured_curves_replace_nominal_links() -> None:
    curve = parse_curve(NCCL, "nccl.txt", "all_reduce", 1)
    assert (curve.ranks, curve.sizes_bytes) == (2, (1048576, 16777216))
    links = Links(300_000.0, 25_000.0, 10.0, (curve,))
    assert all_reduce_us(16777216, group_of(2, 1, 8), links) == pytest.approx(160.0, rel=1e-3)
    middle = 4 * 1048576
    low, high = 1048576 / curve.busbw_gbytes_per_s[0], 16777216 / curve.busbw_gbytes_per_s[1]
    assert low < middle / interpolate(curve, middle) < high


@pytest.mark.parametrize(
    "text", ["", "# only comments\n", NCCL.replace("Rank", "Rnk"), NCCL.replace("20.00   52.43   52.43", "x y z")]
)
def test_other_formats_are_refused(text: str) -> None:
    with pytest.raises(NotNcclTests):
        parse_curve(text, "nccl.txt", "all_reduce", 1)


def test_curves_need_rising_sizes() -> None:
    with pytest.raises(InvalidValue):
        Curve("all_reduce", 2, 1, (2, 1), (1.0, 1.0))
    with pytest.raises(InvalidValue):
        Curve("all_reduce", 2, 1, (1,), (0.0,))


def test_a_graph_gives_the_same_layer_as_the_closed_constructor() -> None:
    text = (
        '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "intermediate_size": 4096,'
        '"num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 32000,'
        '"hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 4096}'
    )
    graph = parse_model(text)
    model = training_model(graph)
    assert model.parameters == graph.parameters()
    found, wanted = model.kinds[0], dense_model().kinds[0]
    assert (found.replicated_saved, found.sharded_saved) == (wanted.replicated_saved, wanted.sharded_saved)
    assert [product.shard for product in found.products] == [product.shard for product in wanted.products]


def test_recurrent_layers_are_refused() -> None:
    text = (
        '{"model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 4,'
        '"state_size": 128, "num_heads": 32, "head_dim": 64, "expand": 2, "conv_kernel": 4, "n_groups": 1,'
        '"vocab_size": 32000,'
        '"layer_norm_epsilon": 1e-5, "hidden_act": "silu", "chunk_size": 256}'
    )
    with pytest.raises(UnsupportedTrainingLayer):
        training_model(parse_model(text))


def test_times_are_finite_for_every_mode() -> None:
    setting = problem()
    for zero in range(4):
        played = replay(setting, Degrees(8, 1, 1, 1, 1, zero=zero), StageLayout((8,)))
        assert math.isfinite(played.step_us)
