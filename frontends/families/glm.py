"""GLM-4 and GLM-4.5 to 4.7."""

from __future__ import annotations

from treadle.frontends.blocks import Branch, Decoder, QueryKeyNorm, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def glm(config: Config) -> Decoder:
    """GLM-4 9B: Llama with biased query, key and value projections."""
    mixer = common.attention(config, qkv_bias=config.flag("attention_bias", default=True))
    return common.uniform(config, mixer, common.dense(config))


def glm4(config: Config) -> Decoder:
    """GLM-4 0414: further norms after attention and feed-forward."""
    mixer = common.attention(config, qkv_bias=config.flag("attention_bias", default=True))
    return common.decoder(config, [pre_norm(mixer, common.dense(config), after=True)] * config.layers())


def glm4_moe(config: Config) -> Decoder:
    """GLM-4.5, 4.6 and 4.7: experts after `first_k_dense_replace` dense layers."""
    norm = QueryKeyNorm.HEAD if config.flag("use_qk_norm") else QueryKeyNorm.NONE
    mixer = common.attention(config, qkv_bias=config.flag("attention_bias"), qk_norm=norm)
    experts = common.routed_experts(config, router_bias=True)
    first = config.integer("first_k_dense_replace", default=1, least=0)
    dense: Branch = common.dense(config)
    blocks = [pre_norm(mixer, dense if index < first else experts) for index in range(config.layers())]
    return common.decoder(config, blocks, predictors=common.predictors(config, pre_norm(mixer, experts)))
