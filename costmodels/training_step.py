"""Times of one layer, embedding and loss for one microbatch, of a hop between stages, and of a rank's tail.

Everything is per rank and in microseconds. Products run at the fitted share of the peak rate plus a fixed cost, or at
the rate of their bytes; elementwise kernels at the rate of their bytes; a layer never runs faster than the host
launches it. Collective volumes: tensor parallelism 2 sums of s b h a pass (Megatron-LM, arXiv 1909.08053; the same
bytes
with sequence parallelism, arXiv 2205.05198), context parallelism by ring (arXiv 2310.01889), experts by all-to-all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from treadle.costmodels.collectives import Links, all_reduce_us, all_to_all_us, gather_us, group_of, send_us
from treadle.costmodels.training_machine import TrainingGpu, links_of, training_gpu
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import LayerKind, Product, Shard, TrainingModel
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Order, Recompute, TrainingSpec

_ELEMENT = 2
"""Bytes per activation element (bf16, fp16); products alone run in 8 or 4 bits."""
_HOST_BACKWARD = 2.0
_SCORE_PASSES = 5
"""Reads and writes of the unfused scores: product out, mask and softmax in and out, dropout out, product in."""
_MEETING = 4
"""Exponent of the smooth maximum of device and host time."""
_FUSED_BACKWARD = 2.5
"""Products of a fused attention's backward over its forward: 5 to 2 (FlashAttention, arXiv 2205.14135)."""
_FUSED_RATE = 0.6
"""Rate of a fused attention with heads of 128 over that of large products (FlashAttention-2, arXiv 2307.08691,
fig. 4)."""
_FULL_HEAD = 128
_OPTIMIZER_TRAFFIC = 2.0
"""State is read and written once per step."""


@dataclass(frozen=True)
class Setting:
    """A training problem with its GPU type and links resolved; what every cost function takes."""

    model: TrainingModel
    cluster: ClusterTopology
    spec: TrainingSpec
    gpu: TrainingGpu = field(hash=False, compare=False)
    links: Links = field(hash=False, compare=False)

    def peak(self) -> float:
        """Return the matrix rate in FLOP per microsecond that products are measured against."""
        return self.gpu.peak(self.spec.precision)


def setting_of(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> Setting:
    """Resolve the GPU type (of the slowest group) and the links; raises UnknownTrainingGpu, UnsupportedPrecision."""
    types = [training_gpu(group.gpu) for group in cluster.groups]
    gpu = min(types, key=lambda kind: kind.peak(spec.precision) * kind.constants.product_efficiency)
    return Setting(model, cluster, spec, gpu, links_of(cluster, gpu))


@dataclass(frozen=True, slots=True)
class Pass:
    """Forward and backward time of something, for one microbatch."""

    forward_us: float
    backward_us: float

    @property
    def total_us(self) -> float:
        """Both."""
        return self.forward_us + self.backward_us

    def __add__(self, other: Pass) -> Pass:
        return Pass(self.forward_us + other.forward_us, self.backward_us + other.backward_us)

    def __mul__(self, count: float) -> Pass:
        return Pass(self.forward_us * count, self.backward_us * count)


class LayerTimer:
    """Times of one problem's layers, remembered per choice of the degrees they depend on."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._layers: dict[tuple[object, ...], Pass] = {}

    def layer(self, name: str, degrees: Degrees) -> Pass:
        """Return the times of a layer kind."""
        tied = (degrees.data, degrees.zero) if degrees.zero == 3 else ()
        key = (name, degrees.tensor, degrees.context, degrees.expert, degrees.expert_tensor, degrees.micro_batch)
        key = (*key, degrees.recompute, *tied)
        if key not in self._layers:
            self._layers[key] = layer_pass(self.setting, self.setting.model.kind(name), degrees)
        return self._layers[key]


def tokens_of(spec: TrainingSpec, degrees: Degrees) -> float:
    """Return the tokens of one microbatch that one rank holds (before the split by sequence parallelism)."""
    return degrees.micro_batch * spec.sequence_tokens / degrees.context


def product_us(setting: Setting, rows: float, inputs: float, outputs: float, batches: float = 1.0) -> float:
    """Return the time of `batches` products (rows, inputs) x (inputs, outputs)."""
    constants = setting.gpu.constants
    flops = 2 * rows * inputs * outputs * batches
    moved = _ELEMENT * (rows * inputs + inputs * outputs + rows * outputs) * batches
    rate = setting.peak() * constants.product_efficiency
    return max(flops / rate, moved / _memory_rate(setting)) + constants.product_overhead_us


def layer_pass(setting: Setting, kind: LayerKind, degrees: Degrees) -> Pass:
    """Return forward and backward of one layer, recomputation included in the backward."""
    spec, constants = setting.spec, setting.gpu.constants
    products = sum(_split_product_us(setting, product, degrees) for product in kind.products)
    experts, exchange = _experts_us(setting, kind, degrees)
    core, ring = _attention_us(setting, kind, degrees)
    core_backward = core * (_FUSED_BACKWARD if spec.fused_attention else 2.0)
    moved = _elementwise_us(setting, kind, degrees)
    sums = kind.syncs * _tensor_sum_us(setting, degrees) + exchange
    forward = products + experts + core + moved + sums + ring
    backward = 2 * (products + experts) + core_backward + 1.3 * moved + sums + 2 * ring
    host = kind.kernels * constants.host_us_per_kernel
    forward, again = _either(forward, host), 0.0
    backward = _either(backward, _HOST_BACKWARD * host)
    if degrees.recompute is Recompute.FULL:
        again = forward
    elif degrees.recompute is Recompute.SELECTIVE:
        again = _selective_us(setting, kind, degrees) if spec.fused_attention else core
    shard = _parameter_gather_us(setting, kind, degrees)
    return Pass(max(forward, shard), max(backward + again, 2 * shard))


def _either(device_us: float, host_us: float) -> float:
    """Return the time when device and host take turns at holding the other up: a smooth maximum.

    Kernels of one layer differ in length, so a layer that is near balance waits for both.
    """
    return math.pow(device_us**_MEETING + host_us**_MEETING, 1 / _MEETING)


def _selective_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    """Return the time to run again what selective recomputation drops beside a fused attention."""
    again = sum(_split_product_us(setting, item, degrees) for item in kind.products if item.name in kind.recomputed)
    if kind.experts:
        again += _experts_us(setting, kind, degrees)[0] / 2
    return again + 0.3 * _elementwise_us(setting, kind, degrees)


def embedding_pass(setting: Setting, degrees: Degrees) -> Pass:
    """Return the times of the embedding look-up (bytes only)."""
    tokens, hidden = tokens_of(setting.spec, degrees), setting.model.hidden
    once = _ELEMENT * 2 * tokens * hidden / _memory_rate(setting)
    return Pass(once, once)


def loss_pass(setting: Setting, degrees: Degrees) -> Pass:
    """Return the times of the output projection and the loss, split by the tensor ranks (vocabulary parallel)."""
    tokens = tokens_of(setting.spec, degrees)
    share = setting.model.vocabulary / degrees.tensor
    product = product_us(setting, tokens, setting.model.hidden, share)
    moved = tokens * share * 14 / _memory_rate(setting)
    return Pass(product + moved, 2 * product + moved)


def predictor_pass(setting: Setting, degrees: Degrees, timer: LayerTimer) -> Pass:
    """Return the times of one multi-token prediction module: a projection of two hidden vectors, a layer, a loss."""
    if not setting.model.predictors:
        return Pass(0.0, 0.0)
    hidden = setting.model.hidden
    joined = product_us(setting, tokens_of(setting.spec, degrees), 2 * hidden / degrees.tensor, hidden)
    last = timer.layer(setting.model.order[-1][0], degrees)
    return Pass(joined, 2 * joined) + last + loss_pass(setting, degrees)


def hop_us(setting: Setting, degrees: Degrees) -> float:
    """Return the time of one activation (or its gradient) between neighbouring stages.

    Tensor ranks send their part each (scatter-gather of arXiv 2104.04473, or sequence parallelism).
    """
    if degrees.pipeline == 1:
        return 0.0
    stride = degrees.tensor * degrees.context * (degrees.data if degrees.order is Order.DATA_FIRST else 1)
    size = _ELEMENT * tokens_of(setting.spec, degrees) * setting.model.hidden / degrees.tensor
    crosses = degrees.gpus > setting.cluster.domain and stride * degrees.pipeline > setting.cluster.domain
    return send_us(size, crosses, setting.links)


def tail_us(setting: Setting, degrees: Degrees, dense: float, routed: float, window_us: float, layers: int) -> float:
    """Return what a rank does after its last backward: gradient reduction, update, parameter gathering.

    Args:
        setting: the problem.
        degrees: the choices.
        dense: parameters on the rank outside routed experts.
        routed: parameters on the rank in routed experts.
        window_us: backward time of the last microbatch, beside which reduction may run.
        layers: layers on the rank; with overlap at least one layer's share of the traffic stays exposed.
    """
    spec = setting.spec
    traffic = _reduction_us(setting, degrees, dense, routed)
    if spec.overlap_gradients:
        traffic = max(traffic / max(1, layers), traffic - window_us)
    ranks = degrees.data * degrees.context if degrees.zero else 1
    touched = dense / ranks + routed / max(1, ranks * degrees.tensor / (degrees.expert * degrees.expert_tensor))
    state = spec.optimizer_bytes * _OPTIMIZER_TRAFFIC + spec.gradient_bytes * 2 + 2
    return traffic + touched * state / _memory_rate(setting) + setting.gpu.constants.step_us


@lru_cache(maxsize=4096)
def _reduction_groups(degrees: Degrees, domain: int) -> tuple[tuple[int, int], tuple[int, int]]:
    stride = degrees.tensor * (degrees.pipeline if degrees.order is Order.PIPELINE_FIRST else 1)
    dense = group_of(degrees.data * degrees.context, stride, domain)
    expert_ranks = degrees.expert * degrees.expert_tensor
    copies = max(1, degrees.data * degrees.context * degrees.tensor // expert_ranks)
    routed = group_of(copies, expert_ranks, domain)
    return (dense.ranks, dense.inside), (routed.ranks, routed.inside)


def _reduction_us(setting: Setting, degrees: Degrees, dense: float, routed: float) -> float:
    from treadle.costmodels.collectives import Group

    groups = _reduction_groups(degrees, setting.cluster.domain)
    total = 0.0
    for parameters, (ranks, inside) in zip((dense, routed), groups, strict=True):
        if not parameters or ranks == 1:
            continue
        group, gradient = Group(ranks, inside), parameters * setting.spec.gradient_bytes
        if degrees.zero == 0:
            total += all_reduce_us(gradient, group, setting.links)
        elif degrees.zero < 3:
            total += gather_us(gradient, group, setting.links, "reduce_scatter")
            total += gather_us(parameters * _ELEMENT, group, setting.links)
    return total


def tied_sum_us(setting: Setting, degrees: Degrees) -> float:
    """Return the time to sum the gradient of a tied embedding between the first and the last stage."""
    if degrees.pipeline == 1 or not setting.model.tied_embeddings:
        return 0.0
    size = setting.spec.gradient_bytes * setting.model.embedding_parameters / degrees.tensor
    stride = degrees.tensor * degrees.context * degrees.data
    return all_reduce_us(size, group_of(2, stride, setting.cluster.domain), setting.links)


def _memory_rate(setting: Setting) -> float:
    return setting.gpu.memory_bytes_per_us * setting.gpu.constants.memory_efficiency


def _split_product_us(setting: Setting, product: Product, degrees: Degrees) -> float:
    column = degrees.tensor if product.shard is Shard.COLUMN else 1
    row = degrees.tensor if product.shard is Shard.ROW else 1
    return product_us(setting, tokens_of(setting.spec, degrees), product.inputs / row, product.outputs / column)


def _experts_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> tuple[float, float]:
    """Return the time of the experts' products, and of dispatch and combination, for a balanced load."""
    if kind.experts is None:
        return 0.0, 0.0
    ranks = degrees.expert * degrees.expert_tensor
    held = tokens_of(setting.spec, degrees) / degrees.tensor
    rows = held * kind.experts.top_k * degrees.expert_tensor
    local = kind.experts.count / degrees.expert
    time = 0.0
    for product in kind.experts.products:
        column = degrees.expert_tensor if product.shard is Shard.COLUMN else 1
        row = degrees.expert_tensor if product.shard is Shard.ROW else 1
        inputs, outputs = product.inputs / row, product.outputs / column
        busy = product_us(setting, rows, inputs, outputs)
        weights = _ELEMENT * local * inputs * outputs / _memory_rate(setting)
        time += max(busy, weights)
    group = group_of(ranks, 1, setting.cluster.domain)
    sent = _ELEMENT * held * kind.experts.top_k * setting.model.hidden
    return time, 2 * all_to_all_us(sent, group, setting.links)


def _attention_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> tuple[float, float]:
    """Return the time of scores and context, and the part of the key-value ring that they do not hide."""
    core, spec = kind.attention, setting.spec
    if core is None:
        return 0.0, 0.0
    heads, queries = core.heads / degrees.tensor, spec.sequence_tokens / degrees.context
    keys = float(min(spec.sequence_tokens, core.window or spec.sequence_tokens))
    batches = degrees.micro_batch * heads
    if spec.fused_attention:
        seen = keys / 2 if not core.window else keys
        flops = 2 * batches * queries * seen * (core.qk_head_dim + core.v_head_dim)
        width = min(1.0, core.qk_head_dim / _FULL_HEAD) ** 0.5
        rate = setting.gpu.peak("bf16") * setting.gpu.constants.product_efficiency * _FUSED_RATE * width
        time = flops / rate + setting.gpu.constants.product_overhead_us
    else:
        time = product_us(setting, queries, core.qk_head_dim, keys, batches)
        time += product_us(setting, queries, keys, core.v_head_dim, batches)
        time += _SCORE_PASSES * _ELEMENT * batches * queries * keys / _memory_rate(setting)
    if degrees.context == 1:
        return time, 0.0
    width = core.kv_heads / min(degrees.tensor, core.kv_heads) * (core.qk_head_dim + core.v_head_dim)
    size = _ELEMENT * degrees.micro_batch * queries * width
    group = group_of(degrees.context, degrees.tensor, setting.cluster.domain)
    ring = (degrees.context - 1) * send_us(size, group.domains > 1, setting.links)
    return time, max(0.0, ring - time * (degrees.context - 1) / degrees.context)


def _elementwise_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    split = degrees.tensor if setting.spec.sequence_parallel else 1
    elements = kind.replicated_moved / split + kind.sharded_moved / degrees.tensor
    return _ELEMENT * tokens_of(setting.spec, degrees) * elements / _memory_rate(setting)


def _tensor_sum_us(setting: Setting, degrees: Degrees) -> float:
    size = _ELEMENT * tokens_of(setting.spec, degrees) * setting.model.hidden
    return all_reduce_us(size, group_of(degrees.tensor, 1, setting.cluster.domain), setting.links)


def _parameter_gather_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    """Return the time to gather one layer's parameters under ZeRO-3."""
    if degrees.zero != 3:
        return 0.0
    group = group_of(degrees.data * degrees.context, degrees.tensor, setting.cluster.domain)
    time = gather_us(_ELEMENT * kind.dense_parameters / degrees.tensor, group, setting.links)
    if kind.experts:
        ranks = degrees.expert * degrees.expert_tensor
        copies = max(1, degrees.data * degrees.context * degrees.tensor // ranks)
        held = _ELEMENT * kind.experts.parameters / ranks
        time += gather_us(held, group_of(copies, ranks, setting.cluster.domain), setting.links)
    return time
