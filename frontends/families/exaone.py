"""EXAONE 4."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import Block, Decoder, QueryKeyNorm, Sublayer
from treadle.frontends.config import Config
from treadle.frontends.families import common


def exaone4(config: Config) -> Decoder:
    """EXAONE 4.0: norms after the sublayers; the 32B has a window in three of four layers (`LLLG`)."""
    full = common.attention(config, qk_norm=QueryKeyNorm.HEAD)
    windowed = replace(full, window=common.window(config))
    types = common.layer_types(config, _pattern(config))
    dense = common.dense(config)
    blocks = [
        Block(
            tuple(
                Sublayer((branch,), before=False, after=True)
                for branch in (windowed if kind == "sliding_attention" else full, dense)
            )
        )
        for kind in types
    ]
    return common.decoder(config, blocks)


def _pattern(config: Config) -> list[str]:
    """Read `sliding_window_pattern`: a period, or letters L (window) and G (global); the last layer is global."""
    count = config.layers()
    pattern = config.fields.get("sliding_window_pattern")
    if not common.window(config) or pattern is None:
        return ["full_attention"] * count
    if isinstance(pattern, str):
        if not pattern or set(pattern) - {"L", "G"}:
            raise config.wrong("sliding_window_pattern", "not made of L and G", "a period, or letters such as LLLG")
        letters = (pattern * count)[:count]
        types = ["full_attention" if letter == "G" else "sliding_attention" for letter in letters]
    else:
        period = config.integer("sliding_window_pattern")
        types = common.periodic(count, period, "sliding_attention", "full_attention")
    return [*types[:-1], "full_attention"]
