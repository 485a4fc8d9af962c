"""FLOPs of products against what torch counts when transformers runs the same model.

The counts are `torch.utils.flop_counter.FlopCounterMode` over one eager forward pass of 64 tokens of the model that
transformers 5.23 builds from the configuration below (torch 2.13). Eager attention computes all pairs of a square mask.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from treadle.frontends.hf import parse_model
from treadle.ir.model import Attention, Gemm, GroupedGemm, ModelGraph, Operator, Step
from treadle.ir.symbolic import evaluate

TOKENS = 64

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128,
}  # fmt: skip

EXPERTS: dict[str, Any] = {
    "num_experts": 8, "num_local_experts": 8, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48, "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}  # fmt: skip

LATENT: dict[str, Any] = {
    "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "num_key_value_heads": 4,
}  # fmt: skip

OWN: dict[str, dict[str, Any]] = {
    "deepseek_v2": EXPERTS | LATENT,
    "deepseek_v3": EXPERTS | LATENT,
    "exaone4": {"sliding_window": 64, "sliding_window_pattern": 2},
    "glm4_moe": EXPERTS,
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 1024},
    "gpt_oss": EXPERTS,
    "minimax_m2": EXPERTS,
    "mixtral": EXPERTS,
    "nemotron": {"hidden_act": "relu2"},
    "olmoe": EXPERTS,
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "phi": {"num_key_value_heads": 4},
    "qwen2_moe": EXPERTS,
    "qwen3_moe": EXPERTS,
}

COUNTED = {
    "llama": 11_010_048,
    "qwen2": 11_010_048,
    "qwen3": 11_010_048,
    "gemma": 11_010_048,
    "gemma2": 11_010_048,
    "gemma3_text": 11_010_048,
    "mistral": 11_010_048,
    "glm": 11_010_048,
    "glm4": 11_010_048,
    "olmo": 11_010_048,
    "olmo2": 11_010_048,
    "phi3": 11_010_048,
    "phi": 10_485_760,
    "ernie4_5": 11_010_048,
    "seed_oss": 11_010_048,
    "exaone4": 11_010_048,
    "nemotron": 9_437_184,
    "mixtral": 15_859_712,
    "qwen2_moe": 11_943_936,
    "qwen3_moe": 9_568_256,
    "olmoe": 15_859_712,
    "gpt_oss": 15_859_712,
    "minimax_m2": 15_859_712,
    "glm4_moe": 11_075_584,
    "deepseek_v3": 12_189_696,
    "deepseek_v2": 12_189_696,
    "opt": 10_485_760,
    "gpt2": 15_728_640,
}


def products(graph: ModelGraph, step: Step) -> Iterator[tuple[int, Operator]]:
    for layer, count in graph.forward():
        for operator in layer.in_phase(step.phase):
            if isinstance(operator.detail, Gemm | GroupedGemm | Attention):
                yield count, operator


@pytest.mark.parametrize("family", COUNTED)
def test_products_are_those_torch_counts(family: str) -> None:
    graph = parse_model(json.dumps({"model_type": family, **SIZES, **OWN.get(family, {})}))
    step = Step(1, TOKENS, TOKENS, scored=TOKENS)
    values = step.values()
    total = 0
    for count, operator in products(graph, step):
        detail = operator.detail
        if isinstance(detail, Attention):
            total += count * 2 * TOKENS**2 * detail.heads * (detail.qk_head_dim + detail.v_head_dim)
            continue
        bias = operator.parameters - _weights(operator) if operator.parameters else 0
        rows = TOKENS * (detail.top_k if isinstance(detail, GroupedGemm) else 1)
        if isinstance(detail, GroupedGemm):
            bias //= detail.experts
        total += count * (int(evaluate(operator.flops, **values)) - rows * bias)
    assert total == COUNTED[family]


def _weights(operator: Operator) -> int:
    detail = operator.detail
    if isinstance(detail, GroupedGemm):
        return detail.experts * detail.n * detail.k
    assert isinstance(detail, Gemm)
    return detail.batches * detail.n * detail.k
