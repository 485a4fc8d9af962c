"""MiMo 7B and MiMo-V2-Flash."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import AttentionBlock, Decoder, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def mimo(config: Config) -> Decoder:
    """MiMo 7B: biased query, key and value projections, one layer of multi-token prediction."""
    block = pre_norm(
        common.attention(config, qkv_bias=config.flag("attention_bias", default=True)), common.dense(config)
    )
    return common.decoder(config, [block] * config.layers(), predictors=common.predictors(config, block))


def mimo_v2_flash(config: Config) -> Decoder:
    """MiMo-V2-Flash: windowed layers with sinks and more key-value heads, value heads narrower than query heads."""
    count = config.layers()
    full, windowed = _attention(config, ""), _attention(config, "swa_")
    windowed = replace(
        windowed,
        window=config.integer("sliding_window", "sliding_window_size"),
        sinks=config.flag("add_swa_attention_sink_bias", default=True),
    )
    full = replace(full, sinks=config.flag("add_full_attention_sink_bias"))
    experts = common.routed_experts(config, router_bias=True)
    dense = common.dense(config)
    pattern, sparse = _windowed_layers(config, count), _sparse_layers(config, count)
    blocks = [
        pre_norm(windowed if local else full, experts if routed else dense)
        for local, routed in zip(pattern, sparse, strict=True)
    ]
    return common.decoder(config, blocks)


def _windowed_layers(config: Config, count: int) -> list[bool]:
    if config.has("hybrid_layer_pattern") or not config.has("layer_types"):
        return [bool(mark) for mark in config.choices("hybrid_layer_pattern", (0, 1), count)]
    return [kind == "sliding_attention" for kind in common.layer_types(config, ())]


def _sparse_layers(config: Config, count: int) -> list[bool]:
    if config.has("moe_layer_freq") or not config.has("mlp_layer_types"):
        return [bool(mark) for mark in config.choices("moe_layer_freq", (0, 1), count)]
    return [kind == "sparse" for kind in config.choices("mlp_layer_types", ("dense", "sparse"), count)]


def _attention(config: Config, prefix: str) -> AttentionBlock:
    heads = config.integer(f"{prefix}num_attention_heads", "num_attention_heads", most=10**5)
    groups = config.integer(f"{prefix}num_key_value_heads", "num_key_value_heads", most=10**5)
    if heads % groups:
        raise config.wrong(f"{prefix}num_key_value_heads", f"{heads} heads do not divide", "a divisor of the heads")
    return AttentionBlock(
        heads,
        groups,
        config.integer(f"{prefix}head_dim", "head_dim"),
        config.integer(f"{prefix}v_head_dim", "v_head_dim"),
        qkv_bias=config.flag("attention_bias"),
    )
