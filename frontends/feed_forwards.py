"""Feed-forwards as operators: dense and mixtures of experts, gated or not."""

from __future__ import annotations

from treadle.frontends.blocks import DenseBlock, ExpertsBlock
from treadle.frontends.lowering import ACTIVATION_FLOPS, SILU_PRODUCT_FLOPS, LayerBuilder
from treadle.ir.model import OperatorKind


def dense(builder: LayerBuilder, source: str, block: DenseBlock, prefix: str = "", dtype: str = "") -> str:
    """Up (and gate) product, activation, down product."""
    dtype = dtype or builder.precision.dense
    up = block.width * (1 + block.gated)
    name = "gate_up" if block.gated else "up"
    made = builder.gemm(prefix + name, source, up, builder.width, dtype, bias=up * block.bias)
    made = _activation(builder, prefix, made, block)
    return builder.gemm(prefix + "down", made, builder.width, block.width, dtype, bias=builder.width * block.bias)


def experts(builder: LayerBuilder, source: str, block: ExpertsBlock) -> str:
    """Router, expert products, shared expert, weighted sum."""
    scores = builder.gemm(
        "router", source, block.experts, builder.width, builder.precision.activation,
        bias=block.experts * block.router_bias,
    )  # fmt: skip
    chosen = builder.elementwise("top_k", OperatorKind.ROUTER, (scores,), block.top_k, 1, block.experts)
    routed = _routed(builder, source, chosen, block)
    added: tuple[str, ...] = (routed,)
    if block.shared_width:
        shared = DenseBlock(block.shared_width, block.gated, function=block.function)
        added = (*added, dense(builder, source, shared, "shared_", builder.precision.shared))
        if block.shared_gate:
            added = (*added, builder.gemm("shared_gate", source, 1, builder.width, builder.precision.activation))
    return builder.elementwise(
        "combine",
        OperatorKind.GATE,
        added,
        builder.width,
        2 * block.top_k,
        builder.width * (block.top_k + len(added) - 1),
    )


def _routed(builder: LayerBuilder, source: str, chosen: str, block: ExpertsBlock) -> str:
    width = block.latent_width or builder.width
    if block.latent_width:
        source = builder.gemm("latent_in", source, width, builder.width, builder.precision.dense)
    up = block.width * (1 + block.gated)
    made = builder.grouped_gemm(
        "experts_gate_up" if block.gated else "experts_up", (source, chosen), up, width, block.experts, block.top_k,
        up * block.bias,
    )  # fmt: skip
    made = _activation(builder, "experts_", made, block, block.top_k)
    made = builder.grouped_gemm(
        "experts_down", made, width, block.width, block.experts, block.top_k, width * block.bias
    )
    if block.latent_width:
        made = builder.gemm("latent_out", made, builder.width, width, builder.precision.dense)
    return made


def _activation(
    builder: LayerBuilder, prefix: str, source: str, block: DenseBlock | ExpertsBlock, repeats: int = 1
) -> str:
    """Apply the activation; gated ones are named `silu_product` and the like, and halve the columns."""
    name = f"{prefix}{block.function}_product" if block.gated else prefix + block.function
    flops = SILU_PRODUCT_FLOPS if block.gated else ACTIVATION_FLOPS
    columns = block.width * (1 + block.gated)
    return builder.elementwise(name, OperatorKind.ACTIVATION, (source,), block.width, flops, columns, repeats=repeats)
