"""Attention as operators: grouped-query and latent, with selection of keys.

Every function takes the name of its (normalized) input and returns the name of its result.
"""

from __future__ import annotations

from treadle.frontends.blocks import (
    AttentionBlock,
    Indexer,
    LatentBlock,
    Norm,
    QueryKeyNorm,
)
from treadle.frontends.lowering import NORM_FLOPS, ROPE_FLOPS, LayerBuilder, attended_pairs, sized
from treadle.ir.model import Attention, Latent, Operator, OperatorKind
from treadle.ir.symbolic import BATCH, KV, SOURCE, whole
from treadle.ir.workload import Phase


def attention(builder: LayerBuilder, source: str, block: AttentionBlock) -> str:
    """Grouped-query attention: one QKV product, norms, rotation, attention, gate, output product."""
    query = block.heads * block.qk_head_dim
    key = block.kv_heads * block.qk_head_dim
    value = block.kv_heads * block.v_head_dim
    made = _projections(builder, source, block, query, key, value)
    if block.rope:
        columns = query + (0 if block.shared_cache else key)
        made = (
            builder.elementwise("rope", OperatorKind.ROPE, made[:1], columns, ROPE_FLOPS, columns),
            *made[1:],
        )
    shape = Attention(
        block.heads,
        block.kv_heads,
        block.qk_head_dim,
        block.v_head_dim,
        cache_elements=0 if block.shared_cache or not (block.causal or block.cross) else key + value,
        causal=block.causal,
        window=block.window,
        chunk=block.chunk,
        cross=block.cross,
        top_k_keys=block.indexer.top_k if block.indexer else 0,
    )
    if block.indexer:
        made = (*made, _select(builder, source, block.indexer))
    attended = builder.attention(
        made, shape, parameters=block.heads * block.sinks + block.relative_buckets * block.heads
    )
    return _output(builder, source, attended, block)


def _projections(
    builder: LayerBuilder, source: str, block: AttentionBlock, query: int, key: int, value: int
) -> tuple[str, ...]:
    dtype = builder.precision.attention
    stored = 0 if block.shared_cache else key + (0 if block.key_is_value else value)
    if block.cross:
        first = builder.gemm("query", source, query, builder.width, dtype, bias=query * block.qkv_bias)
        second = builder.gemm(
            "cross_key_value", "encoder", key + value, builder.width, dtype,
            bias=(key + value) * block.qkv_bias, rows=BATCH * SOURCE, phase=Phase.PREFILL,
        )  # fmt: skip
        return first, second
    # A gate of the output's size rides in the QKV product; a gate per head is a product of its own.
    width = query + stored + (block.gate if block.gate > block.heads else 0)
    made = builder.gemm("qkv", source, width, builder.width, dtype, bias=width * block.qkv_bias)
    if block.qk_norm is QueryKeyNorm.NONE:
        return (made,)
    return (_query_key_norm(builder, made, block, query, 0 if block.shared_cache else key),)


def _query_key_norm(builder: LayerBuilder, source: str, block: AttentionBlock, query: int, key: int) -> str:
    columns = query + key
    head_scales = 2 if key else 1
    parameters = {
        QueryKeyNorm.HEAD: head_scales * block.qk_head_dim,
        QueryKeyNorm.FULL: columns,
        QueryKeyNorm.PLAIN: 0,
    }[block.qk_norm]
    return builder.elementwise(
        "query_key_norm", OperatorKind.NORM, (source,), columns, NORM_FLOPS, columns, parameters=parameters
    )


def _output(builder: LayerBuilder, source: str, attended: str, block: AttentionBlock) -> str:
    columns = block.heads * block.v_head_dim
    if block.gate:
        inputs: tuple[str, ...] = (attended,)
        if block.gate <= block.heads:
            inputs = (attended, builder.gemm("gate", source, block.gate, builder.width, builder.precision.attention))
        attended = builder.elementwise("gated", OperatorKind.GATE, inputs, columns, 5, columns + block.gate)
    return builder.gemm(
        "output", attended, builder.width, columns, builder.precision.attention, bias=builder.width * block.output_bias
    )


def latent_attention(builder: LayerBuilder, source: str, block: LatentBlock) -> str:
    """Multi-head latent attention: keys expanded from the latent in prefill, absorbed into queries in decode.

    DeepSeek-V2 (arXiv 2405.04434) section 2.1. With sparse selection both phases use the absorbed form.
    """
    query = _latent_query(builder, source, block)
    selected = (_index(builder, source, query, block, block.indexer),) if block.indexer else ()
    if block.indexer:
        attended: tuple[str, ...] = (_absorbed(builder, (query, *selected), block, None),)
    else:
        attended = (_expanded(builder, query, block), _absorbed(builder, (query,), block, Phase.DECODE))
    width = block.heads * block.v_head_dim
    if block.gate:
        gate = builder.gemm("gate", source, block.gate, builder.width, builder.precision.attention)
        attended = (builder.elementwise("gated", OperatorKind.GATE, (*attended, gate), width, 5, width + block.gate),)
    return builder.gemm(
        "output", attended, builder.width, width, builder.precision.attention, bias=builder.width * block.bias
    )


def _latent_query(builder: LayerBuilder, source: str, block: LatentBlock) -> str:
    dtype = builder.precision.attention
    query = block.heads * (block.nope_head_dim + block.rope_head_dim)
    latent = block.kv_rank + block.rope_head_dim
    down = builder.gemm(
        "latent_down", source, latent + (block.q_rank or query), builder.width, dtype, bias=latent * block.bias
    )
    made = builder.norm("latent_norm", down, Norm.RMS, block.kv_rank)
    if block.q_rank:
        normed = builder.norm("query_norm", down, Norm.RMS, block.q_rank)
        made = builder.gemm("query_up", (normed, made), query, block.q_rank, dtype)
    rotated = (block.heads + 1) * block.rope_head_dim
    return builder.elementwise("rope", OperatorKind.ROPE, (made,), rotated, ROPE_FLOPS, rotated)


def _expanded(builder: LayerBuilder, query: str, block: LatentBlock) -> str:
    head = block.nope_head_dim + block.v_head_dim
    keys = builder.gemm(
        "key_value_up", query, block.heads * head, block.kv_rank, builder.precision.attention,
        rows=BATCH * KV, phase=Phase.PREFILL,
    )  # fmt: skip
    shape = Attention(
        block.heads,
        block.heads,
        block.nope_head_dim + block.rope_head_dim,
        block.v_head_dim,
        cache_elements=block.kv_rank + block.rope_head_dim,
        latent=_latent(block),
    )
    return builder.attention((query, keys), shape, phase=Phase.PREFILL)


def _absorbed(builder: LayerBuilder, inputs: tuple[str, ...], block: LatentBlock, phase: Phase | None) -> str:
    """Attend over the latent itself: one key-value head of (kv_rank + rope, kv_rank)."""
    dtype, owned = builder.precision.attention, phase is None
    query = builder.gemm(
        "query_absorb", inputs, block.kv_rank, block.nope_head_dim, dtype, batches=block.heads, phase=phase, owned=owned
    )
    shape = Attention(
        block.heads,
        1,
        block.kv_rank + block.rope_head_dim,
        block.kv_rank,
        cache_elements=block.kv_rank + block.rope_head_dim if owned else 0,
        top_k_keys=block.indexer.top_k if block.indexer else 0,
        latent=_latent(block),
    )
    attended = builder.attention((query, *inputs), shape, phase=phase)
    return builder.gemm(
        "value_absorb", attended, block.v_head_dim, block.kv_rank, dtype, batches=block.heads, phase=phase, owned=owned
    )


def _latent(block: LatentBlock) -> Latent:
    return Latent(block.kv_rank, block.rope_head_dim, block.nope_head_dim, block.q_rank)


def _index(builder: LayerBuilder, source: str, query: str, block: LatentBlock, indexer: Indexer) -> str:
    """Score every visible key with the indexer's heads; selection itself is not counted."""
    if not indexer.owned:
        return query
    dtype = builder.precision.attention
    width = indexer.heads * indexer.head_dim
    queries = builder.gemm("index_query", query, width, block.q_rank or builder.width, dtype)
    keys = builder.gemm("index_key", source, indexer.head_dim + indexer.heads, builder.width, dtype)
    normed = builder.norm("index_norm", keys, Norm.LAYER, indexer.head_dim)
    return _index_scores(builder, queries, normed, indexer)


def _select(builder: LayerBuilder, source: str, indexer: Indexer) -> str:
    """Score keys for grouped-query attention (MiniMax-M3): queries and keys of the indexer with a norm each."""
    width = indexer.heads * indexer.head_dim
    made = builder.gemm("index_query_key", source, width + indexer.head_dim, builder.width, builder.precision.attention)
    columns = width + indexer.head_dim
    normed = builder.elementwise(
        "index_norm", OperatorKind.NORM, (made,), columns, NORM_FLOPS, columns, parameters=2 * indexer.head_dim
    )
    return _index_scores(builder, normed, normed, indexer)


def _index_scores(builder: LayerBuilder, queries: str, keys: str, indexer: Indexer) -> str:
    width = indexer.heads * indexer.head_dim
    everything = Attention(indexer.heads, 1, indexer.head_dim, indexer.head_dim, indexer.head_dim)
    pairs = attended_pairs(everything, builder.rows)
    return builder.add(
        Operator(
            "index_scores",
            OperatorKind.ATTENTION,
            tuple(dict.fromkeys((queries, keys))),
            (builder.rows, whole(indexer.top_k)),
            flops=2 * pairs * indexer.heads * (indexer.head_dim + 1),
            read_bytes=builder.rows * width * builder.item
            + BATCH * KV * indexer.head_dim * sized(builder.precision.cache),
            written_bytes=builder.rows * indexer.top_k * 4,
            detail=everything,
        )
    )
