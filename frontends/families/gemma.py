"""Gemma 1 to 4: tied embeddings, norms around every sublayer from the second generation on."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import (
    AttentionBlock,
    Block,
    Branch,
    Decoder,
    DenseBlock,
    ExpertsBlock,
    QueryKeyNorm,
    Sublayer,
    pre_norm,
)
from treadle.frontends.config import Config
from treadle.frontends.errors import UnsupportedModel
from treadle.frontends.families import common


def gemma(config: Config) -> Decoder:
    """Gemma 2B and 7B."""
    return common.uniform(config, common.attention(config), common.dense(config), tied=True)


def gemma2(config: Config) -> Decoder:
    """Gemma 2: every other layer with a sliding window."""
    return _windowed(config, common.attention(config), period=2)


def gemma3(config: Config) -> Decoder:
    """Gemma 3 text: five windowed layers to one global, norms on query and key heads."""
    period = config.integer("sliding_window_pattern", "_sliding_window_pattern", default=6)
    return _windowed(config, common.attention(config, qk_norm=QueryKeyNorm.HEAD), period)


def _windowed(config: Config, mixer: AttentionBlock, period: int) -> Decoder:
    count = config.layers()
    size = config.integer("sliding_window", default=4096)
    types = common.layer_types(config, common.periodic(count, period, "sliding_attention", "full_attention"))
    dense = common.dense(config)
    blocks = [
        pre_norm(replace(mixer, window=size) if kind == "sliding_attention" else mixer, dense, after=True)
        for kind in types
    ]
    return common.decoder(config, blocks, tied=True)


def gemma4(config: Config) -> Decoder:
    """Gemma 4 text, without per-layer inputs: global layers have heads of their own and may share keys as values."""
    for name in ("num_kv_shared_layers", "hidden_size_per_layer_input"):
        if config.integer(name, default=0, least=0):
            raise UnsupportedModel(feature=f"`{name}`", family="gemma4", place=config.place(name))
    size = config.integer("sliding_window", default=512)
    local = replace(common.attention(config, qk_norm=QueryKeyNorm.HEAD), window=size)
    shared = config.flag("attention_k_eq_v")
    wide = config.integer("global_head_dim", default=local.qk_head_dim)
    few = config.integer("num_global_key_value_heads", default=local.kv_heads) if shared else local.kv_heads
    if local.heads % few:
        raise config.wrong("num_global_key_value_heads", f"{local.heads} heads do not divide", "a divisor of the heads")
    full = replace(local, kv_heads=few, qk_head_dim=wide, v_head_dim=wide, window=0, key_is_value=shared)
    types = common.layer_types(config, common.periodic(config.layers(), 6, "sliding_attention", "full_attention"))
    blocks = [_gemma4_block(config, full if kind == "full_attention" else local) for kind in types]
    return common.decoder(config, blocks, tied=True)


def _gemma4_block(config: Config, mixer: AttentionBlock) -> Block:
    first = Sublayer((mixer,), after=True)
    dense: Branch = DenseBlock(config.integer("intermediate_size"))
    if not config.flag("enable_moe_block"):
        return Block((first, Sublayer((dense,), after=True)), extra_parameters=1)
    experts = ExpertsBlock(
        config.integer("num_experts"),
        config.integer("top_k_experts"),
        config.integer("moe_intermediate_size", "expert_intermediate_size"),
    )
    # Dense and experts side by side, each with norms of its own, and one more over their sum; the router scales
    # its input by a vector of the model's width and its output by one value per expert.
    extra = common.hidden_size(config) + experts.experts + 1
    return Block((first, Sublayer((dense, experts), after=True, extra_norms=2)), extra_parameters=extra)
