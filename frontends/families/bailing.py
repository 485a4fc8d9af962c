"""Ling and Ring (bailing_moe)."""

from __future__ import annotations

from treadle.frontends.blocks import Decoder, ExpertsBlock, QueryKeyNorm, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def bailing_moe(config: Config) -> Decoder:
    """Ling-lite, Ling-plus, Ling 2.0 (mini, flash, 1T): shared experts, dense first layers, norms in 2.0."""
    norm = QueryKeyNorm.HEAD if config.flag("use_qk_norm") else QueryKeyNorm.NONE
    mixer = common.attention(
        config, qkv_bias=config.flag("use_qkv_bias"), output_bias=config.flag("use_bias"), qk_norm=norm
    )
    width = config.integer("moe_intermediate_size")
    count = config.integer("num_shared_experts", default=0, least=0, most=10**4)
    experts = ExpertsBlock(
        config.integer("num_experts"),
        config.integer("num_experts_per_tok"),
        width,
        shared_width=count * config.integer("moe_shared_expert_intermediate_size", default=width),
        router_bias=config.flag("moe_router_enable_expert_bias"),
    )
    first = config.integer("first_k_dense_replace", default=0, least=0)
    dense = common.dense(config)
    blocks = [pre_norm(mixer, dense if index < first else experts) for index in range(config.layers())]
    return common.decoder(config, blocks, predictors=common.predictors(config, pre_norm(mixer, experts)))
