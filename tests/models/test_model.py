"""Model graphs: FLOPs, bytes and caches against closed forms and sums by hand; validity."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.frontends.hf import parse_model
from treadle.frontends.lowering import TOKENS, attended_pairs, visible_keys
from treadle.ir.errors import InvalidValue
from treadle.ir.model import (
    Attention,
    Layer,
    LayerGroup,
    ModelGraph,
    Operator,
    OperatorKind,
    Role,
    Step,
    causal_pairs,
)
from treadle.ir.symbolic import BATCH, KV, SEQ, evaluate, parse
from treadle.ir.workload import Phase

TINY: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32,
}  # fmt: skip


def graph(**changes: Any) -> ModelGraph:
    return parse_model(json.dumps({**TINY, **changes}))


def seen_keys(position: int, window: int, chunk: int) -> set[int]:
    """Keys (0-based) that the query at a position sees, by definition."""
    keys = range(position + 1)
    if window:
        return {key for key in keys if key > position - window}
    if chunk:
        return {key for key in keys if key // chunk == position // chunk}
    return set(keys)


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 7), st.integers(0, 7))
def test_pairs_and_visible_keys_count_what_masks_say(seq: int, before: int, window: int, chunk: int) -> None:
    chunk = 0 if window else chunk
    kv = seq + before
    rows = [seen_keys(position, window, chunk) for position in range(before, kv)]
    shape = Attention(1, 1, 1, 1, 2, window=window, chunk=chunk)
    assert evaluate(attended_pairs(shape, TOKENS), batch=2, seq=seq, kv=kv) == 2 * sum(map(len, rows))
    assert evaluate(visible_keys(shape), batch=2, seq=seq, kv=kv) == len(set().union(*rows))


def test_causal_pairs_of_a_whole_prompt() -> None:
    assert evaluate(causal_pairs(BATCH, SEQ, KV), batch=1, seq=100, kv=100) == 5050


def test_flops_of_a_dense_model_are_two_per_weight_and_the_attention_term(llama: ModelGraph) -> None:
    seq = 2048
    products = 32 * (4096 * 6144 + 4096 * 4096 + 4096 * 28672 + 14336 * 4096)
    attention = 32 * 32 * 2 * (128 + 128) * seq * (seq + 1) // 2
    head = 2 * 4096 * 128256
    least = 2 * seq * products + attention + head
    # Norms, rotation, activation and residuals are the rest: vector work of below one per cent.
    assert least < llama.flops(1, seq) < 1.01 * least
    training = llama.flops(1, seq, scored=seq) - llama.flops(1, seq)
    assert training == head * (seq - 1)


def test_decode_reads_every_weight_and_the_cache_once(llama: ModelGraph) -> None:
    moved = llama.bytes(64, 1, 1152)
    weights = llama.stored_bytes() - 2 * 128256 * 4096
    cache = 64 * llama.kv_bytes(1152)
    assert weights + cache < moved < 1.05 * (weights + cache)


def test_cache_of_grouped_query_and_latent_attention(llama: ModelGraph, deepseek: ModelGraph) -> None:
    assert llama.kv_bytes_per_token() == 2 * 32 * 8 * 128 * 2
    assert deepseek.kv_bytes_per_token() == 61 * (512 + 64) * 2


def test_windows_bound_the_cache() -> None:
    windowed = graph(model_type="mistral", sliding_window=100)
    assert windowed.kv_bytes(1000) == windowed.kv_bytes(100) == 100 * windowed.kv_bytes_per_token()
    assert windowed.kv_bytes(40) == 40 * windowed.kv_bytes_per_token()


def test_latent_attention_is_absorbed_in_decode_only(deepseek: ModelGraph) -> None:
    layer = deepseek.layer("latent_attention_experts")
    decode = {operator.name for operator in layer.in_phase(Phase.DECODE)}
    prefill = {operator.name for operator in layer.in_phase(Phase.PREFILL)}
    assert {"query_absorb", "attention_decode", "value_absorb"} == decode - prefill
    assert {"key_value_up", "attention"} == prefill - decode
    attention = layer.operator("attention_decode")
    flops = evaluate(attention.flops, batch=1, seq=1, kv=1000)
    assert flops == 2 * 128 * 1000 * (576 + 512)
    prefill_flops = evaluate(layer.operator("attention").flops, batch=1, seq=1000, kv=1000)
    assert prefill_flops == 2 * 128 * (192 + 128) * 1000 * 1001 // 2


def test_experts_are_read_as_far_as_tokens_reach(mixtral: ModelGraph) -> None:
    operator = mixtral.layer("attention_experts").operator("experts_gate_up")
    one_expert = 4096 * 28672 * 2
    for batch, read in ((1, 2), (3, 6), (4, 8), (100, 8)):
        assert evaluate(operator.weight_bytes, batch=batch, seq=1) == read * one_expert
    assert operator.active == operator.parameters * 2 // 8


def test_predictors_are_counted_only_when_asked(deepseek: ModelGraph) -> None:
    assert deepseek.parameters() == 671_026_419_200
    # 684.5 B on the hub, less embedding and head, which the checkpoint repeats for its prediction layer.
    assert deepseek.parameters(predictors=True) == pytest.approx(684.49e9 - 2 * 129280 * 7168, rel=1e-4)
    assert "predictor" not in {layer.role.value for layer, _ in deepseek.forward()}


def test_the_stack_keeps_the_order() -> None:
    hybrid = graph(
        model_type="nemotron_h", num_hidden_layers=6, hybrid_override_pattern="MM-M*-", head_dim=2, mamba_num_heads=4,
        mamba_head_dim=4, n_groups=2, ssm_state_size=4, conv_kernel=4,
    )  # fmt: skip
    names = [layer.name for layer in hybrid.sequence()]
    assert names == ["embedding", "mamba2", "mamba2", "dense", "mamba2", "attention", "dense", "head"]
    assert hybrid.block_count == 6
    assert hybrid.state_bytes() == 3 * 4 * (4 * 4 * 4 + (16 + 2 * 2 * 4) * 3)


def test_encoder_runs_over_the_source() -> None:
    model = parse_model(
        json.dumps(
            {"model_type": "t5", "d_model": 8, "d_ff": 16, "d_kv": 4, "num_heads": 2, "num_layers": 2, "vocab_size": 32}
        )
    )
    assert model.flops(1, 4, source=10) > model.flops(1, 4) > 0
    assert model.kv_bytes(4, source=10) == 2 * 2 * (8 + 8) * (4 + 10)


def test_omitted_towers_are_named() -> None:
    model = parse_model(
        json.dumps(
            {"model_type": "qwen3_vl", "vision_config": {}, "text_config": {**TINY, "model_type": "qwen3_vl_text"}}
        )
    )
    assert model.omitted == ("vision_config",)


def test_steps_refuse_nonsense(llama: ModelGraph) -> None:
    with pytest.raises(InvalidValue, match="kv >= seq"):
        llama.flops(1, 10, 5)
    assert Step(4, 1, 9).phase is Phase.DECODE


def operator(name: str, inputs: tuple[str, ...] = ("input",), **more: Any) -> Operator:
    return Operator(name, OperatorKind.GEMM, inputs, (SEQ,), **more)


def test_validity_of_operators_layers_and_models() -> None:
    for build in (
        lambda: operator("a", parameters=-1),
        lambda: operator("a", parameters=3, active_parameters=4),
        lambda: operator("a", weight_dtype="float7"),
        lambda: operator("a", flops=parse("width*seq")),
        lambda: Layer("l", ()),
        lambda: Layer("l", (operator("a"), operator("a"))),
        lambda: Layer("l", (operator("a", ("b",)), operator("b"))),
        lambda: LayerGroup("l", 0),
        lambda: Attention(8, 3, 64, 64, 1),
        lambda: Attention(8, 4, 64, 64, -1),
        lambda: Step(0, 1, 1),
    ):
        with pytest.raises(InvalidValue):
            build()
    layer = Layer("l", (operator("a"),), Role.BLOCK)
    for layers, stack, dtype in (
        ((layer, layer), (LayerGroup("l", 1),), "bfloat16"),
        ((layer,), (LayerGroup("l", 1), LayerGroup("m", 1)), "bfloat16"),
        ((layer,), (LayerGroup("l", 1),), "bf16"),
    ):
        with pytest.raises(InvalidValue):
            ModelGraph("m", "f", dtype, 1, 1, layers, stack)
