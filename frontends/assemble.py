"""Blocks to a model graph: equal blocks become one layer type, the stack keeps their order."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from treadle.frontends.blocks import (
    AttentionBlock,
    Block,
    Branch,
    ChannelDeltaBlock,
    Decoder,
    DeltaBlock,
    DenseBlock,
    ExpertsBlock,
    LatentBlock,
    Norm,
    StateSpaceBlock,
    Sublayer,
)
from treadle.frontends.feed_forwards import dense, experts
from treadle.frontends.lowering import TOKENS, LayerBuilder, Precision, sized
from treadle.frontends.mixers import attention, latent_attention
from treadle.frontends.recurrent_mixers import channel_delta, gated_delta, state_space
from treadle.ir.model import Layer, LayerGroup, ModelGraph, Operator, OperatorKind, Role
from treadle.ir.symbolic import BATCH, SCORED, SOURCE, Expression, whole


def assemble(decoder: Decoder, name: str, family: str, precision: Precision) -> ModelGraph:
    """Return the model graph of a decoder description."""
    order = (*decoder.encoders, *decoder.blocks, *decoder.predictors)
    names = _layer_names(order)
    layers = [_embedding(decoder, precision)]
    layers += [_block(block, names[block], decoder, precision) for block in names]
    stack = [LayerGroup("embedding", 1)]
    stack += [LayerGroup(names[block], len(list(run))) for block, run in groupby((*decoder.encoders, *decoder.blocks))]
    if decoder.head:
        layers.append(_head(decoder, precision))
        stack.append(LayerGroup("head", 1))
    stack += [LayerGroup(names[block], len(list(run))) for block, run in groupby(decoder.predictors)]
    return ModelGraph(
        name,
        family,
        precision.activation,
        decoder.hidden_size,
        decoder.vocab_size,
        tuple(layers),
        tuple(stack),
        decoder.context_tokens,
        precision.cache,
        decoder.tied,
        decoder.omitted,
    )


def _layer_names(order: tuple[Block, ...]) -> dict[Block, str]:
    """Name every distinct block by what it is made of, with a number where that is not enough."""
    names: dict[Block, str] = {}
    for block in order:
        if block in names:
            continue
        base = "_".join(_branch_name(branch) for sublayer in block.sublayers for branch in sublayer.branches)
        if block.role is not Role.BLOCK:
            base = f"{block.role.value}_{base}"
        taken = set(names.values())
        name, number = base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        names[block] = name
    return names


def _branch_name(branch: Branch) -> str:
    match branch:
        case AttentionBlock():
            kind = "cross" if branch.cross else "windowed" if branch.window else "chunked" if branch.chunk else ""
            return f"{kind}_attention".lstrip("_")
        case LatentBlock():
            return "sparse_latent_attention" if branch.indexer else "latent_attention"
        case StateSpaceBlock():
            return "mamba2"
        case DeltaBlock():
            return "gated_delta"
        case ChannelDeltaBlock():
            return "channel_delta"
        case DenseBlock():
            return "dense"
        case ExpertsBlock():
            return "experts"


def _block(block: Block, name: str, decoder: Decoder, precision: Precision) -> Layer:
    rows = BATCH * SOURCE if block.role is Role.ENCODER else TOKENS
    builder = LayerBuilder(precision, decoder.hidden_size, rows)
    source = "input"
    if block.role is Role.PREDICTOR:
        source = _predictor_input(builder, decoder.norm)
    for sublayer in block.sublayers:
        source = _sublayer(builder, source, sublayer, decoder.norm)
    if block.role is Role.PREDICTOR:
        source = builder.norm("final_norm", source, decoder.norm)
    if block.extra_parameters:
        builder.elementwise(
            "scale", OperatorKind.GATE, (source,), decoder.hidden_size, 1, decoder.hidden_size,
            parameters=block.extra_parameters,
        )  # fmt: skip
    return builder.layer(name, block.role)


def _predictor_input(builder: LayerBuilder, norm: Norm) -> str:
    """Join the hidden state and the next token's embedding (DeepSeek-V3, arXiv 2412.19437, equation 21)."""
    hidden = builder.norm("hidden_norm", "input", norm)
    token = builder.norm("token_norm", "input", norm)
    return builder.gemm("join", (hidden, token), builder.width, 2 * builder.width, builder.precision.activation)


def _sublayer(builder: LayerBuilder, source: str, sublayer: Sublayer, norm: Norm) -> str:
    inner = builder.norm("norm", source, norm) if sublayer.before else source
    for _ in range(sublayer.extra_norms):
        inner = builder.norm("norm", inner, norm)
    results = tuple(_branch(builder, inner, branch) for branch in sublayer.branches)
    if sublayer.after:
        results = tuple(builder.norm("post_norm", result, norm) for result in results)
    return builder.residual((source, *results))


def _branch(builder: LayerBuilder, source: str, branch: Branch) -> str:
    match branch:
        case AttentionBlock():
            return attention(builder, source, branch)
        case LatentBlock():
            return latent_attention(builder, source, branch)
        case StateSpaceBlock():
            return state_space(builder, source, branch)
        case DeltaBlock():
            return gated_delta(builder, source, branch)
        case ChannelDeltaBlock():
            return channel_delta(builder, source, branch)
        case DenseBlock():
            return dense(builder, source, branch)
        case ExpertsBlock():
            return experts(builder, source, branch)


def _embedding(decoder: Decoder, precision: Precision) -> Layer:
    width = decoder.embedding_width or decoder.hidden_size
    rows = BATCH * (SOURCE + TOKENS / BATCH) if decoder.encoders else TOKENS
    builder = LayerBuilder(precision, decoder.hidden_size, rows)
    made = builder.add(_gather("token_embedding", rows, width, decoder.vocab_size, precision))
    if decoder.positions:
        positions = replace(
            _gather("position_embedding", rows, decoder.hidden_size, decoder.positions, precision), inputs=(made,)
        )
        made = builder.add(positions)
    if width != decoder.hidden_size:
        made = builder.gemm("embedding_projection", made, decoder.hidden_size, width, precision.activation)
    if decoder.embedding_norm:
        builder.norm("embedding_norm", made, decoder.norm)
    return builder.layer("embedding", Role.EMBEDDING)


def _gather(name: str, rows: Expression, width: int, entries: int, precision: Precision) -> Operator:
    moved = rows * width * sized(precision.activation)
    return Operator(
        name,
        OperatorKind.EMBEDDING,
        ("input",),
        (rows, whole(width)),
        entries * width,
        weight_dtype=precision.activation,
        read_bytes=moved,
        written_bytes=moved,
    )


def _head(decoder: Decoder, precision: Precision) -> Layer:
    """Final norm over all rows; logits for the scored positions only."""
    builder = LayerBuilder(precision, decoder.hidden_size)
    source = "input"
    if decoder.final_norm:
        source = builder.norm("final_norm", source, decoder.norm)
    width = decoder.embedding_width or decoder.hidden_size
    if width != decoder.hidden_size:
        source = builder.gemm("head_projection", source, width, decoder.hidden_size, precision.activation)
    builder.gemm(
        "logits", source, decoder.vocab_size, width, precision.head,
        bias=decoder.vocab_size * decoder.head_bias, rows=BATCH * SCORED, owned=not decoder.tied,
    )  # fmt: skip
    return builder.layer("head", Role.HEAD)
