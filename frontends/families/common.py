"""Readings that many families share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from treadle.frontends.blocks import (
    AttentionBlock,
    Block,
    Branch,
    Decoder,
    DenseBlock,
    ExpertsBlock,
    Norm,
    QueryKeyNorm,
    pre_norm,
)
from treadle.frontends.config import Config
from treadle.ir.model import Role

LAYER_TYPES = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")


def hidden_size(config: Config) -> int:
    """Return the width of the residual stream."""
    return config.integer("hidden_size", "n_embd", "d_model", "dim")


def heads(config: Config) -> int:
    """Return the number of query heads."""
    return config.integer("num_attention_heads", "n_head", "num_heads", "n_heads", most=10**5)


def head_dim(config: Config) -> int:
    """Return `head_dim`, or the width divided by the heads; raises WrongType when that is not whole."""
    if config.has("head_dim"):
        return config.integer("head_dim", most=10**5)
    width, count = hidden_size(config), heads(config)
    if width % count:
        reason = f"{width} columns do not divide into {count} heads"
        raise config.wrong("num_attention_heads", reason, "a divisor of hidden_size", _nearest(count, width))
    return width // count


def _nearest(count: int, total: int) -> str:
    """Return as words the divisors of `total` next to a count that is none."""
    below = next(value for value in range(min(count, total), 0, -1) if total % value == 0)
    above = next((value for value in range(count, total + 1) if total % value == 0), below)
    return f"the nearest are {below} and {above}" if above > below else f"the nearest is {below}"


def kv_heads(config: Config, *names: str) -> int:
    """Return the number of key-value heads; raises WrongType when it does not divide the query heads."""
    names = names or ("num_key_value_heads", "num_kv_heads")
    count = config.integer(*names, default=heads(config), most=10**5)
    if heads(config) % count:
        name = next((name for name in names if config.has(name)), names[0])
        reason, near = f"{heads(config)} query heads are not a multiple", _nearest(count, heads(config))
        raise config.wrong(name, reason, "a divisor of num_attention_heads", near)
    return count


def attention(
    config: Config,
    *,
    qkv_bias: bool = False,
    output_bias: bool = False,
    qk_norm: QueryKeyNorm = QueryKeyNorm.NONE,
    window: int = 0,
    sinks: bool = False,
) -> AttentionBlock:
    """Return grouped-query attention with the configuration's heads."""
    size = head_dim(config)
    return AttentionBlock(
        heads(config), kv_heads(config), size, size, qkv_bias, output_bias, qk_norm, window, sinks=sinks
    )


def dense(config: Config, *names: str, gated: bool = True, bias: bool = False) -> DenseBlock:
    """Return the dense feed-forward of the configuration's width."""
    return DenseBlock(config.integer(*(names or ("intermediate_size",))), gated, bias)


def window(config: Config) -> int:
    """Return `sliding_window`, 0 when there is none."""
    return config.integer("sliding_window", least=0, default=0)


def context(config: Config) -> int:
    """Return the longest declared context."""
    return config.integer("max_position_embeddings", "n_positions", "seq_length", default=0, least=0)


def layer_types(config: Config, default: Sequence[str]) -> list[str]:
    """Return the type of every layer: `layer_types` where the configuration has it, else `default`."""
    if config.has("layer_types"):
        return config.choices("layer_types", LAYER_TYPES, config.layers())
    return list(default)


def periodic(count: int, period: int, usual: str, last: str) -> list[str]:
    """Return `count` names: `last` at every `period`-th place, `usual` elsewhere."""
    return [last if (index + 1) % period == 0 else usual for index in range(count)]


def decoder(
    config: Config,
    blocks: Sequence[Block],
    *,
    tied: bool = False,
    norm: Norm = Norm.RMS,
    predictors: Sequence[Block] = (),
) -> Decoder:
    """Return a decoder with the configuration's sizes; `tied` is the family's default."""
    return Decoder(
        hidden_size(config),
        config.integer("vocab_size"),
        tuple(blocks),
        norm,
        config.flag("tie_word_embeddings", default=tied),
        context_tokens=context(config),
        predictors=tuple(predictors),
    )


def uniform(config: Config, mixer: Branch, feed_forward: Branch, *, tied: bool = False) -> Decoder:
    """Return a decoder of equal pre-norm blocks."""
    return decoder(config, [pre_norm(mixer, feed_forward)] * config.layers(), tied=tied)


def routed_experts(config: Config, *, router_bias: bool = False) -> ExpertsBlock:
    """Return experts in the naming that DeepSeek began: shared experts as multiples of the experts' width."""
    width = config.integer("moe_intermediate_size")
    return ExpertsBlock(
        config.integer("n_routed_experts", "num_local_experts", "num_experts"),
        config.integer("num_experts_per_tok"),
        width,
        shared_width=width * config.integer("n_shared_experts", default=0, least=0, most=10**4),
        router_bias=router_bias,
    )


def predictor(block: Block) -> Block:
    """Return the block as a layer of multi-token prediction."""
    return replace(block, role=Role.PREDICTOR)


def predictors(config: Config, block: Block) -> list[Block]:
    """Return `num_nextn_predict_layers` layers of multi-token prediction."""
    return [predictor(block)] * config.integer("num_nextn_predict_layers", default=0, least=0, most=64)
