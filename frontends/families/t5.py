"""T5, mT5 and Flan-T5: encoder and decoder."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import AttentionBlock, Block, Decoder, DenseBlock, Sublayer
from treadle.frontends.config import Config
from treadle.frontends.families import common
from treadle.ir.model import Role


def t5(config: Config) -> Decoder:
    """T5: relative position biases in the first layer of each side, a final norm on both."""
    count = config.integer("num_layers", "num_hidden_layers", most=4096)
    size = config.integer("d_kv")
    mixer = AttentionBlock(common.heads(config), common.heads(config), size, size, rope=False)
    gated = config.word("feed_forward_proj", default="relu").startswith("gated")
    dense = DenseBlock(config.integer("d_ff"), gated=gated)
    buckets = config.integer("relative_attention_num_buckets", default=32)
    own, across = replace(mixer, causal=False), replace(mixer, causal=True, cross=True)
    encoders = [
        Block((Sublayer((replace(own, relative_buckets=buckets if first else 0),)), Sublayer((dense,))), Role.ENCODER)
        for first in [True] + [False] * (count - 1)
    ]
    # The encoder's final norm is counted with its last block.
    encoders[-1] = replace(encoders[-1], extra_parameters=common.hidden_size(config))
    below = config.integer("num_decoder_layers", default=count, most=4096)
    blocks = [
        Block(
            (
                Sublayer((replace(mixer, relative_buckets=buckets if first else 0),)),
                Sublayer((across,)),
                Sublayer((dense,)),
            )
        )
        for first in [True] + [False] * (below - 1)
    ]
    return replace(common.decoder(config, blocks, tied=True), encoders=tuple(encoders))
