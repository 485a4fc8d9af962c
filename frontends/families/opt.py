"""OPT."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import AttentionBlock, Block, Decoder, DenseBlock, Norm, Sublayer
from treadle.frontends.config import Config
from treadle.frontends.families import common

_POSITION_OFFSET = 2
"""OPT's position table starts at 2."""


def opt(config: Config) -> Decoder:
    """OPT 125M to 175B: learned positions, biases, tied embeddings; the 350M model norms after its sublayers."""
    size = common.head_dim(config)
    biased = config.flag("enable_bias", default=True)
    before = config.flag("do_layer_norm_before", default=True)
    mixer = AttentionBlock(common.heads(config), common.heads(config), size, size, biased, biased, rope=False)
    dense = DenseBlock(config.integer("ffn_dim"), gated=False, bias=biased)
    block = Block(tuple(Sublayer((branch,), before=before, after=not before) for branch in (mixer, dense)))
    width = config.integer("word_embed_proj_dim", default=common.hidden_size(config))
    return replace(
        common.decoder(config, [block] * config.layers(), tied=True, norm=Norm.LAYER),
        positions=config.integer("max_position_embeddings", default=2048) + _POSITION_OFFSET,
        embedding_width=width,
        final_norm=before and not config.flag("_remove_final_layer_norm"),
    )
