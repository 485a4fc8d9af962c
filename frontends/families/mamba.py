"""Mamba-2 and Falcon-H1."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import Block, Decoder, StateSpaceBlock, Sublayer
from treadle.frontends.config import Config
from treadle.frontends.families import common


def mamba2(config: Config) -> Decoder:
    """Mamba-2 (Codestral Mamba, state-spaces): a stack of mixers without feed-forwards."""
    inner = config.integer("expand", default=2, most=100) * common.hidden_size(config)
    size = config.integer("head_dim", default=64)
    count = config.integer("num_heads", default=max(inner // size, 1))
    if count * size != inner:
        raise config.wrong("num_heads", f"{count} heads of {size} are not {inner} columns", "expand x hidden_size")
    mixer = StateSpaceBlock(
        count,
        size,
        config.integer("n_groups", default=8),
        config.integer("state_size", default=128),
        config.integer("conv_kernel", default=4, most=1000),
        config.flag("use_conv_bias", default=True),
        config.flag("use_bias"),
    )
    return common.decoder(config, [Block((Sublayer((mixer,)),))] * config.layers())


def falcon_h1(config: Config) -> Decoder:
    """Falcon-H1: Mamba-2 and attention side by side in every layer, then a feed-forward."""
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased)
    inner = config.integer("mamba_d_ssm", default=config.integer("mamba_expand", default=2) * mixer_width(config))
    heads = config.integer("mamba_n_heads")
    size = config.integer("mamba_d_head", default=max(inner // heads, 1)) if _given(config) else max(inner // heads, 1)
    if heads * size != inner:
        raise config.wrong("mamba_n_heads", f"{heads} heads of {size} are not {inner} columns", "mamba_d_ssm columns")
    state_space = StateSpaceBlock(
        heads,
        size,
        config.integer("mamba_n_groups"),
        config.integer("mamba_d_state"),
        config.integer("mamba_d_conv", default=4, most=1000),
        config.flag("mamba_conv_bias", default=True),
        config.flag("mamba_proj_bias"),
        config.flag("mamba_rms_norm"),
    )
    if config.flag("projectors_bias"):
        state_space = replace(state_space, projection_bias=True)
    block = Block((Sublayer((state_space, mixer)), Sublayer((common.dense(config, bias=config.flag("mlp_bias")),))))
    return common.decoder(config, [block] * config.layers())


def mixer_width(config: Config) -> int:
    """Return the width that the state-space mixer expands."""
    return common.hidden_size(config)


def _given(config: Config) -> bool:
    return type(config.fields.get("mamba_d_head")) is int
