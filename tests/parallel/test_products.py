"""Products by waves of tiles, and what the GPU types bring of single kernels."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parallel.problems import dense_model, problem
from treadle.costmodels.collectives import Group, Links, all_reduce_us, bus_factor, gather_us, group_of
from treadle.costmodels.training_ends import embedding_pass, loss_pass
from treadle.costmodels.training_layer import layer_pass, product_pass, product_us
from treadle.costmodels.training_machine import Constants, links_of, training_gpu, training_gpu_ids
from treadle.costmodels.training_products import ProductFigures, product_parts
from treadle.ir.training.cluster import ClusterTopology, Curve, NodeGroup
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Recompute

FIGURES = ProductFigures(0.9, 0.7, 3.0, 5.0)
PROCESSORS, PEAK, MEMORY = 108, 312e6, 2.0e6
SIDES = st.integers(1, 64).map(lambda count: 64 * count)


def time_of(rows: int, inputs: int, outputs: int, batches: int = 1) -> float:
    shape = (float(batches), float(rows), float(inputs), float(outputs))
    return sum(product_parts(FIGURES, PROCESSORS, PEAK, MEMORY, shape))


@given(SIDES, SIDES, SIDES)
def test_a_product_is_never_faster_than_its_tiles_rate(rows: int, inputs: int, outputs: int) -> None:
    assert time_of(rows, inputs, outputs) >= 2 * rows * inputs * outputs / (PEAK * FIGURES.large_share)


@given(SIDES, SIDES, SIDES)
def test_more_rows_or_inputs_are_never_faster(rows: int, inputs: int, outputs: int) -> None:
    assert time_of(2 * rows, inputs, outputs) >= time_of(rows, inputs, outputs)
    assert time_of(rows, 2 * inputs, outputs) >= time_of(rows, inputs, outputs)


def test_a_nearly_empty_last_wave_costs_a_whole_one() -> None:
    full = time_of(256 * PROCESSORS, 4096, 128)
    more = time_of(256 * PROCESSORS + 64, 4096, 128)
    assert more == pytest.approx(2 * full, rel=0.35)
    assert time_of(2 * 256 * PROCESSORS, 4096, 128) < 2.05 * full


def test_thin_products_split_their_inner_dimension() -> None:
    thin = time_of(256, 65536, 256)
    alone = 4 * 2 * 128 * 64 * 65536 / (PEAK / PROCESSORS * FIGURES.small_share)
    assert thin < alone


def test_batches_fill_waves_together() -> None:
    assert time_of(128, 1024, 64, batches=64) < 64 * time_of(128, 1024, 64)


@pytest.mark.parametrize("name", training_gpu_ids())
def test_every_type_has_kernels_and_at_most_eight_constants(name: str) -> None:
    gpu = training_gpu(name)
    assert len(fields(Constants)) <= 8
    assert 0 < gpu.attention_share <= 1 < gpu.multiprocessors
    assert {(curve.operation, curve.ranks) for curve in gpu.curves} >= {("all_reduce", 8), ("all_gather", 8)}


def test_own_curves_come_first_and_own_links_replace_the_types_curves() -> None:
    gpu, groups = training_gpu("h100"), (NodeGroup("h100", 1, 8),)
    curve = Curve("all_reduce", 8, 1, (1 << 20,), (1.0,))
    own = links_of(ClusterTopology(groups, curves=(curve,)), gpu)
    group, size = group_of(8, 1, 8), float(1 << 20)
    assert all_reduce_us(size, group, own) == pytest.approx(size * bus_factor("all_reduce", 8) / 1e3 + own.meeting_us)
    assert links_of(ClusterTopology(groups, links_gbytes_per_s=100.0), gpu).curves == ()
    assert all_reduce_us(size, group, links_of(ClusterTopology(groups), gpu)) < 100


def test_across_nodes_the_inside_goes_by_its_curve() -> None:
    curves = tuple(Curve(name, 8, 1, (1 << 20,), (50.0,)) for name in ("all_gather", "reduce_scatter"))
    group, size = group_of(16, 1, 8), float(1 << 24)
    curved = all_reduce_us(size, group, Links(100_000.0, 25_000.0, 10.0, curves))
    assert curved > all_reduce_us(size, group, Links(100_000.0, 25_000.0, 10.0))


def test_backward_of_a_product_is_both_gradients_and_their_addition() -> None:
    setting = problem()
    both = product_us(setting, 4096, 1024, 4096) + product_us(setting, 1024, 4096, 4096)
    assert product_pass(setting, 4096, 4096, 1024).backward_us > both


def test_a_vocabulary_off_the_grid_slows_only_an_unsplit_head() -> None:
    odd, even = problem(dense_model(vocabulary=50257)), problem(dense_model(vocabulary=50264))
    whole, split = Degrees(8, 1, 1, 1, 4), Degrees(4, 2, 1, 1, 4)
    assert loss_pass(odd, whole).forward_us > 1.5 * loss_pass(even, whole).forward_us
    assert loss_pass(odd, split).forward_us == pytest.approx(loss_pass(even, split).forward_us, rel=0.05)


def test_scores_not_by_fours_run_their_softmax_in_pieces() -> None:
    base = problem()
    setting = replace(base, spec=replace(base.spec, fused_attention=False))
    kind = setting.model.kinds[0]
    assert kind.attention is not None
    heads = kind.attention.heads
    whole, apart = (layer_pass(setting, kind, Degrees(1, heads // held, 1, 1, 1)) for held in (4, 2))
    assert apart.forward_us > whole.forward_us + 4 * setting.gpu.constants.host_us_per_kernel
    fused = replace(setting, spec=replace(setting.spec, fused_attention=True))
    whole, apart = (layer_pass(fused, kind, Degrees(1, heads // held, 1, 1, 1)) for held in (4, 2))
    assert apart.forward_us < whole.forward_us + 4 * setting.gpu.constants.host_us_per_kernel


def test_embedding_and_loss_wait_for_the_host_and_are_summed_over_tensor_ranks() -> None:
    setting = problem(dense_model(vocabulary=64))
    one, two = Degrees(2, 1, 1, 1, 1), Degrees(1, 2, 1, 1, 1)
    slow = setting.gpu.constants.host_us_per_kernel
    assert embedding_pass(setting, one).forward_us == pytest.approx(5 * slow, rel=0.05)
    assert loss_pass(setting, one).forward_us == pytest.approx(20 * slow, rel=0.05)
    size = 2 * setting.spec.sequence_tokens * setting.model.hidden
    group = Group(2, 2)
    summed = gather_us(size, group, setting.links, "reduce_scatter") + gather_us(size, group, setting.links)
    spent = embedding_pass(setting, two).total_us - 1.5 * 12 * slow
    assert spent == pytest.approx(summed, rel=0.1)


def test_overlap_hides_sums_of_tensor_ranks() -> None:
    setting = problem()
    degrees = Degrees(2, 4, 1, 1, 8, recompute=Recompute.NONE)
    plain = layer_pass(setting, setting.model.kinds[0], degrees)
    hidden = layer_pass(setting, setting.model.kinds[0], replace(degrees, overlap_tensor=True))
    assert hidden.forward_us < plain.forward_us
    assert hidden.backward_us < plain.backward_us
