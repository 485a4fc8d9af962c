"""Recurrent token mixers as operators: Mamba-2 and the delta rules.

Every function takes the name of its (normalized) input and returns the name of its result.
"""

from __future__ import annotations

from treadle.frontends.blocks import ChannelDeltaBlock, DeltaBlock, StateSpaceBlock
from treadle.frontends.lowering import LayerBuilder
from treadle.ir.model import Operator, OperatorKind, Recurrence
from treadle.ir.symbolic import BATCH, whole

RECURRENCE_FLOPS = {"ssd": 5, "gated_delta": 7, "channel_delta": 7}
"""Per state element and token. ssd: decay, outer product, sum, read-out (2); the delta rules: two more for k S."""


def state_space(builder: LayerBuilder, source: str, block: StateSpaceBlock) -> str:
    """Mamba-2: one input product, a short convolution, the recurrence, a gated norm, the output product."""
    inner = block.heads * block.head_dim
    mixed = inner + 2 * block.groups * block.state
    width = inner + mixed + block.heads
    dtype = builder.precision.attention
    made = builder.gemm("in_projection", source, width, builder.width, dtype, bias=width * block.projection_bias)
    made = _convolution(builder, made, mixed, block.kernel, block.convolution_bias)
    state = block.heads * block.state * block.head_dim
    kept = state + mixed * (block.kernel - 1)
    recurrence = Recurrence(block.heads, block.state, block.head_dim, kept, "ssd")
    # dt_bias, A_log and D, one value per head each
    made = _recur(builder, made, recurrence, state, inner, mixed, 3 * block.heads)
    made = builder.elementwise(
        "gated_norm", OperatorKind.NORM, (made,), inner, 9, 2 * inner, parameters=inner * block.gated_norm
    )
    return builder.gemm("out_projection", made, builder.width, inner, dtype, bias=builder.width * block.projection_bias)


def gated_delta(builder: LayerBuilder, source: str, block: DeltaBlock) -> str:
    """Gated delta rule: products for q, k, v, z and the two gates, convolution, recurrence, gated norm, output."""
    keys, values = block.key_heads * block.key_head_dim, block.value_heads * block.value_head_dim
    mixed = 2 * keys + values
    dtype = builder.precision.attention
    made = builder.gemm("in_projection", source, mixed + values, builder.width, dtype)
    gates = builder.gemm("gate_projection", source, 2 * block.value_heads, builder.width, dtype)
    made = _convolution(builder, made, mixed, block.kernel, False)
    state = block.value_heads * block.key_head_dim * block.value_head_dim
    recurrence = Recurrence(
        block.value_heads, block.key_head_dim, block.value_head_dim, state + mixed * (block.kernel - 1), "gated_delta"
    )
    made = _recur(builder, made, recurrence, state, values, mixed, 2 * block.value_heads, gates)
    made = builder.elementwise(
        "gated_norm", OperatorKind.NORM, (made,), values, 9, 2 * values, parameters=block.value_head_dim
    )
    return builder.gemm("out_projection", made, builder.width, values, dtype)


def channel_delta(builder: LayerBuilder, source: str, block: ChannelDeltaBlock) -> str:
    """Delta rule with a decay per channel (Kimi Delta Attention, arXiv 2510.26692): low-rank decay and output gate."""
    inner = block.heads * block.head_dim
    dtype = builder.precision.attention
    made = builder.gemm("in_projection", source, 3 * inner + block.heads, builder.width, dtype)
    low = builder.gemm("gate_down", source, 2 * block.head_dim, builder.width, dtype)
    gates = builder.gemm("gate_up", low, inner, block.head_dim, dtype, batches=2)
    made = _convolution(builder, made, 3 * inner, block.kernel, False)
    state = block.heads * block.head_dim**2
    kept = state + 3 * inner * (block.kernel - 1)
    recurrence = Recurrence(block.heads, block.head_dim, block.head_dim, kept, "channel_delta")
    made = _recur(builder, made, recurrence, state, inner, 4 * inner, inner + block.heads, gates)
    made = builder.elementwise(
        "gated_norm", OperatorKind.NORM, (made, gates), inner, 9, 2 * inner, parameters=block.head_dim
    )
    return builder.gemm("out_projection", made, builder.width, inner, dtype)


def _convolution(builder: LayerBuilder, source: str, columns: int, kernel: int, bias: bool) -> str:
    return builder.elementwise(
        "convolution", OperatorKind.CONVOLUTION, (source,), columns, 2 * kernel + 4, columns,
        parameters=columns * (kernel + bias),
    )  # fmt: skip


def _recur(
    builder: LayerBuilder,
    source: str,
    recurrence: Recurrence,
    state: int,
    columns: int,
    read_columns: int,
    parameters: int,
    *inputs: str,
) -> str:
    """One pass of the recurrence; the float32 state of every sequence is read and written once."""
    return builder.add(
        Operator(
            "recurrence",
            OperatorKind.RECURRENCE,
            (source, *inputs),
            (builder.rows, whole(columns)),
            parameters,
            weight_dtype="float32",
            flops=builder.rows * state * RECURRENCE_FLOPS[recurrence.rule],
            weight_bytes=whole(4 * parameters),
            read_bytes=builder.rows * read_columns * builder.item + BATCH * state * 4,
            written_bytes=builder.rows * columns * builder.item + BATCH * state * 4,
            detail=recurrence,
        )
    )
