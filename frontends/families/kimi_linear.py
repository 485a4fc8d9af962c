"""Kimi Linear."""

from __future__ import annotations

from treadle.frontends.blocks import ChannelDeltaBlock, Decoder, ExpertsBlock, LatentBlock, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.errors import UnsupportedModel
from treadle.frontends.families import common

_K3_FIELDS = ("routed_expert_hidden_size", "attn_res_block_size", "mla_use_output_gate")


def kimi_linear(config: Config) -> Decoder:
    """Kimi Linear 48B-A3B: three layers of the channel-wise delta rule to one of latent attention, experts."""
    for name in _K3_FIELDS:
        if config.has(name) and config.fields[name] is not False:
            raise UnsupportedModel(feature=f"`{name}`", family="kimi_linear", place=config.place(name))
    linear = config.section("linear_attn_config")
    delta = ChannelDeltaBlock(
        linear.integer("num_heads"), linear.integer("head_dim"), linear.integer("short_conv_kernel_size", most=1000)
    )
    full = LatentBlock(
        common.heads(config),
        config.integer("q_lora_rank", default=0, least=0),
        config.integer("kv_lora_rank"),
        config.integer("qk_nope_head_dim"),
        config.integer("qk_rope_head_dim"),
        config.integer("v_head_dim"),
    )
    width = config.integer("moe_intermediate_size")
    experts = ExpertsBlock(
        config.integer("num_experts", "n_routed_experts", "num_local_experts"),
        config.integer("num_experts_per_token", "num_experts_per_tok"),
        width,
        shared_width=width * config.integer("num_shared_experts", "n_shared_experts", default=0, least=0, most=10**4),
        router_bias=True,
    )
    first = config.integer("first_k_dense_replace", default=1, least=0)
    dense = common.dense(config)
    attending = set(linear.integers("full_attn_layers"))
    blocks = [
        # The configuration counts layers from 1.
        pre_norm(full if index + 1 in attending else delta, dense if index < first else experts)
        for index in range(config.layers())
    ]
    return common.decoder(config, blocks)
