"""A model graph as the training cost model wants it: products with their split, saved and moved elements per token."""

from __future__ import annotations

from fractions import Fraction

from treadle.ir.diagnostics import TreadleError
from treadle.ir.model import Attention, Gemm, GroupedGemm, Layer, ModelGraph, Operator, OperatorKind, Role
from treadle.ir.symbolic import evaluate
from treadle.ir.training.model import AttentionCore, Experts, LayerKind, Product, Shard, TrainingModel, runs
from treadle.ir.workload import Phase

_KEPT_INPUTS = (
    OperatorKind.GEMM,
    OperatorKind.GROUPED_GEMM,
    OperatorKind.NORM,
    OperatorKind.ACTIVATION,
    OperatorKind.GATE,
)
_ELEMENTWISE = (
    OperatorKind.NORM,
    OperatorKind.ROPE,
    OperatorKind.RESIDUAL,
    OperatorKind.ACTIVATION,
    OperatorKind.GATE,
)
_KERNELS_PER_OPERATOR = 1.5
"""GPT layers of Megatron-LM: 18 kernels for 12 operators (casts, bias and dropout kernels among them)."""


class UnsupportedTrainingLayer(TreadleError):
    """A layer that the training cost model cannot time."""

    code = "TRD154"
    template = "layer `{layer}` of `{model}` has {what}, which the training cost model does not know"
    hint = "decoder stacks of attention, dense and expert layers are supported"


def training_model(graph: ModelGraph) -> TrainingModel:
    """Return the training view of a graph; raises UnsupportedTrainingLayer."""
    blocks = [layer.name for layer in graph.sequence() if layer.role is Role.BLOCK]
    kinds = tuple(
        _kind(graph, layer) for layer in graph.layers if layer.role is Role.BLOCK and layer.name in set(blocks)
    )
    for layer in graph.layers:
        if layer.role is Role.ENCODER:
            raise UnsupportedTrainingLayer(layer=layer.name, model=graph.name, what="an encoder")
    predictors = sum(layer.role is Role.PREDICTOR for layer in graph.sequence())
    return TrainingModel(
        graph.name,
        graph.hidden_size,
        graph.vocab_size,
        kinds,
        runs(tuple(blocks)),
        graph.tied_embeddings,
        predictors,
    )


def _kind(graph: ModelGraph, layer: Layer) -> LayerKind:
    operators = layer.in_phase(Phase.PREFILL)
    if odd := next(
        (item for item in operators if item.kind in (OperatorKind.RECURRENCE, OperatorKind.CONVOLUTION)), None
    ):
        raise UnsupportedTrainingLayer(layer=layer.name, model=graph.name, what=f"a {odd.kind.value} (`{odd.name}`)")
    reader = _Reader(operators, graph.hidden_size)
    experts = reader.experts()
    products = reader.products()
    counted = sum(product.parameters for product in products) + (experts.parameters if experts else 0)
    replicated, sharded, routed = reader.saved()
    moved = reader.moved()
    activations = [item for item in operators if item.kind is OperatorKind.ACTIVATION and not reader.routed(item.name)]
    return LayerKind(
        layer.name,
        products,
        layer.parameters - counted,
        replicated,
        sharded,
        moved[0],
        moved[1],
        reader.attention(),
        experts,
        routed,
        selective_saved=sum(reader.size(item.name) + sum(map(reader.size, item.inputs)) for item in activations),
        recomputed=tuple(name for item in activations for name in item.inputs),
        kernels=round(_KERNELS_PER_OPERATOR * len(operators)),
        norm_saved=reader.norms(),
    )


class _Reader:
    """What one layer's operators mean for training."""

    def __init__(self, operators: tuple[Operator, ...], hidden: int) -> None:
        self.operators = operators
        self.hidden = hidden
        self.named = {operator.name: operator for operator in operators}

    def size(self, name: str) -> int:
        """Elements of a result per token of the layer's input."""
        if name not in self.named:
            return self.hidden
        count = Fraction(1)
        for side in self.named[name].shape:
            count *= Fraction(evaluate(side, batch=1, seq=1, kv=1, source=0, scored=1))
        return int(count)

    def readers(self, name: str) -> list[Operator]:
        """Operators that read a result."""
        return [operator for operator in self.operators if name in operator.inputs]

    def shard(self, operator: Operator) -> Shard:
        """How tensor parallelism splits a product: row before a sum, whole before a norm or router, else column."""
        kinds = {reader.kind for reader in self.readers(operator.name)}
        if kinds & {OperatorKind.NORM, OperatorKind.ROUTER}:
            return Shard.NONE
        if kinds & {OperatorKind.RESIDUAL} or (OperatorKind.GATE in kinds and self.size(operator.name) == self.hidden):
            return Shard.ROW
        return Shard.COLUMN

    def routed(self, name: str) -> bool:
        """Whether a result belongs to chosen experts."""
        operator = self.named.get(name)
        if operator is None:
            return False
        if operator.kind is OperatorKind.GROUPED_GEMM:
            return True
        return operator.kind is OperatorKind.ACTIVATION and any(map(self.routed, operator.inputs))

    def split(self, name: str) -> bool:
        """Whether a result lives in the region that tensor parallelism splits."""
        operator = self.named.get(name)
        if operator is None:
            return False
        if operator.kind in (OperatorKind.ATTENTION, OperatorKind.ROPE, OperatorKind.ACTIVATION):
            return True
        if operator.kind is OperatorKind.GATE:
            return any(map(self.split, operator.inputs))
        return operator.kind is OperatorKind.GEMM and self.shard(operator) is Shard.COLUMN

    def products(self) -> tuple[Product, ...]:
        """Dense products, in order."""
        found: list[Product] = []
        for operator in self.operators:
            detail = operator.detail
            if isinstance(detail, Gemm):
                bias = operator.parameters == detail.batches * (detail.k * detail.n) + detail.n
                found.append(Product(operator.name, detail.k, detail.n * detail.batches, self.shard(operator), bias))
        return tuple(found)

    def experts(self) -> Experts | None:
        """Routed experts."""
        grouped = [item for item in self.operators if isinstance(item.detail, GroupedGemm)]
        if not grouped:
            return None
        products: list[Product] = []
        count = top_k = 1
        for item in grouped:
            assert isinstance(item.detail, GroupedGemm)
            count, top_k = item.detail.experts, item.detail.top_k
            shard = Shard.ROW if item.detail.n == self.hidden else Shard.COLUMN
            products.append(Product(item.name, item.detail.k, item.detail.n, shard))
        return Experts(count, top_k, tuple(products))

    def attention(self) -> AttentionCore | None:
        """The attention core of the layer."""
        for operator in self.operators:
            if isinstance(core := operator.detail, Attention):
                window = core.window or core.chunk or core.top_k_keys
                return AttentionCore(core.heads, core.kv_heads, core.qk_head_dim, core.v_head_dim, window)
        return None

    def saved(self) -> tuple[int, int, int]:
        """Elements kept for the backward pass: replicated region, split region, per chosen expert."""
        names = dict.fromkeys(
            name for operator in self.operators if operator.kind in _KEPT_INPUTS for name in operator.inputs
        )
        core, experts = self.attention(), self.experts()
        replicated = sharded = routed = 0
        for name in names:
            if self.routed(name):
                routed += self.size(name) // (experts.top_k if experts else 1)
            elif self.split(name):
                sharded += self.size(name)
            else:
                replicated += self.size(name)
        if core:
            sharded += core.heads * core.qk_head_dim + core.kv_heads * (core.qk_head_dim + core.v_head_dim)
        return replicated, sharded, routed + (self.hidden if experts else 0)

    def norms(self) -> int:
        """Elements kept in the replicated region that a normalization makes."""
        kept = {name for operator in self.operators if operator.kind in _KEPT_INPUTS for name in operator.inputs}
        found = [item.name for item in self.operators if item.kind is OperatorKind.NORM and item.name in kept]
        return sum(self.size(name) for name in found if not self.split(name) and not self.routed(name))

    def moved(self) -> tuple[int, int]:
        """Elements read or written by elementwise kernels in a forward pass: replicated region, split region."""
        totals = [0, 0]
        for operator in self.operators:
            if operator.kind in _ELEMENTWISE:
                size = self.size(operator.name) + sum(map(self.size, operator.inputs))
                totals[self.split(operator.name) or self.routed(operator.name)] += size
        return totals[0], totals[1]
