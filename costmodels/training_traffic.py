"""Traffic of a step: sums over tensor ranks, gathered parameters, hops between stages, and a rank's tail.

Everything is per rank and in microseconds. Tensor parallelism sums s b h twice a pass and layer (Megatron-LM, arXiv
1909.08053; the same bytes with sequence parallelism, arXiv 2205.05198).
"""

from __future__ import annotations

from treadle.costmodels.collectives import Group, all_reduce_us, gather_us, send_us
from treadle.costmodels.training_exchange import gather_group, reduction_us
from treadle.costmodels.training_setting import ELEMENT, WIDE, Pass, Setting, host_rate, memory_rate, tokens_of
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import LayerKind
from treadle.ir.training.plan import Degrees
from treadle.ir.training.rails import Reach, crossings
from treadle.ir.training.ranks import shapes
from treadle.ir.training.sharing import shares

_NARROW_GATHER = 0.5
"""Inputs of products in 8 bits and below are cast before tensor ranks gather them (Transformer Engine; torchao's
float8 tensor parallelism); sums stay in 16."""
_HIDDEN_SHARE = 0.8
"""Share of the sums that products hide when they run beside them: kernels that share the GPU slow each other."""
_OPTIMIZER_TRAFFIC = 2.0
"""State is read and written once per step."""
_NORM_BYTES = 6
"""Per parameter: the gradient's norm is taken in 32 bits, and the new weight written in 16."""
_SCALED_BYTES = 10
"""Per parameter with loss scaling: gradients are cast to 32 bits, unscaled in place and checked."""


def hop_us(setting: Setting, degrees: Degrees) -> float:
    """Return the time of one activation (or its gradient) between neighbouring stages.

    Tensor ranks send their part each (scatter-gather of arXiv 2104.04473, or sequence parallelism).
    """
    if degrees.pipeline == 1:
        return 0.0
    size = ELEMENT * tokens_of(setting.spec, degrees) * setting.model.hidden / degrees.tensor
    far = crossings(degrees, setting.cluster)
    crosses = shapes(degrees, setting.cluster.domain).hop_crosses
    return send_us(size, crosses, setting.links, far.hop if far else 0.0)


def tail_us(
    setting: Setting,
    degrees: Degrees,
    dense: float,
    routed: float,
    window_us: float,
    layers: int,
    traffic: float | None = None,
) -> float:
    """Return what a rank does after its last backward: gradient reduction, update, parameter gathering.

    Args:
        setting: the problem.
        degrees: the choices.
        dense: parameters on the rank outside routed experts.
        routed: parameters on the rank in routed experts.
        window_us: backward time of the last microbatch, beside which reduction may run.
        layers: layers on the rank; with overlap at least one layer's share of the traffic stays exposed.
        traffic: `traffic_us` of the same, where it is known.
    """
    spec, cluster = setting.spec, setting.cluster
    moved = traffic_us(setting, degrees, dense, routed) if traffic is None else traffic
    traffic = moved
    if spec.overlap_gradients:
        traffic = max(moved / max(1, layers), moved - window_us)
        traffic += cluster.contention * (moved - traffic)
    dense_shares, routed_shares = shares(degrees, cluster.domain)
    touched = dense / dense_shares.optimizer + routed / routed_shares.optimizer
    if degrees.offload.optimizer:
        state = spec.optimizer_bytes * _OPTIMIZER_TRAFFIC + spec.gradient_bytes + ELEMENT
        return traffic + touched * state / host_rate(setting) + setting.gpu.constants.step_us
    scaled = _SCALED_BYTES if spec.precision == "fp16" else 0
    state = spec.optimizer_bytes * _OPTIMIZER_TRAFFIC + spec.gradient_bytes * 2 + _NORM_BYTES + scaled
    return traffic + touched * state / memory_rate(setting) + setting.gpu.constants.step_us


def _standing(ranks: int, inside: int, reach: Reach | None) -> Group:
    return Group(ranks, inside, reach.leaf, reach.aligned) if reach else Group(ranks, inside)


def tensor_group(degrees: Degrees, cluster: ClusterTopology) -> Group:
    """Return the tensor ranks of a layer."""
    far = crossings(degrees, cluster)
    return _standing(degrees.tensor, shapes(degrees, cluster.domain).tensor, far.tensor if far else None)


def context_group(degrees: Degrees, cluster: ClusterTopology) -> Group:
    """Return the context ranks of a sequence."""
    far = crossings(degrees, cluster)
    return _standing(degrees.context, shapes(degrees, cluster.domain).context, far.context if far else None)


def expert_group(degrees: Degrees, cluster: ClusterTopology) -> Group:
    """Return the ranks that have all experts of a layer among them."""
    far = crossings(degrees, cluster)
    ranks = degrees.expert * degrees.expert_tensor
    return _standing(ranks, shapes(degrees, cluster.domain).expert, far.expert if far else None)


def dense_group(degrees: Degrees, cluster: ClusterTopology) -> Group:
    """Return the ranks that share a stage's dense parameters."""
    far = crossings(degrees, cluster)
    ranks = degrees.data * degrees.context
    return _standing(ranks, shapes(degrees, cluster.domain).replicas, far.replicas if far else None)


def routed_group(degrees: Degrees, cluster: ClusterTopology) -> Group:
    """Return the ranks that hold the same experts."""
    far = crossings(degrees, cluster)
    ranks = degrees.data * degrees.context * degrees.tensor
    copies = max(1, ranks // (degrees.expert * degrees.expert_tensor))
    return _standing(copies, shapes(degrees, cluster.domain).copies, far.copies if far else None)


def traffic_us(setting: Setting, degrees: Degrees, dense: float, routed: float) -> float:
    """Return the time of a rank's gradient reduction and parameter gathering after its last backward, not hidden."""
    cluster, total = setting.cluster, 0.0
    for parameters, group in ((dense, dense_group(degrees, cluster)), (routed, routed_group(degrees, cluster))):
        if parameters:
            sizes = parameters * setting.spec.gradient_bytes, parameters * ELEMENT
            total += sum(reduction_us(degrees.zero, degrees.sharding, group, *sizes, setting.links))
    return total


def tied_sum_us(setting: Setting, degrees: Degrees) -> float:
    """Return the time to sum the gradient of a tied embedding between the first and the last stage."""
    if degrees.pipeline == 1 or not setting.model.tied_embeddings:
        return 0.0
    size = setting.spec.gradient_bytes * setting.model.embedding_parameters / degrees.tensor
    far = crossings(degrees, setting.cluster)
    ends = _standing(2, shapes(degrees, setting.cluster.domain).ends, far.ends if far else None)
    return all_reduce_us(size, ends, setting.links)


def tensor_sums_us(setting: Setting, kind: LayerKind, degrees: Degrees, products: Pass) -> tuple[float, float]:
    """Return the exposed time of a layer's sums over the tensor ranks, forward and backward.

    With sequence parallelism a sum is a reduce-scatter and a gather, and the backward gathers the products' inputs once
    more (arXiv 2205.05198, section 4.2.2). Kernels that work in pieces (those with a fused attention: Transformer
    Engine's user buffers, PyTorch's symmetric memory) hide all of it beside the products; others only what the backward
    can run beside products of gradients (Megatron-LM, tensor_parallel/layers.py).
    """
    size = ELEMENT * tokens_of(setting.spec, degrees) * setting.model.hidden
    group = tensor_group(degrees, setting.cluster)
    if not setting.spec.sequence_parallel:
        sums = kind.syncs * all_reduce_us(size, group, setting.links)
        beside = min(sums, products.backward_us / 2) if degrees.overlap_tensor else 0.0
        return sums, sums - _HIDDEN_SHARE * beside
    narrow = 1.0 if setting.spec.precision in WIDE else _NARROW_GATHER
    gather = gather_us(narrow * size, group, setting.links)
    scatter = gather_us(size, group, setting.links, "reduce_scatter")
    forward, backward = kind.syncs * (gather + scatter), kind.syncs * (2 * gather + scatter)
    if not degrees.overlap_tensor:
        return forward, backward
    before, beside = 0.0, min(forward, products.backward_us)
    if setting.spec.fused_attention:
        before, beside = min(forward, products.forward_us), min(backward, products.backward_us)
    return forward - _HIDDEN_SHARE * before, backward - _HIDDEN_SHARE * beside


def parameter_gather_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    """Return the time to gather one layer's parameters under ZeRO-3."""
    if degrees.zero != 3:
        return 0.0
    cluster = setting.cluster
    group = gather_group(degrees.sharding, dense_group(degrees, cluster))
    time = gather_us(ELEMENT * kind.dense_parameters / degrees.tensor, group, setting.links)
    if kind.experts:
        held = ELEMENT * kind.experts.parameters / (degrees.expert * degrees.expert_tensor)
        group = gather_group(degrees.sharding, routed_group(degrees, cluster))
        time += gather_us(held, group, setting.links)
    return time
