"""OLMo 1 to 3 and OLMoE."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import Block, Branch, Decoder, ExpertsBlock, Norm, QueryKeyNorm, Sublayer, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def olmo(config: Config) -> Decoder:
    """OLMo 1: layer norms without parameters."""
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased)
    return common.decoder(config, [pre_norm(mixer, common.dense(config))] * config.layers(), norm=Norm.PLAIN)


def olmo2(config: Config) -> Decoder:
    """OLMo 2 and 3: norms after the sublayers and over all query and key heads; windows in OLMo 3."""
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased, qk_norm=QueryKeyNorm.FULL)
    windowed = replace(mixer, window=common.window(config))
    types = common.layer_types(config, ["full_attention"] * config.layers())
    dense = common.dense(config)
    return common.decoder(config, [_after(windowed if kind == "sliding_attention" else mixer, dense) for kind in types])


def olmo3(config: Config) -> Decoder:
    """OLMo 3: OLMo 2 with a window in three of four layers."""
    if config.has("layer_types"):
        return olmo2(config)
    types = common.periodic(config.layers(), 4, "sliding_attention", "full_attention")
    return olmo2(replace(config, fields={**config.fields, "layer_types": types}))


def _after(mixer: Branch, feed_forward: Branch) -> Block:
    return Block(tuple(Sublayer((branch,), before=False, after=True) for branch in (mixer, feed_forward)))


def olmoe(config: Config) -> Decoder:
    """OLMoE 1B-7B: norms over all query and key heads, 64 experts."""
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased, qk_norm=QueryKeyNorm.FULL)
    experts = ExpertsBlock(
        config.integer("num_experts", "num_local_experts"),
        config.integer("num_experts_per_tok"),
        config.integer("intermediate_size"),
    )
    return common.uniform(config, mixer, experts)
