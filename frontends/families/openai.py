"""gpt-oss and GPT-2."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import AttentionBlock, Decoder, DenseBlock, ExpertsBlock, Norm, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def gpt_oss(config: Config) -> Decoder:
    """gpt-oss 20B and 120B: biases everywhere, attention sinks, a window in every other layer."""
    biased = config.flag("attention_bias", default=True)
    full = common.attention(config, qkv_bias=biased, output_bias=biased, sinks=True)
    windowed = replace(full, window=config.integer("sliding_window", default=128))
    types = common.layer_types(config, common.periodic(config.layers(), 2, "sliding_attention", "full_attention"))
    experts = ExpertsBlock(
        config.integer("num_local_experts", "num_experts"),
        config.integer("num_experts_per_tok", "experts_per_token"),
        config.integer("intermediate_size"),
        bias=True,
        router_bias=True,
    )
    return common.decoder(
        config, [pre_norm(windowed if kind == "sliding_attention" else full, experts) for kind in types]
    )


def gpt2(config: Config) -> Decoder:
    """GPT-2: learned positions, biases, layer norm, tied embeddings."""
    size = common.head_dim(config)
    mixer = AttentionBlock(common.heads(config), common.heads(config), size, size, True, True, rope=False)
    width = config.integer("n_inner", default=4 * common.hidden_size(config))
    blocks = [pre_norm(mixer, DenseBlock(width, gated=False, bias=True))] * config.layers()
    return replace(
        common.decoder(config, blocks, tied=True, norm=Norm.LAYER),
        positions=config.integer("n_positions", "n_ctx"),
    )
