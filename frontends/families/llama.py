"""Llama and the families built like it: dense or mixed, pre-norm, grouped-query attention."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import Block, Branch, Decoder, DenseBlock, ExpertsBlock, QueryKeyNorm, Sublayer, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.errors import UnsupportedModel
from treadle.frontends.families import common


def llama(config: Config) -> Decoder:
    """Llama 1 to 3.3 and exact copies (Yi, InternLM 3, SmolLM, DeepSeek-LLM)."""
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased)
    return common.uniform(config, mixer, common.dense(config, bias=config.flag("mlp_bias")))


def llama4(config: Config) -> Decoder:
    """Llama 4: chunked attention in three of four layers, experts in every `interleave_moe_layer_step`-th."""
    step = config.integer("interleave_moe_layer_step", default=1)
    # As published: every fourth layer attends to everything, without rotation or norms.
    types = common.layer_types(config, common.periodic(config.layers(), 4, "chunked_attention", "full_attention"))
    norm = QueryKeyNorm.PLAIN if config.flag("use_qk_norm", default=True) else QueryKeyNorm.NONE
    chunk = config.integer("attention_chunk_size", default=8192)
    chunked = replace(common.attention(config, qk_norm=norm), chunk=chunk)
    full = replace(common.attention(config), rope=False)
    width = config.integer("intermediate_size")
    experts = ExpertsBlock(
        config.integer("num_local_experts"), config.integer("num_experts_per_tok"), width, shared_width=width
    )
    dense = common.dense(config, "intermediate_size_mlp", "intermediate_size")
    blocks = [
        pre_norm(full if kind == "full_attention" else chunked, dense if (index + 1) % step else experts)
        for index, kind in enumerate(types)
    ]
    return common.decoder(config, blocks)


def seed_oss(config: Config) -> Decoder:
    """Seed-OSS: Llama with biased query, key and value projections."""
    mixer = common.attention(
        config,
        qkv_bias=config.flag("attention_bias", default=True),
        output_bias=config.flag("attention_out_bias"),
    )
    return common.uniform(config, mixer, common.dense(config, bias=config.flag("mlp_bias")))


def nemotron_nas(config: Config) -> Decoder:
    """Nemotron-NAS (DeciLM): `block_configs` gives every block its own attention and feed-forward, or none."""
    entries = config.tables("block_configs", config.layers())
    return common.decoder(config, [_searched_block(config, entry) for entry in entries])


def _searched_block(config: Config, entry: Config) -> Block:
    branches: list[Branch] = []
    attention, feed_forward = entry.section("attention"), entry.section("ffn")
    for part in (attention, feed_forward):
        if part.flag("replace_with_linear"):
            raise UnsupportedModel(
                feature="`replace_with_linear`", family="nemotron-nas", place=part.place("replace_with_linear")
            )
    if not attention.flag("no_op"):
        group = attention.integer("n_heads_in_group")
        count = common.heads(config)
        if count % group:
            raise attention.wrong("n_heads_in_group", f"{count} heads do not divide", "a divisor of the heads")
        branches.append(
            replace(
                common.attention(config),
                kv_heads=count // group,
                window=attention.integer("window_length", default=0, least=0),
            )
        )
    if not feed_forward.flag("no_op"):
        # Two thirds of the multiplied width, rounded up to a multiple of 256, as the model's own code does.
        multiple = feed_forward.number("ffn_mult")
        width = int(2 * multiple * common.hidden_size(config) / 3)
        branches.append(DenseBlock(-(-max(width, 1) // 256) * 256))
    return Block(tuple(Sublayer((branch,)) for branch in branches))
