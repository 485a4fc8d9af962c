"""Times of one layer for one microbatch.

Everything is per rank and in microseconds. Products take the waves of tiles of their shape (`training_products`) at the
fitted share of the rate they reach alone, or the rate of their bytes; elementwise kernels run at the rate of their
bytes; a layer never runs faster than the host launches it. Context ranks exchange keys and values by ring (arXiv
2310.01889) or all-to-all, experts tokens by all-to-all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from treadle.costmodels.collectives import all_to_all_us
from treadle.costmodels.training_exchange import Exchange, exposed_us
from treadle.costmodels.training_products import product_parts
from treadle.costmodels.training_setting import ELEMENT, WIDE, Pass, Setting, host_rate, memory_rate, tokens_of
from treadle.costmodels.training_traffic import context_group, expert_group, parameter_gather_us, tensor_sums_us
from treadle.ir.training.model import LayerKind, Product, Shard
from treadle.ir.training.placement import stage_groups
from treadle.ir.training.plan import Degrees
from treadle.ir.training.rails import crossings
from treadle.ir.training.ranks import shapes

_HOST_BACKWARD = 2.0
_SCORE_PASSES = 5
"""Reads and writes of the unfused scores: product out, mask and softmax in and out, dropout out, product in."""
_SOFTMAX_BATCHES, _SOFTMAX_KERNELS, _SOFTMAX_PASSES = 4, 5, 16
"""The fused softmax of scores takes heads x sequences by fours; any other number runs as five kernels more (cast up,
scale, mask to booleans, fill, softmax, cast down, for one), in 32 bits: 16 passes of 2 bytes more (Megatron-LM,
fused_softmax.py)."""
_MEETING, _MEETING_IN_GROUP = 4.0, 2.0
"""Exponents of the smooth maximum of device and host time: of a rank alone, and of ranks whose sums also wait for the
slowest host."""
_ELEMENTWISE_BACKWARD = 2.0
"""Bytes of an elementwise kernel's backward over its forward: reads the gradient and what was kept, writes, and adds
up parameter gradients."""
_FUSED_BACKWARD = 2.5
"""Products of a fused attention's backward over its forward: 5 to 2 (FlashAttention, arXiv 2205.14135)."""
_CAST_BYTES = 4
"""Per element of a product's inputs in 8 bits and below: read in 16, written in 8 in both layouts (Transformer Engine's
cast with transpose)."""
_PERMUTED = 4
"""Reads and writes of routed tokens: into the order of the experts, and back with their weights."""


class LayerTimer:
    """Times of one problem's layers, remembered per choice of the degrees they depend on."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._domain = setting.cluster.domain
        self._layers: dict[tuple[object, ...], Pass] = {}
        self._plain: dict[tuple[object, ...], Plain] = {}
        self._of_groups: dict[int, LayerTimer] = {}

    def of_group(self, group: int) -> LayerTimer:
        """Return the timer of a node group's GPU type."""
        if group not in self._of_groups:
            self._of_groups[group] = LayerTimer(self.setting.part(group))
        return self._of_groups[group]

    def of_stages(self, degrees: Degrees) -> list[LayerTimer]:
        """Return the timer of every pipeline rank; its setting is the problem as that rank sees it."""
        groups = stage_groups(self.setting.cluster, degrees)
        return [self.of_group(group) for group in groups] if groups else [self] * degrees.pipeline

    def layer(self, name: str, degrees: Degrees) -> Pass:
        """Return the times of a layer kind."""
        here = shapes(degrees, self._domain)
        sizes = degrees.tensor, degrees.context, degrees.expert, degrees.expert_tensor, degrees.micro_batch
        groups = here.tensor, here.context, here.expert, degrees.context_mode, degrees.overlap_tensor
        plain = (name, *sizes, *groups, crossings(degrees, self.setting.cluster))
        tied = (degrees.data, degrees.sharding, here.replicas, here.copies) if degrees.zero == 3 else ()
        key = (*plain, degrees.recompute, degrees.offload.activations, *tied)
        if key not in self._layers:
            kind = self.setting.model.kind(name)
            if plain not in self._plain:
                self._plain[plain] = plain_layer(self.setting, kind, degrees)
            self._layers[key] = layer_pass(self.setting, kind, degrees, self._plain[plain])
        return self._layers[key]


def product_us(
    setting: Setting, rows: float, inputs: float, outputs: float, batches: float = 1.0, precision: str = ""
) -> float:
    """Return the time of `batches` products (rows, inputs) x (inputs, outputs), in the spec's precision or another."""
    gpu, key = setting.gpu, (rows, inputs, outputs, batches, precision)
    if (known := setting.known.get(key)) is not None:
        return known
    shape = (batches, rows, inputs, outputs)
    peak = gpu.peak(precision) if precision else setting.peak()
    busy, other = product_parts(gpu.products, gpu.multiprocessors, peak, gpu.memory_bytes_per_us, shape)
    moved = ELEMENT * (rows * inputs + inputs * outputs + rows * outputs) * batches
    time = max(busy / gpu.constants.product_efficiency + other, moved / memory_rate(setting))
    setting.known[key] = time
    return time


def product_pass(setting: Setting, rows: float, inputs: float, outputs: float, precision: str = "") -> Pass:
    """Return the times of a product, and of the gradients of its input and of its weights, added to earlier ones."""
    rate, precision = memory_rate(setting), precision or setting.spec.precision
    cast = 0.0 if precision in WIDE else _CAST_BYTES / rate
    forward = product_us(setting, rows, inputs, outputs, 1.0, precision) + cast * (rows + outputs) * inputs
    added = 2 * setting.spec.gradient_bytes * inputs * outputs / rate
    weights = product_us(setting, inputs, rows, outputs, 1.0, precision) + added
    back = product_us(setting, rows, outputs, inputs, 1.0, precision) + cast * rows * outputs
    return Pass(forward, back + weights, weights)


@dataclass(frozen=True, slots=True)
class Plain:
    """A layer that runs nothing again and has all its parameters: its times, and those of the attention core."""

    time: Pass
    core_us: float


def layer_pass(setting: Setting, kind: LayerKind, degrees: Degrees, plain: Plain | None = None) -> Pass:
    """Return forward and backward of one layer, recomputation included in the backward."""
    plain = plain or plain_layer(setting, kind, degrees)
    forward, backward, weights = plain.time.forward_us, plain.time.backward_us, plain.time.weight_us
    backward += _again_us(setting, kind, degrees, forward, plain.core_us)
    shard = parameter_gather_us(setting, kind, degrees)
    stored = _offload_us(setting, kind, degrees)
    return Pass(max(forward, shard, stored), max(backward, 2 * shard, stored), weights)


def plain_layer(setting: Setting, kind: LayerKind, degrees: Degrees) -> Plain:
    """Return a layer's times without recomputation, gathered parameters and offload."""
    spec, constants = setting.spec, setting.gpu.constants
    products = sum((_split_product(setting, product, degrees) for product in kind.products), Pass(0.0, 0.0))
    experts, exchange = _experts_us(setting, kind, degrees)
    core, passed = _attention_us(setting, kind, degrees)
    core_backward = core * (_FUSED_BACKWARD if spec.fused_attention else 2.0)
    moved = _elementwise_us(setting, kind, degrees)
    sums = tensor_sums_us(setting, kind, degrees, products)
    forward = products.forward_us + experts + core + moved + sums[0] + exchange + passed[0]
    backward = products.backward_us + 2 * experts + core_backward + _ELEMENTWISE_BACKWARD * moved
    backward += sums[1] + exchange + passed[1]
    share = (products.weight_us + experts) / backward
    kernels = kind.kernels + (_SOFTMAX_KERNELS if _apart(setting, kind, degrees) else 0)
    host = kernels * constants.host_us_per_kernel * (1 + constants.host_skew * math.log2(degrees.tensor))
    forward = either(forward, host, degrees)
    backward = either(backward, _HOST_BACKWARD * host, degrees)
    return Plain(Pass(forward, backward, share * backward), core)


def _apart(setting: Setting, kind: LayerKind, degrees: Degrees) -> bool:
    """Whether the softmax of unfused scores runs in pieces."""
    if setting.spec.fused_attention or kind.attention is None:
        return False
    return degrees.micro_batch * kind.attention.heads // degrees.tensor % _SOFTMAX_BATCHES > 0


def _again_us(setting: Setting, kind: LayerKind, degrees: Degrees, forward: float, core: float) -> float:
    """Return the time of what the backward pass computes again."""
    modules = degrees.recompute.modules(setting.spec.fused_attention)
    if "layer" in modules:
        return forward - (_last_us(setting, kind, degrees) if setting.spec.early_stop else 0.0)
    again = _inner_us(setting, kind, degrees) if "mlp" in modules else 0.0
    if "norm" in modules:
        again += _norms_us(setting, kind, degrees)
    return again + (core if "core" in modules else 0.0)


def _last_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    """Return the forward time of a layer's last product, whose result no backward needs; 0 where experts are last."""
    rows = [product for product in kind.products if product.shard is Shard.ROW]
    return 0.0 if kind.experts or not rows else _split_product(setting, rows[-1], degrees).forward_us


def _norms_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    """Return the time to run the normalizations again: each reads and writes what it makes."""
    split = degrees.tensor if setting.spec.sequence_parallel else 1
    moved = 2 * ELEMENT * kind.norm_saved * tokens_of(setting.spec, degrees) / split
    return moved / memory_rate(setting)


def _offload_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    """Return the time of a layer's activations on their way to the host, or back."""
    from treadle.costmodels.training_memory import saved_bytes

    if not degrees.offload.activations:
        return 0.0
    size = saved_bytes(kind, setting.spec, degrees, setting.model.hidden, degrees.recompute)
    return size / host_rate(setting)


def either(device_us: float, host_us: float, degrees: Degrees) -> float:
    """Return the time when device and host take turns at holding the other up: a smooth maximum.

    Kernels of one layer differ in length, so a layer that is near balance waits for both.
    """
    meeting = _MEETING if degrees.tensor == 1 else _MEETING_IN_GROUP
    return math.pow(device_us**meeting + host_us**meeting, 1 / meeting)


def _inner_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    """Return the time to run the inner part of the MLP and of the experts again."""
    named = [item for item in kind.products if item.name in kind.recomputed]
    again = sum(_split_product(setting, item, degrees).forward_us for item in named)
    if kind.experts:
        again += _experts_us(setting, kind, degrees)[0] / 2
    return again + 0.3 * _elementwise_us(setting, kind, degrees)


def _split_product(setting: Setting, product: Product, degrees: Degrees) -> Pass:
    column = degrees.tensor if product.shard is Shard.COLUMN else 1
    row = degrees.tensor if product.shard is Shard.ROW else 1
    return product_pass(setting, tokens_of(setting.spec, degrees), product.inputs / row, product.outputs / column)


def _experts_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> tuple[float, float]:
    """Return the time of the experts' products, and of dispatch and combination, for a balanced load.

    Each expert has its own tiles, and tokens are copied into the order of experts and back.
    """
    if kind.experts is None:
        return 0.0, 0.0
    held = tokens_of(setting.spec, degrees) / degrees.tensor
    rows = held * kind.experts.top_k * degrees.expert_tensor
    local, rate = kind.experts.count / degrees.expert, memory_rate(setting)
    cast = 0.0 if setting.spec.precision in WIDE else _CAST_BYTES / rate
    time = _PERMUTED * ELEMENT * held * kind.experts.top_k * setting.model.hidden / rate
    for product in kind.experts.products:
        column = degrees.expert_tensor if product.shard is Shard.COLUMN else 1
        row = degrees.expert_tensor if product.shard is Shard.ROW else 1
        inputs, outputs = product.inputs / row, product.outputs / column
        time += product_us(setting, rows / local, inputs, outputs, local) + cast * (rows + local * outputs) * inputs
    group = expert_group(degrees, setting.cluster)
    sent = ELEMENT * held * kind.experts.top_k * setting.model.hidden
    return time, 2 * all_to_all_us(sent, group, setting.links)


def _attention_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> tuple[float, tuple[float, float]]:
    """Return the time of scores and context, and what their exchange adds to the forward and backward pass."""
    core, spec = kind.attention, setting.spec
    if core is None:
        return 0.0, (0.0, 0.0)
    heads, queries = core.heads / degrees.tensor, spec.sequence_tokens / degrees.context
    batches = degrees.micro_batch * heads
    if spec.fused_attention:
        keys = spec.attended_tokens(core.window)
        seen = keys / 2 if not core.window else keys
        flops = 2 * batches * queries * seen * (core.qk_head_dim + core.v_head_dim)
        share = setting.gpu.attention_share * setting.gpu.constants.product_efficiency
        time = flops / (setting.gpu.peak("bf16") * share) + setting.gpu.products.start_us
    else:
        keys = float(min(spec.sequence_tokens, core.window or spec.sequence_tokens))
        time = product_us(setting, queries, core.qk_head_dim, keys, batches)
        time += product_us(setting, queries, keys, core.v_head_dim, batches)
        passes = _SCORE_PASSES + (_SOFTMAX_PASSES if _apart(setting, kind, degrees) else 0)
        time += passes * ELEMENT * batches * queries * keys / memory_rate(setting)
    if degrees.context == 1:
        return time, (0.0, 0.0)
    kept = core.kv_heads / min(degrees.tensor, core.kv_heads)
    rows = ELEMENT * degrees.micro_batch * queries
    dims = core.qk_head_dim + core.v_head_dim
    group = context_group(degrees, setting.cluster)
    exchange = Exchange(group, rows * kept * dims, rows * heads * dims, kept, time)
    return time, exposed_us(degrees.context_mode, exchange, setting.links)


def _elementwise_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    split = degrees.tensor if setting.spec.sequence_parallel else 1
    elements = kind.replicated_moved / split + kind.sharded_moved / degrees.tensor
    return ELEMENT * tokens_of(setting.spec, degrees) * elements / memory_rate(setting)
