"""ERNIE 4.5, dense and mixture of experts."""

from __future__ import annotations

from treadle.frontends.blocks import Decoder, ExpertsBlock, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def ernie4_5(config: Config) -> Decoder:
    """ERNIE 4.5 0.3B."""
    biased = config.flag("use_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased)
    return common.uniform(config, mixer, common.dense(config, bias=biased), tied=True)


def ernie4_5_moe(config: Config) -> Decoder:
    """ERNIE 4.5 21B-A3B and 300B-A47B: experts from `moe_layer_start_index` to `moe_layer_end_index`."""
    biased = config.flag("use_bias")
    count = config.layers()
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased)
    width = config.integer("moe_intermediate_size")
    experts = ExpertsBlock(
        config.integer("moe_num_experts", "num_experts"),
        config.integer("moe_k", "num_experts_per_tok"),
        width,
        shared_width=width * config.integer("moe_num_shared_experts", default=0, least=0, most=10**4),
        router_bias=True,
    )
    first = config.integer("moe_layer_start_index", default=1, least=0)
    last = config.integer("moe_layer_end_index", default=count - 1, least=-1)
    last = count - 1 if last == -1 else last
    step = config.integer("moe_layer_interval", default=1)
    dense = common.dense(config, bias=biased)
    blocks = [
        pre_norm(mixer, experts if (index + 1) % step == 0 and first <= index <= last else dense)
        for index in range(count)
    ]
    return common.decoder(config, blocks, tied=True)
