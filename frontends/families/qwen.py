"""Qwen 2 to 3.6: dense, mixtures of experts, and hybrids with the gated delta rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from treadle.frontends.blocks import (
    AttentionBlock,
    Block,
    Branch,
    Decoder,
    DeltaBlock,
    ExpertsBlock,
    QueryKeyNorm,
    pre_norm,
)
from treadle.frontends.config import Config
from treadle.frontends.families import common


def qwen2(config: Config) -> Decoder:
    """Qwen2 and Qwen2.5: biased query, key and value projections."""
    return common.decoder(config, [pre_norm(mixer, common.dense(config)) for mixer in _biased(config)])


def qwen2_moe(config: Config) -> Decoder:
    """Qwen1.5-MoE and Qwen2-MoE: a shared expert behind a gate."""
    experts = ExpertsBlock(
        config.integer("num_experts", "num_local_experts"),
        config.integer("num_experts_per_tok"),
        config.integer("moe_intermediate_size"),
        shared_width=config.integer("shared_expert_intermediate_size"),
        shared_gate=True,
    )
    feed_forwards = _sparse(config, experts)
    return common.decoder(config, [pre_norm(*pair) for pair in zip(_biased(config), feed_forwards, strict=True)])


def qwen3(config: Config) -> Decoder:
    """Qwen3 and the text part of Qwen3-VL: norms on query and key heads, no biases."""
    return common.uniform(config, _normed(config), common.dense(config))


def qwen3_moe(config: Config) -> Decoder:
    """Qwen3-MoE and the text part of Qwen3-VL-MoE."""
    experts = ExpertsBlock(
        config.integer("num_experts", "num_local_experts"),
        config.integer("num_experts_per_tok"),
        config.integer("moe_intermediate_size"),
    )
    return common.decoder(config, [pre_norm(_normed(config), part) for part in _sparse(config, experts)])


def qwen3_next(config: Config) -> Decoder:
    """Qwen3-Next: three gated delta layers to one of gated attention, experts everywhere."""
    return _hybrid(config, _sparse(config, _shared_experts(config)), predictors=0)


def qwen3_5(config: Config) -> Decoder:
    """Qwen3.5 and 3.6, dense."""
    count = config.layers()
    return _hybrid(config, [common.dense(config)] * count, config.integer("mtp_num_hidden_layers", default=0, least=0))


def qwen3_5_moe(config: Config) -> Decoder:
    """Qwen3.5 and 3.6, mixture of experts."""
    parts = [_shared_experts(config)] * config.layers()
    return _hybrid(config, parts, config.integer("mtp_num_hidden_layers", default=0, least=0))


def _biased(config: Config) -> list[AttentionBlock]:
    mixer = common.attention(config, qkv_bias=config.flag("qkv_bias", default=True))
    count = config.layers()
    if not config.flag("use_sliding_window"):
        return [mixer] * count
    first = config.integer("max_window_layers", default=count, least=0)
    types = common.layer_types(
        config, ["full_attention" if index < first else "sliding_attention" for index in range(count)]
    )
    windowed = replace(mixer, window=common.window(config))
    return [windowed if kind == "sliding_attention" else mixer for kind in types]


def _normed(config: Config) -> AttentionBlock:
    biased = config.flag("attention_bias")
    return common.attention(config, qkv_bias=biased, output_bias=biased, qk_norm=QueryKeyNorm.HEAD)


def _sparse(config: Config, experts: ExpertsBlock) -> list[Branch]:
    step = config.integer("decoder_sparse_step", default=1)
    count = config.layers()
    dense_layers = set(config.integers("mlp_only_layers", default=(), least=0))
    return [common.dense(config) if index in dense_layers or (index + 1) % step else experts for index in range(count)]


def _shared_experts(config: Config) -> ExpertsBlock:
    return ExpertsBlock(
        config.integer("num_experts", "num_local_experts"),
        config.integer("num_experts_per_tok"),
        config.integer("moe_intermediate_size"),
        shared_width=config.integer("shared_expert_intermediate_size"),
        shared_gate=True,
    )


def _hybrid(config: Config, feed_forwards: Sequence[Branch], predictors: int) -> Decoder:
    period = config.integer("full_attention_interval", default=4)
    types = common.layer_types(config, common.periodic(config.layers(), period, "linear_attention", "full_attention"))
    full = replace(_normed(config), gate=common.heads(config) * common.head_dim(config))
    linear = DeltaBlock(
        config.integer("linear_num_key_heads"),
        config.integer("linear_num_value_heads"),
        config.integer("linear_key_head_dim"),
        config.integer("linear_value_head_dim"),
        config.integer("linear_conv_kernel_dim", most=1000),
    )
    blocks: list[Block] = [
        pre_norm(linear if kind == "linear_attention" else full, part)
        for kind, part in zip(types, feed_forwards, strict=True)
    ]
    extra = [common.predictor(pre_norm(full, feed_forwards[-1]))] * min(predictors, 64)
    return common.decoder(config, blocks, predictors=extra)
