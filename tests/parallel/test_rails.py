"""Leaf switches and spine: what crosses, what it costs, and which rank order follows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parallel.problems import dense_model
from treadle.costmodels.collectives import Group, Links, all_reduce_us, all_to_all_us, gather_us, send_us
from treadle.costmodels.training_setting import setting_of
from treadle.costmodels.training_traffic import hop_us
from treadle.driver.parallel import Options, plan_parallel
from treadle.frontends.training import TrainingProblem, load_training
from treadle.frontends.training_cluster import UnclearFabric
from treadle.ir.errors import InvalidValue
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.plan import Degrees
from treadle.ir.training.rails import Reach, crossings
from treadle.ir.training.ranks import position_of
from treadle.ir.training.spec import Order, Pipeline, Recompute, SearchSpace, TrainingSpec
from treadle.verification.parallel import review_decision, review_enumeration

FLAT = ClusterTopology((NodeGroup("h100", 8, 8),), 50.0)
RAILS = replace(FLAT, rails=True, spine_oversubscription=4.0)
PODS = replace(FLAT, leaf_nodes=4, spine_oversubscription=4.0)


def test_a_spine_that_takes_everything_changes_nothing() -> None:
    assert crossings(Degrees(8, 8, 1, 1, 1), replace(FLAT, rails=True, leaf_nodes=2)) is None


@pytest.mark.parametrize(
    ("degrees", "cluster", "replicas", "hop"),
    [
        (Degrees(8, 8, 1, 1, 1), RAILS, Reach(0, True), 0.0),
        (Degrees(16, 4, 1, 1, 1), RAILS, Reach(0, True), 0.0),
        (Degrees(2, 4, 1, 3, 1, order=Order.PIPELINE_FIRST), RAILS, Reach(0, False), 0.0),
        (Degrees(4, 4, 1, 3, 1, order=Order.DATA_FIRST), RAILS, Reach(0, True), 0.0),
        (Degrees(4, 8, 1, 2, 1, order=Order.DATA_FIRST), PODS, Reach(4, True), 1.0),
        (Degrees(4, 8, 1, 2, 1, order=Order.PIPELINE_FIRST), PODS, Reach(2, True), 0.0),
        (Degrees(2, 8, 1, 4, 1, order=Order.DATA_FIRST), PODS, Reach(2, True), 0.5),
    ],
)
def test_what_crosses(degrees: Degrees, cluster: ClusterTopology, replicas: Reach, hop: float) -> None:
    found = crossings(degrees, cluster)
    assert found is not None
    assert (found.replicas, found.hop) == (replicas, hop)


@given(
    st.sampled_from([(1, 2, 4), (2, 4, 2), (3, 4, 2), (2, 2, 6), (4, 3, 4), (5, 4, 2), (2, 8, 4), (3, 8, 2)]),
    st.sampled_from([Order.DATA_FIRST, Order.PIPELINE_FIRST, Order.PIPELINE_TENSOR_DATA_CONTEXT]),
)
def test_ranks_counted_one_by_one_agree(sizes: tuple[int, int, int], order: Order) -> None:
    """Where domains cut a data group into equal runs, its ranks of one place have one local index or they have not."""
    pipeline, tensor, data = sizes
    degrees = Degrees(data, tensor, 1, pipeline, 1, order=order)
    found = crossings(degrees, RAILS)
    assert found is not None
    groups: dict[tuple[int, int], list[int]] = {}
    for rank in range(degrees.gpus):
        at = position_of(degrees, rank)
        groups.setdefault((at["tp"], at["pp"]), []).append(rank)
    aligned = True
    for ranks in groups.values():
        runs = [list(run) for _, run in itertools.groupby(ranks, lambda rank: rank // 8)]
        if len({len(run) for run in runs}) > 1:
            return
        aligned &= len({tuple(rank % 8 for rank in run) for run in runs}) == 1
    assert found.replicas.aligned == aligned


def test_costs_by_hand() -> None:
    links = Links(400.0, 50.0, 0.0, rails=True, spine_oversubscription=4.0)
    size = 8e6
    plain = gather_us(size, Group(4, 1), links)
    assert plain == pytest.approx(size * 3 / 4 / 50)
    assert gather_us(size, Group(4, 1, aligned=False), links) == pytest.approx(4 * plain)
    assert gather_us(size, Group(4, 1, leaf=2), links) == pytest.approx(2 * plain)
    assert gather_us(size, Group(8, 1, leaf=4), links) == gather_us(size, Group(8, 1), links)
    assert all_reduce_us(size, Group(4, 1, leaf=1), links) == pytest.approx(8 * plain)
    assert send_us(size, True, links, 0.5) == pytest.approx(2 * size / 50)
    assert send_us(size, True, links, 0.1) == send_us(size, True, links)
    assert all_to_all_us(size, Group(16, 4), links) == pytest.approx(size * 12 / 16 / 50)
    assert all_to_all_us(size, Group(16, 4, leaf=2), links) == pytest.approx(size * 8 / 16 * 4 / 50)
    slow = replace(links, slow_bytes_per_us=400.0)
    assert all_to_all_us(size, Group(16, 4), slow) == pytest.approx(size * (3 + 12 * 3 / 4) / 16 / 400)


def problem(cluster: ClusterTopology, **space: object) -> TrainingProblem:
    search = SearchSpace(
        tensor=(8,),
        pipeline=(2,),
        context=(1,),
        zero=(1,),
        schedule=(Pipeline.ONE_F_ONE_B,),
        recompute=(Recompute.NONE,),
        overlap_tensor=(False,),
        **space,  # type: ignore[arg-type]  # fields of these types
    )
    spec = TrainingSpec(16, 2048, overlap_gradients=False, search=search)
    return TrainingProblem(dense_model(8), cluster, spec, ())


def test_the_rank_order_follows_the_pods() -> None:
    """Sums of gradients stay in a pod and the stages' hops cross, or the other way round: the cheaper of the two."""
    plan = plan_parallel(problem(replace(PODS, spine_oversubscription=7.0)), Options(1))
    cross = crossings(plan.body.degrees, plan.body.cluster)
    assert cross is not None
    assert cross.replicas.leaf == 4
    assert cross.hop == 1.0
    (other,) = plan.body.alternatives
    assert other.step_time_us > plan.body.alternatives[0].step_time_us * 0.999
    assert not review_decision(plan)
    assert not review_enumeration(setting_of(plan.body.model, plan.body.cluster, plan.body.spec), plan)[1]


def test_a_plan_without_the_spine_is_found_out() -> None:
    plan = plan_parallel(problem(PODS, order=(Order.PIPELINE_FIRST,)), Options(0))
    forged = replace(plan, body=replace(plan.body, cluster=FLAT))
    assert {finding.code for finding in review_decision(forged)} & {"TRD424", "TRD425"}


def test_hops_cross_leaves() -> None:
    spec, degrees = TrainingSpec(16, 2048), Degrees(4, 8, 1, 2, 1)
    flat, pods = (hop_us(setting_of(dense_model(8), cluster, spec), degrees) for cluster in (FLAT, PODS))
    latency = setting_of(dense_model(8), FLAT, spec).links.latency_us
    assert pods - latency == pytest.approx(4 * (flat - latency))


@pytest.mark.parametrize(
    "fields",
    [
        {"spine_oversubscription": 2.0},
        {"spine_oversubscription": 0.5, "rails": True},
        {"leaf_nodes": 3, "domain_gpus": 16},
        {"rails": True, "groups": (NodeGroup("h100", 1, 8), NodeGroup("h100", 1, 4))},
    ],
)
def test_impossible_fabrics(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidValue):
        replace(FLAT, **fields)  # type: ignore[arg-type]  # fields of these types


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("spine_oversubscription = 2.0", ("spine_oversubscription", "rails = true")),
        ("leaf_nodes = 3\ndomain_gpus = 16", ("leaf_nodes", "2 or 4")),
        ("rails = true\n[[cluster.groups]]\ngpu='h100'\nnodes=1\ngpus_per_node=4", ("8 and 4", "4 and 8")),
    ],
)
def test_messages_name_what_fits(tmp_path: Path, lines: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "training.toml"
    file.write_text(
        'model = "config.json"\n[training]\nglobal_batch = 16\nsequence_tokens = 2048\n'
        f'[cluster]\ngpu = "h100"\nnodes = 8\n{lines}\n',
        encoding="utf-8",
    )
    with pytest.raises(UnclearFabric) as caught:
        load_training(file)
    assert caught.value.place is not None
    assert caught.value.code == "TRD656"
    assert any(word in f"{caught.value} {caught.value.next_step}" for word in words)
