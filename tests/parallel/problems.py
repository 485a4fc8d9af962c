"""Small training problems, made by hypothesis or by hand."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from hypothesis import strategies as st

from treadle.costmodels.training_setting import Setting, setting_of
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.model import Experts, LayerKind, Product, Shard, TrainingModel, dense_layer
from treadle.ir.training.spec import (
    ContextMode,
    Offload,
    Order,
    Pipeline,
    Recompute,
    SearchSpace,
    Sharding,
    TrainingSpec,
)

Option = TypeVar("Option", bound=Enum)


def dense_model(layers: int = 8, hidden: int = 1024, vocabulary: int = 32000, predictors: int = 0) -> TrainingModel:
    kind = dense_layer("block", hidden, 16, 4, 4 * hidden, gated=True, bias=False, dropout=False)
    return TrainingModel("tiny", hidden, vocabulary, (kind,), (("block", layers),), predictors=predictors)


def expert_layer(hidden: int = 1024, experts: int = 8) -> LayerKind:
    base = dense_layer("experts", hidden, 16, 4, hidden, gated=True, bias=False, dropout=False)
    products = (Product("gate_up", hidden, 2 * hidden, Shard.COLUMN), Product("down", hidden, hidden, Shard.ROW))
    return LayerKind(
        "experts",
        base.products,
        base.replicated_parameters,
        base.replicated_saved,
        base.sharded_saved,
        base.replicated_moved,
        base.sharded_moved,
        base.attention,
        Experts(experts, 2, products),
        5 * hidden,
    )


def mixed_model(dense: int = 2, routed: int = 6, predictors: int = 0) -> TrainingModel:
    kinds = (dense_model().kinds[0], expert_layer())
    return TrainingModel("mixed", 1024, 32000, kinds, (("block", dense), ("experts", routed)), predictors=predictors)


def problem(
    model: TrainingModel | None = None,
    gpus: int = 8,
    batch: int = 32,
    search: SearchSpace | None = None,
    network: float = 25.0,
    overlap: bool = True,
    host: float = 0.0,
) -> Setting:
    cluster = ClusterTopology((NodeGroup("a100", max(1, gpus // 4), min(gpus, 4)),), network, host_gbytes=host)
    spec = TrainingSpec(batch, 1024, overlap_gradients=overlap, search=search or SearchSpace())
    return setting_of(model or dense_model(), cluster, spec)


def some(draw: st.DrawFn, kind: type[Option], most: int = 2) -> tuple[Option, ...]:
    """A few values of an enumeration, in any order."""
    return tuple(draw(st.lists(st.sampled_from(list(kind)), min_size=1, max_size=most, unique=True)))


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    plain = Recompute.NONE, Recompute.FULL
    return SearchSpace(
        zero=draw(st.sampled_from([(0,), (1,), (0, 1), (1, 3), (2,)])),
        recompute=draw(st.sampled_from([plain, some(draw, Recompute)])),
        schedule=draw(st.sampled_from([tuple(Pipeline), tuple(Pipeline)[:2], tuple(Pipeline)[2:]])),
        sharding=some(draw, Sharding),
        context_mode=some(draw, ContextMode),
        offload=some(draw, Offload),
        overlap_tensor=draw(st.sampled_from([(False,), (True,), (False, True)])),
        order=some(draw, Order),
        most_virtual=3,
        most_micro_batch=4,
    )


@st.composite
def problems(draw: st.DrawFn) -> Setting:
    if draw(st.booleans()):
        model = dense_model(draw(st.integers(2, 7)), predictors=draw(st.integers(0, 1)))
    else:
        model = mixed_model(draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(0, 1)))
    search = draw(spaces())
    return problem(
        model,
        gpus=draw(st.sampled_from([2, 4, 8])),
        batch=draw(st.sampled_from([4, 6, 8, 12, 16])),
        search=search,
        network=draw(st.sampled_from([1.0, 10.0, 50.0])),
        overlap=draw(st.booleans()),
        host=draw(st.sampled_from([0.0, 0.05, 64.0])),
    )
