"""Times of one layer, embedding and loss for one microbatch, of a hop between stages, and of a rank's tail.

Everything is per rank and in microseconds. Products take the waves of tiles of their shape (`training_products`) at the
fitted share of the rate they reach alone, or the rate of their bytes; elementwise kernels run at the rate of their
bytes; a layer, the embedding or the loss never run faster than the host launches them. Collective volumes: tensor
parallelism 2 sums of s b h a pass (Megatron-LM, arXiv 1909.08053; the same bytes with sequence parallelism, arXiv
2205.05198), context parallelism by ring (arXiv 2310.01889), experts by all-to-all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from treadle.costmodels.collectives import Group, Links, all_reduce_us, all_to_all_us, gather_us, send_us
from treadle.costmodels.training_exchange import Exchange, exposed_us, gather_group, reduction_us
from treadle.costmodels.training_machine import TrainingGpu, links_of, training_gpu
from treadle.costmodels.training_products import product_parts
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import LayerKind, Product, Shard, TrainingModel
from treadle.ir.training.placement import stage_groups
from treadle.ir.training.plan import Degrees
from treadle.ir.training.rails import Reach, crossings
from treadle.ir.training.ranks import shapes
from treadle.ir.training.sharing import shares
from treadle.ir.training.spec import TrainingSpec

_ELEMENT = 2
"""Bytes per activation element (bf16, fp16); products alone run in 8 or 4 bits."""
_HOST_BACKWARD = 2.0
_SCORE_PASSES = 5
"""Reads and writes of the unfused scores: product out, mask and softmax in and out, dropout out, product in."""
_SOFTMAX_BATCHES, _SOFTMAX_KERNELS, _SOFTMAX_PASSES = 4, 5, 16
"""The fused softmax of scores takes heads x sequences by fours; any other number runs as five kernels more (cast up,
scale, mask to booleans, fill, softmax, cast down, for one), in 32 bits: 16 passes of 2 bytes more (Megatron-LM,
fused_softmax.py)."""
_EMBEDDING_KERNELS, _SPLIT_EMBEDDING_KERNELS = 5, 12
_LOSS_KERNELS, _FUSED_LOSS_KERNELS = 20, 4
"""Kernels of one forward pass beside the layers; the backward has half of them (Megatron-LM, tensor_parallel/layers.py
and cross_entropy.py: masks, look-ups and sums of a split vocabulary)."""
_MEETING, _MEETING_IN_GROUP = 4.0, 2.0
"""Exponents of the smooth maximum of device and host time: of a rank alone, and of ranks whose sums also wait for the
slowest host."""
_ELEMENTWISE_BACKWARD = 2.0
"""Bytes of an elementwise kernel's backward over its forward: reads the gradient and what was kept, writes, and adds
up parameter gradients."""
_FUSED_BACKWARD = 2.5
"""Products of a fused attention's backward over its forward: 5 to 2 (FlashAttention, arXiv 2205.14135)."""
_MISALIGNED = 2.5
"""Time of a product with a side that is no multiple of 16 bytes over that of one that is (NVIDIA, Matrix Multiplication
Background User's Guide, tensor core requirements)."""
_ALIGNED = 8
_WIDE = ("bf16", "fp16")
_NARROW_GATHER = 0.5
"""Inputs of products in 8 bits and below are cast before tensor ranks gather them (Transformer Engine; torchao's
float8 tensor parallelism); sums stay in 16."""
_CAST_BYTES = 4
"""Per element of a product's inputs in 8 bits and below: read in 16, written in 8 in both layouts (Transformer Engine's
cast with transpose)."""
_LOSS_BYTES, _FUSED_LOSS_BYTES = 20, 4
"""Per element of the logits and pass: cast, maximum, exponential, sum and division, or the gradient and its cast; fused
into one kernel, the logits are read and written once, in 16 bits."""
_HIDDEN_SHARE = 0.8
"""Share of the sums that products hide when they run beside them: kernels that share the GPU slow each other."""
_OPTIMIZER_TRAFFIC = 2.0
"""State is read and written once per step."""
_PERMUTED = 4
"""Reads and writes of routed tokens: into the order of the experts, and back with their weights."""
_NORM_BYTES = 6
"""Per parameter: the gradient's norm is taken in 32 bits, and the new weight written in 16."""
_SCALED_BYTES = 10
"""Per parameter with loss scaling: gradients are cast to 32 bits, unscaled in place and checked."""


@dataclass(frozen=True)
class Setting:
    """A training problem with its GPU type and links resolved; what every cost function takes."""

    model: TrainingModel
    cluster: ClusterTopology
    spec: TrainingSpec
    gpu: TrainingGpu = field(hash=False, compare=False)
    links: Links = field(hash=False, compare=False)
    parts: tuple[tuple[TrainingGpu, Links], ...] = field(default=(), hash=False, compare=False, repr=False)
    """On a cluster of several GPU types, those of each node group."""
    known: dict[tuple[float | str, ...], float] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Times of products by shape and precision: the same ones come again and again."""

    def part(self, group: int) -> Setting:
        """Return the problem as a node group sees it."""
        gpu, links = self.parts[group]
        return replace(self, gpu=gpu, links=links, parts=())

    def changed(
        self,
        gpu: Callable[[TrainingGpu], TrainingGpu] = lambda gpu: gpu,
        links: Callable[[Links], Links] = lambda it: it,
    ) -> Setting:
        """Return the problem with other GPUs and links, those of every node group too."""
        parts = tuple((gpu(one), links(joined)) for one, joined in self.parts)
        return replace(self, gpu=gpu(self.gpu), links=links(self.links), parts=parts)

    def peak(self) -> float:
        """Return the matrix rate in FLOP per microsecond that products are measured against."""
        return self.gpu.peak(self.spec.precision)


def setting_of(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> Setting:
    """Resolve the GPU types and the links; raises UnknownTrainingGpu, UnsupportedPrecision.

    Of several types, one that is nowhere better than any of them stands for stages that have them all.
    """
    types = [training_gpu(group.gpu) for group in cluster.groups]
    gpu = min(types, key=lambda kind: kind.peak(spec.precision) * kind.constants.product_efficiency)
    if not cluster.mixed:
        return Setting(model, cluster, spec, gpu, links_of(cluster, gpu))
    least = {
        name: min(getattr(kind, name) for kind in types)
        for name in ("memory_bytes", "memory_bytes_per_us", "links_bytes_per_us", "network_bytes_per_us")
    }
    parts = tuple((kind, links_of(cluster, kind)) for kind in types)
    slowest = replace(gpu, host_bytes_per_us=min(kind.host_bytes_per_us for kind in types), **least)
    return Setting(model, cluster, spec, slowest, links_of(cluster, slowest), parts)


@dataclass(frozen=True, slots=True)
class Pass:
    """Forward and backward time of something, for one microbatch."""

    forward_us: float
    backward_us: float
    weight_us: float = 0.0
    """Part of the backward time that only makes weight gradients: it can run later."""

    @property
    def total_us(self) -> float:
        """Both."""
        return self.forward_us + self.backward_us

    def __add__(self, other: Pass) -> Pass:
        backward, weight = self.backward_us + other.backward_us, self.weight_us + other.weight_us
        return Pass(self.forward_us + other.forward_us, backward, weight)

    def __mul__(self, count: float) -> Pass:
        return Pass(self.forward_us * count, self.backward_us * count, self.weight_us * count)


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


def tokens_of(spec: TrainingSpec, degrees: Degrees) -> float:
    """Return the tokens of one microbatch that one rank holds (before the split by sequence parallelism)."""
    return degrees.micro_batch * spec.sequence_tokens / degrees.context


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
    moved = _ELEMENT * (rows * inputs + inputs * outputs + rows * outputs) * batches
    time = max(busy / gpu.constants.product_efficiency + other, moved / _memory_rate(setting))
    setting.known[key] = time
    return time


def product_pass(setting: Setting, rows: float, inputs: float, outputs: float, precision: str = "") -> Pass:
    """Return the times of a product, and of the gradients of its input and of its weights, added to earlier ones."""
    rate, precision = _memory_rate(setting), precision or setting.spec.precision
    cast = 0.0 if precision in _WIDE else _CAST_BYTES / rate
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
    shard = _parameter_gather_us(setting, kind, degrees)
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
    sums = _tensor_sums_us(setting, kind, degrees, products)
    forward = products.forward_us + experts + core + moved + sums[0] + exchange + passed[0]
    backward = products.backward_us + 2 * experts + core_backward + _ELEMENTWISE_BACKWARD * moved
    backward += sums[1] + exchange + passed[1]
    share = (products.weight_us + experts) / backward
    kernels = kind.kernels + (_SOFTMAX_KERNELS if _apart(setting, kind, degrees) else 0)
    host = kernels * constants.host_us_per_kernel * (1 + constants.host_skew * math.log2(degrees.tensor))
    forward = _either(forward, host, degrees)
    backward = _either(backward, _HOST_BACKWARD * host, degrees)
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
    moved = 2 * _ELEMENT * kind.norm_saved * tokens_of(setting.spec, degrees) / split
    return moved / _memory_rate(setting)


def _offload_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    """Return the time of a layer's activations on their way to the host, or back."""
    from treadle.costmodels.training_memory import saved_bytes

    if not degrees.offload.activations:
        return 0.0
    size = saved_bytes(kind, setting.spec, degrees, setting.model.hidden, degrees.recompute)
    return size / host_rate(setting)


def host_rate(setting: Setting) -> float:
    """Return the bytes per microsecond between a GPU and its host, per direction."""
    return setting.cluster.host_gbytes_per_s * 1e3 or setting.gpu.host_bytes_per_us


def _either(device_us: float, host_us: float, degrees: Degrees) -> float:
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


def embedding_pass(setting: Setting, degrees: Degrees) -> Pass:
    """Return the times of the embedding look-up and, where tensor ranks split it, of the sum of what they found."""
    tokens, hidden = tokens_of(setting.spec, degrees), setting.model.hidden
    once = _ELEMENT * 2 * tokens * hidden / _memory_rate(setting)
    kernels = _EMBEDDING_KERNELS if degrees.tensor == 1 else _SPLIT_EMBEDDING_KERNELS
    sums = _end_sums_us(setting, degrees)
    return _launched(setting, degrees, Pass(once, once), kernels) + Pass(*sums)


def loss_pass(setting: Setting, degrees: Degrees) -> Pass:
    """Return the times of the output projection and the loss, split by the tensor ranks (vocabulary parallel).

    The projection stays in 16 bits (Transformer Engine and torchao leave it out). A vocabulary that tensor ranks share
    is padded to whole tiles; one that is not may leave rows misaligned.
    """
    tokens = tokens_of(setting.spec, degrees)
    share = setting.model.vocabulary / degrees.tensor
    wide = setting.spec.precision if setting.spec.precision in _WIDE else _WIDE[0]
    product = product_pass(setting, tokens, setting.model.hidden, share, wide)
    if degrees.tensor == 1 and setting.model.vocabulary % _ALIGNED:
        product = product * _MISALIGNED
    each = _FUSED_LOSS_BYTES if setting.spec.fused_loss else _LOSS_BYTES
    moved = tokens * share * each / _memory_rate(setting)
    kernels = _FUSED_LOSS_KERNELS if setting.spec.fused_loss else _LOSS_KERNELS
    back, forth = _end_sums_us(setting, degrees)
    return _launched(setting, degrees, product + Pass(moved, moved), kernels) + Pass(forth, back)


def _launched(setting: Setting, degrees: Degrees, device: Pass, kernels: int) -> Pass:
    """Return the times of a few kernels beside the layers, never faster than the host launches them."""
    host = kernels * setting.gpu.constants.host_us_per_kernel
    forward, backward = _either(device.forward_us, host, degrees), _either(device.backward_us, host / 2, degrees)
    return Pass(forward, backward, device.weight_us)


def _end_sums_us(setting: Setting, degrees: Degrees) -> tuple[float, float]:
    """Return the time of the sum over tensor ranks after the embedding, and of its counterpart in the backward pass.

    The loss has the same in the other direction: its input's gradient is summed.
    """
    size = _ELEMENT * tokens_of(setting.spec, degrees) * setting.model.hidden
    group = tensor_group(degrees, setting.cluster)
    if not setting.spec.sequence_parallel:
        return all_reduce_us(size, group, setting.links), 0.0
    return gather_us(size, group, setting.links, "reduce_scatter"), gather_us(size, group, setting.links)


def predictor_pass(setting: Setting, degrees: Degrees, timer: LayerTimer) -> Pass:
    """Return the times of one multi-token prediction module: a projection of two hidden vectors, a layer, a loss."""
    if not setting.model.predictors:
        return Pass(0.0, 0.0)
    hidden = setting.model.hidden
    joined = product_pass(setting, tokens_of(setting.spec, degrees), 2 * hidden / degrees.tensor, hidden)
    last = timer.layer(setting.model.order[-1][0], degrees)
    return joined + last + loss_pass(setting, degrees)


def hop_us(setting: Setting, degrees: Degrees) -> float:
    """Return the time of one activation (or its gradient) between neighbouring stages.

    Tensor ranks send their part each (scatter-gather of arXiv 2104.04473, or sequence parallelism).
    """
    if degrees.pipeline == 1:
        return 0.0
    size = _ELEMENT * tokens_of(setting.spec, degrees) * setting.model.hidden / degrees.tensor
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
        state = spec.optimizer_bytes * _OPTIMIZER_TRAFFIC + spec.gradient_bytes + _ELEMENT
        return traffic + touched * state / host_rate(setting) + setting.gpu.constants.step_us
    scaled = _SCALED_BYTES if spec.precision == "fp16" else 0
    state = spec.optimizer_bytes * _OPTIMIZER_TRAFFIC + spec.gradient_bytes * 2 + _NORM_BYTES + scaled
    return traffic + touched * state / _memory_rate(setting) + setting.gpu.constants.step_us


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
            sizes = parameters * setting.spec.gradient_bytes, parameters * _ELEMENT
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


def _memory_rate(setting: Setting) -> float:
    return setting.gpu.memory_bytes_per_us * setting.gpu.constants.memory_efficiency


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
    local, rate = kind.experts.count / degrees.expert, _memory_rate(setting)
    cast = 0.0 if setting.spec.precision in _WIDE else _CAST_BYTES / rate
    time = _PERMUTED * _ELEMENT * held * kind.experts.top_k * setting.model.hidden / rate
    for product in kind.experts.products:
        column = degrees.expert_tensor if product.shard is Shard.COLUMN else 1
        row = degrees.expert_tensor if product.shard is Shard.ROW else 1
        inputs, outputs = product.inputs / row, product.outputs / column
        time += product_us(setting, rows / local, inputs, outputs, local) + cast * (rows + local * outputs) * inputs
    group = expert_group(degrees, setting.cluster)
    sent = _ELEMENT * held * kind.experts.top_k * setting.model.hidden
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
        time += passes * _ELEMENT * batches * queries * keys / _memory_rate(setting)
    if degrees.context == 1:
        return time, (0.0, 0.0)
    kept = core.kv_heads / min(degrees.tensor, core.kv_heads)
    rows = _ELEMENT * degrees.micro_batch * queries
    dims = core.qk_head_dim + core.v_head_dim
    group = context_group(degrees, setting.cluster)
    exchange = Exchange(group, rows * kept * dims, rows * heads * dims, kept, time)
    return time, exposed_us(degrees.context_mode, exchange, setting.links)


def _elementwise_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    split = degrees.tensor if setting.spec.sequence_parallel else 1
    elements = kind.replicated_moved / split + kind.sharded_moved / degrees.tensor
    return _ELEMENT * tokens_of(setting.spec, degrees) * elements / _memory_rate(setting)


def _tensor_sums_us(setting: Setting, kind: LayerKind, degrees: Degrees, products: Pass) -> tuple[float, float]:
    """Return the exposed time of a layer's sums over the tensor ranks, forward and backward.

    With sequence parallelism a sum is a reduce-scatter and a gather, and the backward gathers the products' inputs once
    more (arXiv 2205.05198, section 4.2.2). Kernels that work in pieces (those with a fused attention: Transformer
    Engine's user buffers, PyTorch's symmetric memory) hide all of it beside the products; others only what the backward
    can run beside products of gradients (Megatron-LM, tensor_parallel/layers.py).
    """
    size = _ELEMENT * tokens_of(setting.spec, degrees) * setting.model.hidden
    group = tensor_group(degrees, setting.cluster)
    if not setting.spec.sequence_parallel:
        sums = kind.syncs * all_reduce_us(size, group, setting.links)
        beside = min(sums, products.backward_us / 2) if degrees.overlap_tensor else 0.0
        return sums, sums - _HIDDEN_SHARE * beside
    narrow = 1.0 if setting.spec.precision in _WIDE else _NARROW_GATHER
    gather = gather_us(narrow * size, group, setting.links)
    scatter = gather_us(size, group, setting.links, "reduce_scatter")
    forward, backward = kind.syncs * (gather + scatter), kind.syncs * (2 * gather + scatter)
    if not degrees.overlap_tensor:
        return forward, backward
    before, beside = 0.0, min(forward, products.backward_us)
    if setting.spec.fused_attention:
        before, beside = min(forward, products.forward_us), min(backward, products.backward_us)
    return forward - _HIDDEN_SHARE * before, backward - _HIDDEN_SHARE * beside


def _parameter_gather_us(setting: Setting, kind: LayerKind, degrees: Degrees) -> float:
    """Return the time to gather one layer's parameters under ZeRO-3."""
    if degrees.zero != 3:
        return 0.0
    cluster = setting.cluster
    group = gather_group(degrees.sharding, dense_group(degrees, cluster))
    time = gather_us(_ELEMENT * kind.dense_parameters / degrees.tensor, group, setting.links)
    if kind.experts:
        held = _ELEMENT * kind.experts.parameters / (degrees.expert * degrees.expert_tensor)
        group = gather_group(degrees.sharding, routed_group(degrees, cluster))
        time += gather_us(held, group, setting.links)
    return time
