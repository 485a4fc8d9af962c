"""MiniMax-M2 to M3."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import Decoder, ExpertsBlock, Indexer, QueryKeyNorm, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def minimax_m2(config: Config) -> Decoder:
    """MiniMax-M2: norms over all query and key heads, 256 experts."""
    norm = QueryKeyNorm.FULL if config.flag("use_qk_norm", default=True) else QueryKeyNorm.NONE
    mixer = common.attention(config, qk_norm=norm)
    experts = ExpertsBlock(
        config.integer("num_local_experts"),
        config.integer("num_experts_per_tok"),
        config.integer("intermediate_size"),
        shared_width=config.integer("shared_intermediate_size", default=0, least=0),
        router_bias=config.flag("use_routing_bias", default=True),
    )
    block = pre_norm(mixer, experts)
    modules = config.integer("num_mtp_modules", default=0, least=0, most=64) if config.flag("use_mtp") else 0
    return common.decoder(config, [block] * config.layers(), predictors=[common.predictor(block)] * modules)


def minimax_m3(config: Config) -> Decoder:
    """MiniMax-M3 text: block-sparse attention and experts after the first layers, norms on query and key heads."""
    count = config.layers()
    full = common.attention(
        config, qk_norm=QueryKeyNorm.HEAD if config.flag("use_qk_norm", default=True) else QueryKeyNorm.NONE
    )
    shared = config.integer("n_shared_experts", default=0, least=0, most=10**4)
    experts = ExpertsBlock(
        config.integer("num_local_experts"),
        config.integer("num_experts_per_tok"),
        config.integer("intermediate_size", "moe_intermediate_size"),
        shared_width=shared * config.integer("shared_intermediate_size", default=0, least=0),
        router_bias=config.flag("use_routing_bias", default=True),
    )
    dense = common.dense(config, "dense_intermediate_size")
    sparse, chosen = replace(full, indexer=_indexer(config)), _sparse_layers(config, count)
    routed = config.choices("moe_layer_freq", (0, 1), count)
    blocks = [
        pre_norm(sparse if selected else full, experts if mixed else dense)
        for selected, mixed in zip(chosen, routed, strict=True)
    ]
    return common.decoder(config, blocks, predictors=common.predictors(config, blocks[-1]))


def _indexer(config: Config) -> Indexer | None:
    if not config.has("sparse_attention_config"):
        return None
    table = config.section("sparse_attention_config")
    return Indexer(
        table.integer("sparse_num_index_heads"),
        table.integer("sparse_index_dim"),
        table.integer("sparse_topk_blocks", most=10**6) * table.integer("sparse_block_size", most=10**6),
    )


def _sparse_layers(config: Config, count: int) -> list[int]:
    if not config.has("sparse_attention_config"):
        return [0] * count
    table = config.section("sparse_attention_config")
    return (
        table.choices("sparse_attention_freq", (0, 1), count)
        if table.flag("use_sparse_attention", default=True)
        else [0] * count
    )
