"""Hunyuan dense and mixture of experts, Hy 3."""

from __future__ import annotations

from treadle.frontends.blocks import Decoder, ExpertsBlock, QueryKeyNorm, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def hunyuan_dense(config: Config) -> Decoder:
    """Hunyuan 0.5B to 7B: norms on query and key heads."""
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased, qk_norm=QueryKeyNorm.HEAD)
    return common.uniform(config, mixer, common.dense(config))


def hunyuan_moe(config: Config) -> Decoder:
    """Hunyuan-A13B: one shared expert of the experts' width."""
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased, qk_norm=QueryKeyNorm.HEAD)
    count = config.layers()
    width = config.uniform_integer("moe_intermediate_size", "intermediate_size", length=count)
    shared = config.uniform_integer("num_shared_expert", default=1, length=count)
    experts = ExpertsBlock(
        config.uniform_integer("num_experts", length=count),
        config.uniform_integer("moe_topk", length=count, default=1),
        width,
        shared_width=config.integer("intermediate_size") * shared,
    )
    return common.decoder(config, [pre_norm(mixer, experts)] * count, tied=True)


def hy_v3(config: Config) -> Decoder:
    """Hy 3: the first layers dense, experts after them, norms on query and key heads."""
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased, qk_norm=QueryKeyNorm.HEAD)
    width = config.integer("moe_intermediate_size", "expert_hidden_dim")
    experts = ExpertsBlock(
        config.integer("num_experts", "num_local_experts"),
        config.integer("num_experts_per_tok"),
        width,
        shared_width=width * config.integer("num_shared_experts", default=1, least=0, most=10**4),
        router_bias=True,
    )
    first = config.integer("first_k_dense_replace", default=1, least=0)
    dense = common.dense(config, bias=config.flag("mlp_bias"))
    blocks = [pre_norm(mixer, dense if index < first else experts) for index in range(config.layers())]
    return common.decoder(config, blocks, predictors=common.predictors(config, pre_norm(mixer, experts)))
