"""Model graph and workload -> the loops worth a kernel of their own, with the shapes that the workload gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from treadle.ir.model import (
    Attention,
    Gemm,
    GroupedGemm,
    Layer,
    ModelGraph,
    Operator,
    OperatorKind,
    Role,
    Step,
)
from treadle.ir.symbolic import Amount, evaluate
from treadle.ir.workload import Deployment, HotLoop, Phase

PREFILL_QUANTILE = 0.9
"""Of prompt lengths: the prompt for which prefill kernels are scheduled."""
DECODE_QUANTILE = 0.5
"""Of prompt and output lengths: the context, half of the output done, for which decode kernels are scheduled."""
HOT_SHARE = 0.01
"""A loop is hot when it has this share of its phase's FLOPs or traffic."""
_BLOCK = 128
"""Lengths are rounded up to whole blocks of tokens, as engines pad and page them."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    loop: HotLoop
    flops: float
    bytes: float


def hot_loops(model: ModelGraph, request: Deployment) -> tuple[HotLoop, ...]:
    """Return the hot loops of both phases; equal loops are one, with their calls added.

    Prefill: one prompt of the `PREFILL_QUANTILE` length. Decode: `request.decode_batch` sequences of the median
    prompt and half the median output. Loops in order of traffic share within a phase, prefill first.
    """
    found: list[HotLoop] = []
    for phase, step in steps(request).items():
        candidates = _merged(list(_candidates(model, phase, step)))
        flops = sum(candidate.flops for candidate in candidates)
        moved = sum(candidate.bytes for candidate in candidates)
        kept = [
            candidate.loop
            for candidate in candidates
            if candidate.flops >= HOT_SHARE * flops or candidate.bytes >= HOT_SHARE * moved
        ]
        found += _named(kept)
    return tuple(found)


def steps(request: Deployment) -> dict[Phase, Step]:
    """Return the forward pass of each phase for which kernels are scheduled."""
    lengths = request.workload.lengths
    prompt = _whole_blocks(lengths.prompt(PREFILL_QUANTILE))
    context = _whole_blocks(lengths.prompt(DECODE_QUANTILE) + lengths.output(DECODE_QUANTILE) // 2)
    return {
        Phase.PREFILL: Step(1, prompt, prompt, source=prompt),
        Phase.DECODE: Step(request.decode_batch, 1, context, source=prompt),
    }


def _whole_blocks(tokens: int) -> int:
    return -(-tokens // _BLOCK) * _BLOCK


def _candidates(model: ModelGraph, phase: Phase, step: Step) -> Iterator[_Candidate]:
    values = step.values()
    for layer, count in model.forward():
        if layer.role is Role.ENCODER and phase is Phase.DECODE:
            continue
        fused = _gated_activations(layer)
        for operator in layer.in_phase(phase):
            shape = _shape(operator, fused, step, phase)
            if shape is None:
                continue
            family, extents, calls = shape
            loop = HotLoop(
                operator.name, family, extents, model.dtype, phase, calls * count, (f"{layer.name}.{operator.name}",)
            )
            yield _Candidate(
                loop,
                count * float(evaluate(operator.flops, **values)),
                count * float(evaluate(operator.bytes, **values)),
            )


def _gated_activations(layer: Layer) -> dict[str, Operator]:
    """Return per product that only feeds a silu gate the operator it fuses with."""
    return {
        operator.inputs[0]: operator
        for operator in layer.operators
        if operator.kind is OperatorKind.ACTIVATION and operator.name.endswith("silu_product")
    }


def _shape(
    operator: Operator, fused: dict[str, Operator], step: Step, phase: Phase
) -> tuple[str, dict[str, int], int] | None:
    """Return family, shape and calls per layer of the loop that computes an operator; None when it has no family."""
    match operator.detail:
        case Attention():
            return None if operator.name == "index_scores" else _attention(operator.detail, step, phase)
        case Gemm(m, n, k, batches):
            rows = _whole(evaluate(m, **step.values()))
            if rows and operator.name in fused:
                return "swiglu", {"m": rows, "n": n // 2, "k": k}, batches
            return ("gemm", {"m": rows, "n": n, "k": k}, batches) if rows else None
        case GroupedGemm(tokens, experts, top_k, n, k):
            rows = _whole(evaluate(tokens, **step.values()))
            return "grouped_gemm", {"experts": experts, "tokens": rows, "top_k": top_k, "n": n, "k": k}, 1
        case _:
            return _norm(operator, step)


def _attention(shape: Attention, step: Step, phase: Phase) -> tuple[str, dict[str, int], int] | None:
    keys = step.source if shape.cross or not shape.causal else shape.cached_tokens(step.kv)
    if shape.top_k_keys:
        keys = min(keys, shape.top_k_keys)
    heads = {"batch": step.batch, "heads": shape.heads, "kv_heads": shape.kv_heads}
    sizes = {"qk_head_dim": shape.qk_head_dim, "v_head_dim": shape.v_head_dim}
    limit = shape.window if shape.window < step.kv else 0
    if phase is Phase.DECODE:
        return "attention_decode", {**heads, "seq": step.seq, "kv_seq": keys, **sizes, "window": 0}, 1
    if 0 < shape.top_k_keys < step.kv:
        return None  # every query gathers keys of its own: no family yet
    causal = int(shape.causal and not shape.cross)
    visible = step.kv if causal else keys
    if shape.chunk and shape.chunk < step.seq:
        # Chunks are independent sequences of their own.
        chunks = -(-step.seq // shape.chunk)
        heads["batch"] *= chunks
        return "attention_fwd", {**heads, **_square(shape.chunk), **sizes, "causal": 1, "window": 0}, 1
    return "attention_fwd", {**heads, "seq": step.seq, "kv_seq": visible, **sizes, "causal": causal, "window": limit}, 1


def _square(tokens: int) -> dict[str, int]:
    return {"seq": tokens, "kv_seq": tokens}


def _norm(operator: Operator, step: Step) -> tuple[str, dict[str, int], int] | None:
    if operator.kind is not OperatorKind.NORM or len(operator.shape) != 2:
        return None
    rows, columns = (_whole(evaluate(extent, **step.values())) for extent in operator.shape)
    if operator.parameters != columns or "gated" in operator.name or not rows:
        return None
    return "rms_norm", {"rows": rows, "columns": columns}, 1


def _whole(value: Amount) -> int:
    return int(value)


def _merged(candidates: list[_Candidate]) -> list[_Candidate]:
    """Add up candidates of the same family and shape, keeping the first one's place and name."""
    merged: dict[str, _Candidate] = {}
    for candidate in candidates:
        loop = candidate.loop
        key = f"{loop.family} {sorted(loop.shape.items())}"
        if key not in merged:
            merged[key] = candidate
            continue
        first = merged[key]
        together = replace(
            first.loop, calls=first.loop.calls + loop.calls, operators=first.loop.operators + loop.operators
        )
        merged[key] = _Candidate(together, first.flops + candidate.flops, first.bytes + candidate.bytes)
    return list(merged.values())


def _named(loops: list[HotLoop]) -> list[HotLoop]:
    """Name loops after phase and first operator, with the layer where that is not unique, and a number at last."""
    made: list[HotLoop] = []
    taken: set[str] = set()
    plain = [loop.name for loop in loops]
    for loop in loops:
        base = loop.name if loop.name.startswith(loop.phase.value) else f"{loop.phase.value}_{loop.name}"
        if loop.phase is Phase.DECODE:
            base = base.replace("decode_attention_decode", "decode_attention")
        if plain.count(loop.name) > 1:
            base += "_" + loop.operators[0].split(".")[0]
        name, number = base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        made.append(replace(loop, name=name))
    return made
