"""A model as a graph: layer types of operators with symbolic shapes, FLOPs and bytes, and the stack they form.

Expressions are over `batch`, `seq` (new tokens a sequence), `kv` (tokens the last new one sees), `scored` (positions
whose logits are computed) and, in encoder-decoder models, `source`; one graph serves prefill and decode. FLOPs count 2
per multiply-add; attention counts its two products.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from math import ceil
from typing import TypeAlias

from treadle.ir.errors import InvalidValue
from treadle.ir.symbolic import Expression, evaluate, names, smallest, total, whole
from treadle.ir.tile.program import DTYPE_BYTES
from treadle.ir.workload import Phase

DIMENSIONS = frozenset({"batch", "seq", "kv", "scored", "source"})

STORED_BYTES: dict[str, float] = {
    **DTYPE_BYTES, "mxfp8": 1.03125, "mxfp4": 0.53125, "nvfp4": 0.5625, "int4_g32": 0.5625, "int4_g128": 0.515625,
}  # fmt: skip
"""Bytes per stored weight, scales included: mx formats have 8 bits per 32 weights, nvfp4 8 bits per 16, int4_gN 16 bits
per N."""

ZERO = whole(0)


class OperatorKind(Enum):
    """What an operator does."""

    EMBEDDING = "embedding"
    NORM = "norm"
    GEMM = "gemm"
    GROUPED_GEMM = "grouped_gemm"
    ROPE = "rope"
    ATTENTION = "attention"
    ACTIVATION = "activation"
    ROUTER = "router"
    RESIDUAL = "residual"
    CONVOLUTION = "convolution"
    RECURRENCE = "recurrence"
    GATE = "gate"
    """Elementwise products of two results (output gates, combination of experts)."""


class Role(Enum):
    """Where a layer stands in the model."""

    EMBEDDING = "embedding"
    BLOCK = "block"
    HEAD = "head"
    ENCODER = "encoder"
    PREDICTOR = "predictor"
    """Multi-token prediction; not part of a plain forward pass, nor of the usual parameter count."""


@dataclass(frozen=True, slots=True)
class Gemm:
    """`batches` products (m, k) x (k, n)."""

    m: Expression
    n: int
    k: int
    batches: int = 1


@dataclass(frozen=True, slots=True)
class GroupedGemm:
    """`tokens` rows, each through `top_k` of `experts` products (row, k) x (k, n)."""

    tokens: Expression
    experts: int
    top_k: int
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention: ranks and the two parts of a query-key head."""

    kv_rank: int
    rope_head_dim: int
    nope_head_dim: int
    q_rank: int = 0
    """0: queries are projected directly."""


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention operator as its kernel sees it.

    `window` keys at most are seen by a query (0: all); with `chunk` a query sees its own chunk only; with
    `top_k_keys` it reads that many selected keys. `cache_elements` are the elements kept per token of context.
    """

    heads: int
    kv_heads: int
    qk_head_dim: int
    v_head_dim: int
    cache_elements: int
    causal: bool = True
    window: int = 0
    chunk: int = 0
    top_k_keys: int = 0
    latent: Latent | None = None
    cross: bool = False
    """Keys come from the encoder; the cache holds `source` tokens."""

    def __post_init__(self) -> None:
        sizes = (self.heads, self.kv_heads, self.qk_head_dim, self.v_head_dim)
        if min(sizes) < 1 or self.heads % self.kv_heads:
            raise InvalidValue(
                message=f"attention with {self.heads} heads over {self.kv_heads} key-value heads of "
                f"{self.qk_head_dim} and {self.v_head_dim}; expected positive sizes, heads divisible by the latter"
            )
        if min(self.cache_elements, self.window, self.chunk, self.top_k_keys) < 0:
            raise InvalidValue(message="attention has a negative cache, window, chunk or selection")

    def cached_tokens(self, tokens: int) -> int:
        """Return how many of `tokens` tokens of context the cache keeps."""
        limit = self.window or self.chunk
        return min(tokens, limit) if limit else tokens


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A state per head of (key_dim, value_dim) elements (Mamba-2, gated delta rule), kept per sequence."""

    heads: int
    key_dim: int
    value_dim: int
    state_elements: int
    """All state of the layer per sequence, the convolution's window included."""
    rule: str = "ssd"
    """`ssd`, `selective_scan`, `gated_delta` or `linear_attention`."""


Detail: TypeAlias = Gemm | GroupedGemm | Attention | Recurrence


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a layer. `inputs` name operators of the layer that come before it, or `input`.

    `shape` is the result's; `weight_bytes`, `read_bytes` (activations and cache) and `written_bytes` are the least
    traffic of one call. `active_parameters` of the `parameters` act on one token (None: all). With `phase` set the
    operator exists in that phase only.
    """

    name: str
    kind: OperatorKind
    inputs: tuple[str, ...]
    shape: tuple[Expression, ...]
    parameters: int = 0
    active_parameters: int | None = None
    weight_dtype: str = "bfloat16"
    flops: Expression = ZERO
    weight_bytes: Expression = ZERO
    read_bytes: Expression = ZERO
    written_bytes: Expression = ZERO
    phase: Phase | None = None
    detail: Detail | None = None

    def __post_init__(self) -> None:
        if self.parameters < 0 or not 0 <= self.active <= self.parameters:
            raise InvalidValue(
                message=f"operator `{self.name}` has {self.parameters} parameters, {self.active_parameters} active"
            )
        if self.weight_dtype not in STORED_BYTES:
            raise InvalidValue(message=f"operator `{self.name}` has weights of the unknown dtype `{self.weight_dtype}`")
        for expression in (*self.shape, self.flops, self.weight_bytes, self.read_bytes, self.written_bytes):
            if unknown := set(names(expression)) - DIMENSIONS:
                raise InvalidValue(
                    message=f"operator `{self.name}` depends on `{min(unknown)}`; "
                    f"the dimensions are {', '.join(sorted(DIMENSIONS))}"
                )

    @property
    def active(self) -> int:
        """Parameters that act on one token."""
        return self.parameters if self.active_parameters is None else self.active_parameters

    @property
    def stored_bytes(self) -> int:
        """Bytes the weights take in memory."""
        return ceil(self.parameters * STORED_BYTES[self.weight_dtype])

    @property
    def bytes(self) -> Expression:
        """Least traffic of one call: weights, activations and cache."""
        return self.weight_bytes + self.read_bytes + self.written_bytes

    def runs_in(self, phase: Phase) -> bool:
        """Whether the operator exists in a phase."""
        return self.phase is None or self.phase is phase


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer type: operators in an order in which they may run."""

    name: str
    operators: tuple[Operator, ...]
    role: Role = Role.BLOCK

    def __post_init__(self) -> None:
        known = {"input"}
        if self.role is Role.BLOCK:
            known.add("encoder")
        for operator in self.operators:
            if operator.name in known:
                raise InvalidValue(message=f"layer `{self.name}` has the operator `{operator.name}` twice")
            if unknown := [name for name in operator.inputs if name not in known]:
                raise InvalidValue(
                    message=f"operator `{operator.name}` of layer `{self.name}` reads `{unknown[0]}` before it is made"
                )
            known.add(operator.name)
        if not self.operators:
            raise InvalidValue(message=f"layer `{self.name}` has no operators")

    @property
    def parameters(self) -> int:
        """Parameters of one layer of this type."""
        return sum(operator.parameters for operator in self.operators)

    @property
    def active_parameters(self) -> int:
        """Parameters of one layer that act on one token."""
        return sum(operator.active for operator in self.operators)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weights of one layer."""
        return sum(operator.stored_bytes for operator in self.operators)

    def operator(self, name: str) -> Operator:
        """Return the operator called `name`; raises KeyError."""
        for operator in self.operators:
            if operator.name == name:
                return operator
        raise KeyError(name)

    def in_phase(self, phase: Phase) -> tuple[Operator, ...]:
        """Return the operators that exist in a phase."""
        return tuple(operator for operator in self.operators if operator.runs_in(phase))

    def flops(self, phase: Phase) -> Expression:
        """Return the FLOPs of one call as an expression."""
        return total([operator.flops for operator in self.in_phase(phase)])

    def bytes(self, phase: Phase) -> Expression:
        """Return the least traffic of one call in bytes, operator by operator, as an expression."""
        return total([operator.bytes for operator in self.in_phase(phase)])


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """`count` layers of one type in a row."""

    layer: str
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidValue(message=f"group of layers `{self.layer}` has the count {self.count}")


@dataclass(frozen=True, slots=True)
class Step:
    """The shape of one forward pass: a value for every dimension."""

    batch: int
    seq: int
    kv: int
    scored: int = 1
    source: int = 0

    def __post_init__(self) -> None:
        if min(self.batch, self.seq) < 1 or self.kv < self.seq or min(self.scored, self.source) < 0:
            raise InvalidValue(
                message=f"step of batch {self.batch}, seq {self.seq}, kv {self.kv}; expected 1 or more, kv >= seq"
            )

    @property
    def phase(self) -> Phase:
        """Decode when every sequence has one new token, prefill else."""
        return Phase.DECODE if self.seq == 1 else Phase.PREFILL

    def values(self) -> dict[str, int]:
        """Return the values by dimension, for `evaluate`."""
        return {name: getattr(self, name) for name in sorted(DIMENSIONS)}


@dataclass(frozen=True)
class ModelGraph:
    """A model: its layer types, and the stack of layer groups in running order (embedding first, head last).

    `dtype` is that of activations, `kv_dtype` that of the cache. `omitted` names parts of the configuration that the
    graph leaves out (a vision tower).
    """

    name: str
    family: str
    dtype: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    stack: tuple[LayerGroup, ...]
    context_tokens: int = 0
    """Longest context the configuration declares; 0 when it does not say."""
    kv_dtype: str = "bfloat16"
    tied_embeddings: bool = False
    """The head uses the embedding's weights; they are counted once, in the embedding."""
    omitted: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        known = [layer.name for layer in self.layers]
        if len(set(known)) != len(known):
            raise InvalidValue(message=f"model `{self.name}` has two layer types of the same name")
        used = [group.layer for group in self.stack]
        if set(used) != set(known):
            odd = min(set(used) ^ set(known))
            raise InvalidValue(message=f"layer `{odd}` of model `{self.name}` is not both defined and used")
        if self.hidden_size < 1 or self.vocab_size < 0 or self.context_tokens < 0:
            raise InvalidValue(message=f"model `{self.name}` has a size below its least value")
        for dtype in (self.dtype, self.kv_dtype):
            if dtype not in STORED_BYTES:
                raise InvalidValue(message=f"model `{self.name}` has the unknown dtype `{dtype}`")

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many layers of each type the stack has."""
        counted: Counter[str] = Counter()
        for group in self.stack:
            counted[group.layer] += group.count
        return dict(counted)

    @property
    def block_count(self) -> int:
        """Number of decoder blocks."""
        return sum(self.counts[layer.name] for layer in self.layers if layer.role is Role.BLOCK)

    def layer(self, name: str) -> Layer:
        """Return the layer type called `name`; raises KeyError."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def sequence(self) -> Iterator[Layer]:
        """Yield the layers one by one in running order."""
        for group in self.stack:
            for _ in range(group.count):
                yield self.layer(group.layer)

    def forward(self) -> Iterator[tuple[Layer, int]]:
        """Yield the layer types of a plain forward pass (no predictors) with their counts."""
        for layer in self.layers:
            if layer.role is not Role.PREDICTOR:
                yield layer, self.counts[layer.name]

    def parameters(self, predictors: bool = False) -> int:
        """Return the number of parameters; with `predictors`, those of multi-token prediction too."""
        return sum(
            layer.parameters * self.counts[layer.name]
            for layer in self.layers
            if predictors or layer.role is not Role.PREDICTOR
        )

    def active_parameters(self) -> int:
        """Return the number of parameters that act on one token."""
        return sum(layer.active_parameters * count for layer, count in self.forward())

    def stored_bytes(self, predictors: bool = False) -> int:
        """Return the bytes of all weights."""
        return sum(
            layer.stored_bytes * self.counts[layer.name]
            for layer in self.layers
            if predictors or layer.role is not Role.PREDICTOR
        )

    @cached_property
    def _flops(self) -> dict[Phase, Expression]:
        return {phase: total([count * layer.flops(phase) for layer, count in self.forward()]) for phase in Phase}

    @cached_property
    def _bytes(self) -> dict[Phase, Expression]:
        return {phase: total([count * layer.bytes(phase) for layer, count in self.forward()]) for phase in Phase}

    def flops_expression(self, phase: Phase) -> Expression:
        """Return the FLOPs of one forward pass as an expression."""
        return self._flops[phase]

    def bytes_expression(self, phase: Phase) -> Expression:
        """Return the least traffic of one forward pass in bytes, operator by operator, as an expression."""
        return self._bytes[phase]

    def flops(
        self,
        batch: int,
        seq: int,
        kv: int | None = None,
        *,
        scored: int = 1,
        source: int = 0,
        phase: Phase | None = None,
    ) -> int:
        """Return the FLOPs of one forward pass.

        Args:
            batch: sequences in the step.
            seq: new tokens per sequence.
            kv: tokens the last new one sees, itself included; `seq` when not given.
            scored: positions per sequence whose logits are computed: 1 when serving, `seq` when training.
            source: encoder tokens per sequence; 0 leaves the encoder out.

        The phase is decode when `seq` is 1, prefill else.
        """
        return self._at(self._flops, Step(batch, seq, kv or seq, scored, source))

    def bytes(
        self,
        batch: int,
        seq: int,
        kv: int | None = None,
        *,
        scored: int = 1,
        source: int = 0,
        phase: Phase | None = None,
    ) -> int:
        """Return the least traffic of one forward pass in bytes; arguments as in `flops`."""
        return self._at(self._bytes, Step(batch, seq, kv or seq, scored, source))

    def _at(self, expressions: dict[Phase, Expression], step: Step) -> int:
        return ceil(evaluate(expressions[step.phase], **step.values()))

    def attentions(self) -> Iterator[tuple[Layer, Operator, Attention, int]]:
        """Yield every attention operator that owns a cache, with its layer and the number of such layers."""
        for layer, count in self.forward():
            for operator in layer.operators:
                if isinstance(operator.detail, Attention) and operator.detail.cache_elements:
                    yield layer, operator, operator.detail, count

    def kv_bytes_per_token(self) -> float:
        """Return the bytes one more token of context adds to the cache while no window is full."""
        elements = sum(attention.cache_elements * count for _, _, attention, count in self.attentions())
        return elements * STORED_BYTES[self.kv_dtype]

    def kv_bytes(self, tokens: int, source: int = 0) -> int:
        """Return the cache bytes of one sequence with `tokens` tokens of context, windows and chunks respected."""
        elements = sum(
            attention.cache_elements * count * (source if attention.cross else attention.cached_tokens(tokens))
            for _, _, attention, count in self.attentions()
        )
        return ceil(elements * STORED_BYTES[self.kv_dtype])

    def state_bytes(self) -> int:
        """Return the bytes of recurrent state of one sequence, whatever its length, kept in float32."""
        return 4 * sum(
            operator.detail.state_elements * count
            for layer, count in self.forward()
            for operator in layer.operators
            if isinstance(operator.detail, Recurrence)
        )


def causal_pairs(batch: Expression, seq: Expression, kv: Expression, window: int = 0) -> Expression:
    """Return how many (query, key) pairs causal attention computes.

    The last of `seq` queries sees `kv` keys, the one before it one fewer; with `window` a query sees that many keys
    at most. Sum over keys j = kv - seq + 1 .. kv of min(j, window), in closed form.
    """
    if not window:
        return batch * (seq * kv - seq * (seq - 1) / 2)

    def up_to(count: Expression) -> Expression:
        full = smallest(count, whole(window))
        return full * (full + 1) / 2 + (count - full) * window

    return batch * (up_to(kv) - up_to(kv - seq))
