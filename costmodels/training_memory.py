"""Memory of a pipeline rank: weights, gradients and optimizer state, saved activations, and what comes and goes.

Activations follow Korthikanti et al. (arXiv 2205.05198, equations 1 to 6): per layer, the tensors kept for the backward
pass, split by tensor and sequence parallelism. Bytes per parameter: weights 2, gradients and optimizer as the spec
says, divided by the shard ranks of the ZeRO stage (arXiv 1910.02054).
"""

from __future__ import annotations

from collections.abc import Collection

from treadle.costmodels.training_setting import Setting, tokens_of
from treadle.ir.training.model import LayerKind, TrainingModel
from treadle.ir.training.placement import stage_groups
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.sharing import shares
from treadle.ir.training.spec import ContextMode, Recompute, TrainingSpec

_WEIGHT_BYTES = 2
_ELEMENT = 2
_OFFLOAD_BUFFERS = 2
"""Layers whose activations are on the GPU while they travel: one leaves, or arrives, while another is computed."""
_LOGITS_BYTES, _FUSED_LOGITS_BYTES = 16, 8
"""Per element of the logits at the peak of the loss: logits, log-softmax and gradient in 32 bits and two copies in 16;
fused into one kernel: the gradient in 32 bits and two copies in 16."""
_UNFUSED_SCORE_BYTES = 5
"""Per score: softmax output and dropout output in 16 bits, the dropout mask in 8 (arXiv 2205.05198, section 4.1)."""


def layer_saved_bytes(
    kind: LayerKind, spec: TrainingSpec, degrees: Degrees, hidden: int, recompute: Recompute | None = None
) -> float:
    """Return the bytes one layer keeps on the GPU for the backward pass of one microbatch, on one rank."""
    if recompute is None and degrees.offload.activations:
        return 0.0
    return saved_bytes(kind, spec, degrees, hidden, degrees.recompute if recompute is None else recompute)


def saved_bytes(kind: LayerKind, spec: TrainingSpec, degrees: Degrees, hidden: int, mode: Recompute) -> float:
    """Return the bytes one layer keeps for the backward pass of one microbatch, wherever they are."""
    modules = mode.modules(spec.fused_attention)
    tokens, split = tokens_of(spec, degrees), degrees.tensor if spec.sequence_parallel else 1
    if "layer" in modules:
        return _ELEMENT * tokens * hidden / split
    inner = "mlp" in modules
    kept = kind.replicated_saved - (kind.norm_saved if "norm" in modules else 0)
    replicated = (_ELEMENT * kept + kind.masks) / split
    sharded = _ELEMENT * (kind.sharded_saved - (kind.selective_saved if inner else 0)) / degrees.tensor
    saved = tokens * (replicated + sharded)
    if kind.experts:
        routed = hidden if inner else kind.expert_saved
        saved += _ELEMENT * tokens / degrees.tensor * kind.experts.top_k * routed
    return saved + (0.0 if "core" in modules else _attention_saved_bytes(kind, spec, degrees))


def _attention_saved_bytes(kind: LayerKind, spec: TrainingSpec, degrees: Degrees) -> float:
    if kind.attention is None:
        return 0.0
    rows = degrees.micro_batch * kind.attention.heads / degrees.tensor * spec.sequence_tokens / degrees.context
    return 4 * rows if spec.fused_attention else _UNFUSED_SCORE_BYTES * rows * spec.sequence_tokens


def stage_parameters(
    model: TrainingModel, degrees: Degrees, kinds: dict[str, int], first: bool, last: bool
) -> tuple[float, float]:
    """Return (parameters outside routed experts, parameters of routed experts) on one GPU of a stage.

    Args:
        model: the model.
        degrees: the choices.
        kinds: layers of the stage by kind.
        first: the stage has the embedding.
        last: the stage has final norm, output projection and multi-token prediction.
    """
    counts = dict(kinds)
    extra = 0.0
    if last and model.predictors:
        name = model.order[-1][0]
        counts[name] = counts.get(name, 0) + model.predictors
        extra = 2.0 * model.hidden * model.hidden * model.predictors / degrees.tensor
    dense = extra
    routed = 0.0
    for name, count in counts.items():
        kind = model.kind(name)
        split = sum(product.parameters for product in kind.products) / degrees.tensor
        dense += count * (split + kind.replicated_parameters)
        if kind.experts:
            routed += count * kind.experts.parameters / (degrees.expert * degrees.expert_tensor)
    if first:
        dense += model.embedding_parameters / degrees.tensor
    if last:
        tied_here = model.tied_embeddings and first
        dense += (0 if tied_here else model.head_parameters / degrees.tensor) + model.hidden
    return dense, routed


def state_bytes(setting: Setting, degrees: Degrees, dense: float, routed: float) -> float:
    """Return bytes of weights, gradients and optimizer state on one GPU."""
    spec, total = setting.spec, 0.0
    for parameters, share in zip((dense, routed), shares(degrees, setting.cluster.domain), strict=True):
        size = _WEIGHT_BYTES / share.weights + spec.gradient_bytes / share.gradients
        if not degrees.offload.optimizer:
            size += spec.optimizer_bytes / share.optimizer
        total += parameters * size
    return total


def host_bytes(setting: Setting, degrees: Degrees, dense: float, routed: float, kinds: dict[str, int]) -> float:
    """Return what one GPU keeps in its host's memory: optimizer state, and one microbatch's activations."""
    spec, total = setting.spec, 0.0
    if degrees.offload.optimizer:
        pairs = zip((dense, routed), shares(degrees, setting.cluster.domain), strict=True)
        total += sum(parameters * spec.optimizer_bytes / share.optimizer for parameters, share in pairs)
    if degrees.offload.activations:
        hidden = setting.model.hidden
        for name, count in kinds.items():
            total += count * saved_bytes(setting.model.kind(name), spec, degrees, hidden, degrees.recompute)
    return total


def transient_bytes(
    setting: Setting, degrees: Degrees, kinds: dict[str, int], last: bool, again: Collection[str] = ()
) -> float:
    """Return the bytes that come and go: logits on the last stage, one recomputed layer, gathered parameters.

    `again` are the kinds of layers that run again whole where only some do.
    """
    model, spec = setting.model, setting.spec
    names = list(kinds) + ([model.order[-1][0]] if last and model.predictors else [])
    layer = 0.0
    for name in names:
        kind = model.kind(name)
        whole = layer_saved_bytes(kind, spec, degrees, model.hidden, Recompute.NONE)
        kept = layer_saved_bytes(kind, spec, degrees, model.hidden, Recompute.FULL if name in again else None)
        dense, routed = stage_parameters(model, degrees, {name: 1}, False, False)
        gathered = 2 * _WEIGHT_BYTES * (dense + routed) if degrees.zero == 3 else 0.0
        if degrees.offload.activations:
            whole *= _OFFLOAD_BUFFERS
        layer = max(layer, whole - kept + gathered)
    each = _FUSED_LOGITS_BYTES if spec.fused_loss else _LOGITS_BYTES
    logits = each * tokens_of(spec, degrees) * model.vocabulary / degrees.tensor if last else 0.0
    if last and degrees.zero == 3:
        logits += 2 * _WEIGHT_BYTES * model.head_parameters / degrees.tensor
    return max(layer, logits) + _ring_bytes(setting, degrees)


def _ring_bytes(setting: Setting, degrees: Degrees) -> float:
    """Return the buffers of the context exchange beyond those of a plain ring: a second pair of key-value blocks."""
    if degrees.context_mode is not ContextMode.BIDIRECTIONAL:
        return 0.0
    size = 0.0
    for kind in setting.model.kinds:
        if core := kind.attention:
            kept = core.kv_heads / min(degrees.tensor, core.kv_heads)
            size = max(size, kept * (core.qk_head_dim + core.v_head_dim))
    return 2 * _ELEMENT * tokens_of(setting.spec, degrees) * size


def host_capacity_bytes(setting: Setting) -> float:
    """Return the host memory of one GPU that a plan may use."""
    return setting.cluster.host_gbytes * 1e9


def capacity_bytes(setting: Setting) -> float:
    """Return the memory of a GPU that a plan may use: what the reserve leaves, or the search's limit."""
    room = setting.gpu.memory_bytes * (1 - setting.spec.memory_reserve)
    return min(room, setting.spec.search.most_memory or room)


def stage_capacities(setting: Setting, degrees: Degrees) -> list[float]:
    """Return the memory of a GPU of every pipeline rank that a plan may use."""
    groups = stage_groups(setting.cluster, degrees)
    if not groups:
        return [capacity_bytes(setting)] * degrees.pipeline
    return [capacity_bytes(setting.part(group)) for group in groups]


def stage_kinds(model: TrainingModel, layout: StageLayout, degrees: Degrees) -> list[list[dict[str, int]]]:
    """Return, per rank and chunk, how many layers of each kind it holds."""
    return _per_chunk(model, layout.cuts(), degrees)


def stage_again(model: TrainingModel, layout: StageLayout, degrees: Degrees) -> list[list[dict[str, int]]]:
    """Return, per rank and chunk, how many of its layers of each kind run again whole, where only some do."""
    counts = layout.recomputed or (0,) * len(layout.layers)
    cuts = tuple((start, start + count) for (start, _), count in zip(layout.cuts(), counts, strict=True))
    return _per_chunk(model, cuts, degrees)


def _per_chunk(model: TrainingModel, cuts: tuple[tuple[int, int], ...], degrees: Degrees) -> list[list[dict[str, int]]]:
    order = model.sequence()
    found: list[list[dict[str, int]]] = [[] for _ in range(degrees.pipeline)]
    for slot, (start, end) in enumerate(cuts):
        counts: dict[str, int] = {}
        for name in order[start:end]:
            counts[name] = counts.get(name, 0) + 1
        found[degrees.rank_of(slot)].append(counts)
    return found
