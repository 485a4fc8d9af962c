"""Memory of a model when serving: weights, cache, recurrent state and activations, per GPU of a tensor-parallel group.

Everything is derived from the model graph, operator by operator; nothing is a rule of thumb per parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from treadle.ir.errors import InvalidValue
from treadle.ir.model import STORED_BYTES, Attention, Layer, ModelGraph, Operator, OperatorKind, Role, Step
from treadle.ir.symbolic import evaluate

_WHOLE = frozenset({OperatorKind.NORM, OperatorKind.RESIDUAL, OperatorKind.ROUTER})
"""Kinds that every GPU of a tensor-parallel group holds whole."""

_WHOLE_PRODUCTS = frozenset({"router", "latent_down", "shared_gate", "index_query", "index_key", "join"})
"""Products whose result every GPU needs whole: routing scores, the shared latent, the indexer."""


@dataclass(frozen=True, slots=True)
class ServingMemory:
    """Bytes on one GPU."""

    weight_bytes: int
    cache_bytes: int
    state_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weight_bytes + self.cache_bytes + self.state_bytes + self.activation_bytes


def serving_memory(
    model: ModelGraph, *, sequences: int, tokens: int, step_tokens: int, tensor: int = 1, expert: int = 1
) -> ServingMemory:
    """Return the memory of one GPU that serves the whole depth of a model.

    Args:
        model: the graph.
        sequences: sequences whose context is cached.
        tokens: tokens of context of each.
        step_tokens: new tokens of the largest step (a prefill chunk, or the decode batch).
        tensor: GPUs that share every layer.
        expert: GPUs among which the experts are spread; `tensor` of them share the rest.

    Raises:
        InvalidValue: a size below its least value.
    """
    if min(sequences, tokens, tensor, expert, step_tokens) < 1:
        raise InvalidValue(message="serving memory needs at least 1 sequence, token and GPU")
    return ServingMemory(
        weight_bytes(model, tensor, expert),
        sequences * cache_bytes(model, tokens, tensor),
        sequences * ceil(model.state_bytes() / tensor),
        activation_bytes(model, step_tokens, tensor),
    )


def weight_bytes(model: ModelGraph, tensor: int = 1, expert: int = 1, predictors: bool = False) -> int:
    """Return the weight bytes of one GPU: products cut by `tensor`, experts by `expert`, norms and routers whole."""
    return sum(
        model.counts[layer.name] * sum(_operator_bytes(operator, tensor, expert) for operator in layer.operators)
        for layer in model.layers
        if predictors or layer.role is not Role.PREDICTOR
    )


def layer_weight_bytes(layer: Layer, tensor: int = 1, expert: int = 1) -> int:
    """Return the weight bytes of one layer on one GPU."""
    return sum(_operator_bytes(operator, tensor, expert) for operator in layer.operators)


def _operator_bytes(operator: Operator, tensor: int, expert: int) -> int:
    if operator.kind is OperatorKind.GROUPED_GEMM:
        return ceil(operator.stored_bytes / max(expert, tensor))
    if operator.kind in _WHOLE or operator.name in _WHOLE_PRODUCTS:
        return operator.stored_bytes
    return ceil(operator.stored_bytes / tensor)


def cache_bytes(model: ModelGraph, tokens: int, tensor: int = 1, source: int = 0) -> int:
    """Return the cache bytes of one sequence on one GPU, windows respected.

    Key-value heads are cut by `tensor` while there are enough of them and repeated beyond; a latent cache is whole on
    every GPU.
    """
    elements = 0
    for _, _, attention, count in model.attentions():
        kept = source if attention.cross else attention.cached_tokens(tokens)
        elements += count * kept * ceil(attention.cache_elements / _cuts(attention, tensor))
    return ceil(elements * STORED_BYTES[model.kv_dtype])


def _cuts(attention: Attention, tensor: int) -> int:
    return 1 if attention.latent is not None else min(tensor, attention.kv_heads)


def activation_bytes(model: ModelGraph, step_tokens: int, tensor: int = 1) -> int:
    """Return the largest sum of results alive at once in a step of `step_tokens` new tokens of one sequence.

    A result lives from the operator that makes it to the last one that reads it; the residual stream lives throughout.
    Results of cut products are cut by `tensor`.
    """
    step = Step(1, step_tokens, step_tokens)
    return max(layer_activation_bytes(layer, step, tensor, STORED_BYTES[model.dtype]) for layer in model.layers)


def layer_activation_bytes(layer: Layer, step: Step, tensor: int, item_bytes: float) -> int:
    """Return the largest sum of results of a layer alive at once."""
    operators = layer.in_phase(step.phase)
    last_read = {name: index for index, operator in enumerate(operators) for name in operator.inputs}
    sizes = {operator.name: _result_bytes(operator, step, tensor, item_bytes) for operator in operators}
    sizes["input"] = sizes[operators[-1].name] if layer.role is not Role.HEAD else 0
    alive = {"input": sizes["input"]}
    peak = 0
    for index, operator in enumerate(operators):
        alive[operator.name] = sizes[operator.name]
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last_read.get(name, -1) > index or name == "input"}
        alive[operator.name] = sizes[operator.name]
    return peak


def _result_bytes(operator: Operator, step: Step, tensor: int, item_bytes: float) -> int:
    values = step.values()
    elements = 1.0
    for extent in operator.shape:
        elements *= float(evaluate(extent, **values))
    whole = operator.kind in _WHOLE | {OperatorKind.EMBEDDING} or operator.name in _WHOLE_PRODUCTS
    joined = operator.name in ("output", "down", "shared_down", "out_projection", "latent_out")
    return ceil(elements * item_bytes / (1 if whole or joined else tensor))
