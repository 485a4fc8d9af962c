"""Phi 1 to 4."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import Block, Decoder, DenseBlock, Norm, Sublayer
from treadle.frontends.config import Config
from treadle.frontends.families import common


def phi3(config: Config) -> Decoder:
    """Phi-3, Phi-3.5 and Phi-4: Llama with fused projections."""
    mixer = common.attention(config, window=common.window(config))
    return common.uniform(config, mixer, common.dense(config))


def phi(config: Config) -> Decoder:
    """Phi-1, 1.5 and 2: attention and feed-forward side by side, biases everywhere."""
    mixer = common.attention(config, qkv_bias=True, output_bias=True)
    dense = DenseBlock(config.integer("intermediate_size", default=4 * common.hidden_size(config)), False, True)
    block = Block((Sublayer((mixer, dense)),))
    return replace(common.decoder(config, [block] * config.layers(), norm=Norm.LAYER), head_bias=True)
