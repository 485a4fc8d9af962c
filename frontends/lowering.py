"""Builds the operators of one layer, with shapes, FLOPs and least traffic.

FLOPs: 2 per multiply-add of products; elementwise operators count additions, multiplications, divisions and
exponentials as 1 each. Traffic: every operand read once, every result written once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from treadle.frontends.blocks import Norm
from treadle.ir.model import (
    STORED_BYTES,
    Attention,
    Gemm,
    GroupedGemm,
    Layer,
    Operator,
    OperatorKind,
    Role,
    causal_pairs,
)
from treadle.ir.symbolic import BATCH, KV, SEQ, SOURCE, Expression, ratio, rounded_down, smallest, whole
from treadle.ir.workload import Phase

TOKENS = BATCH * SEQ

NORM_FLOPS = 4
"""Square, sum, scale, weight, per element."""
SILU_PRODUCT_FLOPS = 5
"""Exponential, add, divide and two products, per result element."""
ACTIVATION_FLOPS = 4
"""Of an ungated activation, per element."""
ROPE_FLOPS = 3
"""Two products and a sum, per element."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Dtypes by use: activations, the cache, and weights by part of the model."""

    activation: str = "bfloat16"
    cache: str = "bfloat16"
    attention: str = "bfloat16"
    dense: str = "bfloat16"
    experts: str = "bfloat16"
    shared: str = "bfloat16"
    head: str = "bfloat16"


def sized(dtype: str) -> Expression:
    """Return the bytes of one element as an exact expression."""
    exact = Fraction(STORED_BYTES[dtype])
    return ratio(exact.numerator, exact.denominator)


class LayerBuilder:
    """Collects the operators of one layer in running order; every method returns the new operator's name."""

    def __init__(self, precision: Precision, width: int, rows: Expression = TOKENS) -> None:
        self.precision = precision
        self.width = width
        self.rows = rows
        self.operators: list[Operator] = []
        self.item = sized(precision.activation)

    def layer(self, name: str, role: Role) -> Layer:
        """Return the finished layer."""
        return Layer(name, tuple(self.operators), role)

    def add(self, operator: Operator) -> str:
        """Append an operator under a name that is not taken yet."""
        taken = {other.name for other in self.operators}
        name, number = operator.name, 2
        while name in taken:
            name, number = f"{operator.name}_{number}", number + 1
        self.operators.append(operator if name == operator.name else replace(operator, name=name))
        return name

    def norm(self, name: str, source: str, kind: Norm, columns: int = 0, repeats: int = 1) -> str:
        """Normalize `repeats` groups of `columns` (the layer's width unless given) of every row."""
        columns = columns or self.width
        elements = self.rows * columns * repeats
        parameters = columns * kind.parameters_per_column
        return self.add(
            Operator(
                name,
                OperatorKind.NORM,
                (source,),
                (self.rows * repeats, whole(columns)),
                parameters,
                weight_dtype=self.precision.activation,
                flops=NORM_FLOPS * elements,
                weight_bytes=parameters * self.item,
                read_bytes=elements * self.item,
                written_bytes=elements * self.item,
            )
        )

    def gemm(
        self,
        name: str,
        source: str | tuple[str, ...],
        n: int,
        k: int,
        dtype: str,
        *,
        bias: int = 0,
        rows: Expression | None = None,
        batches: int = 1,
        phase: Phase | None = None,
        owned: bool = True,
    ) -> str:
        """Multiply rows by a (k, n) weight, `batches` times with weights of their own; `bias` counts bias values."""
        rows = self.rows if rows is None else rows
        weights = n * k * batches
        return self.add(
            Operator(
                name,
                OperatorKind.GEMM,
                (source,) if isinstance(source, str) else source,
                (rows, whole(n * batches)),
                weights + bias if owned else 0,
                weight_dtype=dtype,
                flops=2 * rows * weights + rows * bias,
                weight_bytes=weights * sized(dtype) + bias * self.item,
                read_bytes=rows * k * batches * self.item,
                written_bytes=rows * n * batches * self.item,
                phase=phase,
                detail=Gemm(rows, n, k, batches),
            )
        )

    def grouped_gemm(
        self, name: str, source: str | tuple[str, ...], n: int, k: int, experts: int, top_k: int, bias: int = 0
    ) -> str:
        """Multiply every row by weights (k, n) of `top_k` experts; at most min(experts, rows x top_k) are read."""
        one = n * k + bias
        routed = self.rows * top_k
        dtype = self.precision.experts
        return self.add(
            Operator(
                name,
                OperatorKind.GROUPED_GEMM,
                (source,) if isinstance(source, str) else source,
                (routed, whole(n)),
                experts * one,
                top_k * one,
                weight_dtype=dtype,
                flops=2 * routed * n * k + routed * bias,
                weight_bytes=smallest(whole(experts), routed) * one * sized(dtype),
                read_bytes=routed * k * self.item,
                written_bytes=routed * n * self.item,
                detail=GroupedGemm(self.rows, experts, top_k, n, k),
            )
        )

    def elementwise(
        self,
        name: str,
        kind: OperatorKind,
        inputs: tuple[str, ...],
        columns: int,
        flops: int,
        read_columns: int,
        *,
        repeats: int = 1,
        parameters: int = 0,
    ) -> str:
        """Compute (rows x repeats, columns) at `flops` per element, reading `read_columns` per row and repeat."""
        rows = self.rows * repeats
        return self.add(
            Operator(
                name,
                kind,
                inputs,
                (rows, whole(columns)),
                parameters,
                weight_dtype=self.precision.activation,
                flops=flops * rows * columns,
                weight_bytes=parameters * self.item,
                read_bytes=rows * read_columns * self.item,
                written_bytes=rows * columns * self.item,
            )
        )

    def residual(self, inputs: tuple[str, ...]) -> str:
        """Add results of the layer's width."""
        return self.elementwise(
            "residual", OperatorKind.RESIDUAL, inputs, self.width, len(inputs) - 1, self.width * len(inputs)
        )

    def attention(
        self, source: str | tuple[str, ...], shape: Attention, *, parameters: int = 0, phase: Phase | None = None
    ) -> str:
        """Attend with the projected queries, keys and values of `source`."""
        pairs = attended_pairs(shape, self.rows)
        keys = visible_keys(shape) * BATCH
        per_key = _elements_per_key(shape)
        return self.add(
            Operator(
                "attention" if phase is not Phase.DECODE else "attention_decode",
                OperatorKind.ATTENTION,
                (source,) if isinstance(source, str) else source,
                (self.rows, whole(shape.heads * shape.v_head_dim)),
                parameters,
                weight_dtype=self.precision.activation,
                flops=2 * pairs * shape.heads * (shape.qk_head_dim + shape.v_head_dim),
                weight_bytes=parameters * self.item,
                read_bytes=self.rows * shape.heads * shape.qk_head_dim * self.item
                + keys * per_key * sized(self.precision.cache),
                written_bytes=self.rows * shape.heads * shape.v_head_dim * self.item,
                phase=phase,
                detail=shape,
            )
        )


def attended_pairs(shape: Attention, rows: Expression) -> Expression:
    """Return how many (query, key) pairs of one head the step computes, over the batch."""
    if shape.cross or not shape.causal:
        return rows * SOURCE
    if shape.chunk:
        return BATCH * (_chunk_pairs(KV, shape.chunk) - _chunk_pairs(KV - SEQ, shape.chunk))
    return causal_pairs(BATCH, SEQ, KV, _limit(shape))


def visible_keys(shape: Attention) -> Expression:
    """Return how many keys of one sequence the step reads at least once."""
    if shape.cross or not shape.causal:
        return SOURCE
    if shape.chunk:
        return KV - shape.chunk * rounded_down((KV - SEQ) / shape.chunk)
    if shape.top_k_keys:
        return smallest(KV, SEQ * shape.top_k_keys)
    return smallest(KV, SEQ + shape.window - 1) if shape.window else KV


def _chunk_pairs(tokens: Expression, chunk: int) -> Expression:
    """Sum over the first `tokens` positions of the keys each sees in its own chunk."""
    full = rounded_down(tokens / chunk)
    rest = tokens - chunk * full
    return full * chunk * (chunk + 1) / 2 + rest * (rest + 1) / 2


def _limit(shape: Attention) -> int:
    return min((size for size in (shape.window, shape.top_k_keys) if size), default=0)


def _elements_per_key(shape: Attention) -> int:
    """Return what is read per key: keys and values, or the latent that holds both."""
    if shape.latent is not None and shape.kv_heads == 1:
        return shape.qk_head_dim
    return shape.kv_heads * (shape.qk_head_dim + shape.v_head_dim)
