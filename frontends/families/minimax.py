"""MiniMax-M2 to M2.7."""

from __future__ import annotations

from treadle.frontends.blocks import Decoder, ExpertsBlock, QueryKeyNorm, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def minimax_m2(config: Config) -> Decoder:
    """MiniMax-M2: norms over all query and key heads, 256 experts."""
    norm = QueryKeyNorm.FULL if config.flag("use_qk_norm", default=True) else QueryKeyNorm.NONE
    mixer = common.attention(config, qk_norm=norm)
    experts = ExpertsBlock(
        config.integer("num_local_experts"),
        config.integer("num_experts_per_tok"),
        config.integer("intermediate_size"),
        shared_width=config.integer("shared_intermediate_size", default=0, least=0),
        router_bias=config.flag("use_routing_bias", default=True),
    )
    block = pre_norm(mixer, experts)
    modules = config.integer("num_mtp_modules", default=0, least=0, most=64) if config.flag("use_mtp") else 0
    return common.decoder(config, [block] * config.layers(), predictors=[common.predictor(block)] * modules)
