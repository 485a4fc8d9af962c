"""The activation of the feed-forwards: its name in the configuration, applied to all blocks."""

from __future__ import annotations

import re
from dataclasses import replace

from treadle.frontends.blocks import Block, Branch, Decoder, DenseBlock, ExpertsBlock, Sublayer
from treadle.frontends.config import Config

_SAME = {"swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu", "gelu_fast": "gelu"}
_FIELDS = ("hidden_act", "hidden_activation", "mlp_hidden_act", "activation_function", "dense_act_fn")


def activation(config: Config) -> str:
    """Return the short name of the activation (`silu` unless said); raises WrongType."""
    name = config.word(*_FIELDS, default=config.word("feed_forward_proj", default="silu")).removeprefix("gated-")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name):
        field = next((field for field in _FIELDS if config.has(field)), "feed_forward_proj")
        raise config.wrong(field, "not the name of an activation", "a name such as silu, gelu or relu2")
    return _SAME.get(name, name)


def with_activation(decoder: Decoder, name: str) -> Decoder:
    """Return the decoder with the activation in every feed-forward."""
    if name == "silu":
        return decoder
    return replace(
        decoder,
        blocks=_blocks(decoder.blocks, name),
        predictors=_blocks(decoder.predictors, name),
        encoders=_blocks(decoder.encoders, name),
    )


def _blocks(blocks: tuple[Block, ...], name: str) -> tuple[Block, ...]:
    made = {
        block: replace(block, sublayers=tuple(_sublayer(part, name) for part in block.sublayers)) for block in blocks
    }
    return tuple(made[block] for block in blocks)


def _sublayer(sublayer: Sublayer, name: str) -> Sublayer:
    return replace(sublayer, branches=tuple(_branch(branch, name) for branch in sublayer.branches))


def _branch(branch: Branch, name: str) -> Branch:
    return replace(branch, function=name) if isinstance(branch, DenseBlock | ExpertsBlock) else branch
