"""Mistral, Ministral, Mixtral."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import Decoder, ExpertsBlock, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def mistral(config: Config) -> Decoder:
    """Mistral 7B to Large and Small, Ministral 3: Llama with an optional sliding window."""
    mixer = common.attention(config, window=common.window(config))
    return common.uniform(config, mixer, common.dense(config))


def ministral(config: Config) -> Decoder:
    """Ministral 8B: a window in some layers, given by `layer_types` (all layers without it)."""
    size = common.window(config)
    mixer = common.attention(config)
    types = common.layer_types(config, ["sliding_attention" if size else "full_attention"] * config.layers())
    dense = common.dense(config)
    blocks = [pre_norm(replace(mixer, window=size) if kind == "sliding_attention" else mixer, dense) for kind in types]
    return common.decoder(config, blocks)


def mixtral(config: Config) -> Decoder:
    """Mixtral 8x7B and 8x22B."""
    experts = ExpertsBlock(
        config.integer("num_local_experts"), config.integer("num_experts_per_tok"), config.integer("intermediate_size")
    )
    return common.uniform(config, common.attention(config, window=common.window(config)), experts)
