"""Memory of a pipeline rank: weights, gradients and optimizer state, saved activations, and what comes and goes.

Activations follow Korthikanti et al. (arXiv 2205.05198, equations 1 to 6): per layer, the tensors kept for the backward
pass, split by tensor and sequence parallelism. Bytes per parameter: weights 2, gradients and optimizer as the spec
says, divided by the shard ranks of the ZeRO stage (arXiv 1910.02054).
"""

from __future__ import annotations

from treadle.costmodels.training_step import Setting, tokens_of
from treadle.ir.training.model import LayerKind, TrainingModel
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import Recompute, TrainingSpec

_WEIGHT_BYTES = 2
_ELEMENT = 2
_LOGITS_BYTES = 16
"""Per element of the logits at the peak of an unfused loss: float32 logits, log-softmax and gradient, two
16-bit copies."""
_UNFUSED_SCORE_BYTES = 5
"""Per score: softmax output and dropout output in 16 bits, the dropout mask in 8 (arXiv 2205.05198, section 4.1)."""


def layer_saved_bytes(
    kind: LayerKind, spec: TrainingSpec, degrees: Degrees, hidden: int, recompute: Recompute | None = None
) -> float:
    """Return the bytes one layer keeps for the backward pass of one microbatch, on one rank."""
    mode = degrees.recompute if recompute is None else recompute
    tokens, split = tokens_of(spec, degrees), degrees.tensor if spec.sequence_parallel else 1
    if mode is Recompute.FULL:
        return _ELEMENT * tokens * hidden / split
    dropped = kind.selective_saved if mode is Recompute.SELECTIVE and spec.fused_attention else 0
    replicated = (_ELEMENT * kind.replicated_saved + kind.masks) / split
    sharded = _ELEMENT * (kind.sharded_saved - dropped) / degrees.tensor
    saved = tokens * (replicated + sharded)
    if kind.experts:
        kept = hidden if mode is Recompute.SELECTIVE and spec.fused_attention else kind.expert_saved
        saved += _ELEMENT * tokens / degrees.tensor * kind.experts.top_k * kept
    return saved + _attention_saved_bytes(kind, spec, degrees, mode)


def _attention_saved_bytes(kind: LayerKind, spec: TrainingSpec, degrees: Degrees, mode: Recompute) -> float:
    if kind.attention is None:
        return 0.0
    rows = degrees.micro_batch * kind.attention.heads / degrees.tensor * spec.sequence_tokens / degrees.context
    if spec.fused_attention:
        return 4 * rows
    return 0.0 if mode is Recompute.SELECTIVE else _UNFUSED_SCORE_BYTES * rows * spec.sequence_tokens


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


def state_bytes(spec: TrainingSpec, degrees: Degrees, dense: float, routed: float) -> float:
    """Return bytes of weights, gradients and optimizer state on one GPU."""
    ranks = degrees.data * degrees.context
    copies = max(1.0, ranks * degrees.tensor / (degrees.expert * degrees.expert_tensor))
    total = 0.0
    for parameters, shards in ((dense, ranks), (routed, copies)):
        weights = _WEIGHT_BYTES / shards if degrees.zero == 3 else _WEIGHT_BYTES
        gradients = spec.gradient_bytes / (shards if degrees.zero >= 2 else 1)
        optimizer = spec.optimizer_bytes / (shards if degrees.zero >= 1 else 1)
        total += parameters * (weights + gradients + optimizer)
    return total


def transient_bytes(setting: Setting, degrees: Degrees, kinds: dict[str, int], last: bool) -> float:
    """Return the bytes that come and go: logits on the last stage, one recomputed layer, gathered parameters."""
    model, spec = setting.model, setting.spec
    names = list(kinds) + ([model.order[-1][0]] if last and model.predictors else [])
    layer = 0.0
    for name in names:
        kind = model.kind(name)
        whole = layer_saved_bytes(kind, spec, degrees, model.hidden, Recompute.NONE)
        kept = layer_saved_bytes(kind, spec, degrees, model.hidden)
        dense, routed = stage_parameters(model, degrees, {name: 1}, False, False)
        gathered = 2 * _WEIGHT_BYTES * (dense + routed) if degrees.zero == 3 else 0.0
        layer = max(layer, whole - kept + gathered)
    logits = _LOGITS_BYTES * tokens_of(spec, degrees) * model.vocabulary / degrees.tensor if last else 0.0
    if last and degrees.zero == 3:
        logits += 2 * _WEIGHT_BYTES * model.head_parameters / degrees.tensor
    return max(layer, logits)


def capacity_bytes(setting: Setting) -> float:
    """Return the memory of a GPU that a plan may use."""
    return setting.gpu.memory_bytes * (1 - setting.spec.memory_reserve)


def stage_kinds(model: TrainingModel, layout: StageLayout, degrees: Degrees) -> list[list[dict[str, int]]]:
    """Return, per rank and chunk, how many layers of each kind it holds."""
    order = model.sequence()
    found: list[list[dict[str, int]]] = [[] for _ in range(degrees.pipeline)]
    for slot, (start, end) in enumerate(layout.cuts()):
        counts: dict[str, int] = {}
        for name in order[start:end]:
            counts[name] = counts.get(name, 0) + 1
        found[slot % degrees.pipeline].append(counts)
    return found
