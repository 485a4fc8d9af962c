"""A model as training sees it: layer kinds as lists of products, attention and saved tensors; the order of layers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from treadle.ir.errors import InvalidValue


class Shard(Enum):
    """How tensor parallelism splits a product."""

    COLUMN = "column"
    """Output features are split; the result lives in the sharded region."""
    ROW = "row"
    """Input features are split; the result is summed over the ranks and lives in the replicated region."""
    NONE = "none"
    """Every rank does all of it."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product per token: (1, inputs) x (inputs, outputs)."""

    name: str
    inputs: int
    outputs: int
    shard: Shard
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Weights, and the bias where there is one."""
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)


@dataclass(frozen=True, slots=True)
class Experts:
    """Routed experts: each token goes through `top_k` of `count`; `products` are those of one expert."""

    count: int
    top_k: int
    products: tuple[Product, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.count:
            raise InvalidValue(message=f"{self.top_k} of {self.count} experts per token; expected 1 to {self.count}")

    @property
    def parameters(self) -> int:
        """Parameters of all experts."""
        return self.count * sum(product.parameters for product in self.products)


@dataclass(frozen=True, slots=True)
class AttentionCore:
    """Scores, softmax and context: heads split by tensor parallelism, sequence by context parallelism."""

    heads: int
    kv_heads: int
    qk_head_dim: int
    v_head_dim: int
    window: int = 0
    """Keys a query sees at most; 0 for all."""


@dataclass(frozen=True, slots=True)
class LayerKind:
    """One kind of layer.

    Element counts are per token of the layer's input: `replicated_saved` and `sharded_saved` are kept for the backward
    pass in the region that tensor parallelism replicates (split by sequence parallelism) or splits;
    `expert_saved` per token and chosen expert. `replicated_moved` and `sharded_moved` are read or written by
    elementwise kernels in one forward pass. `masks` are one-byte elements (dropout) in the replicated region.
    """

    name: str
    products: tuple[Product, ...]
    replicated_parameters: int
    replicated_saved: int
    sharded_saved: int
    replicated_moved: int
    sharded_moved: int
    attention: AttentionCore | None = None
    experts: Experts | None = None
    expert_saved: int = 0
    masks: int = 0
    selective_saved: int = 0
    """Part of `sharded_saved` that selective recomputation with a fused attention drops (the inner part of the MLP)."""
    recomputed: tuple[str, ...] = ()
    """Products that selective recomputation with a fused attention runs again."""
    kernels: int = 18
    """Kernels launched in one forward pass, for the host's share of the time."""
    norm_saved: int = 0
    """Part of `replicated_saved` that normalizations make: recomputing them drops it."""

    @property
    def dense_parameters(self) -> int:
        """Parameters outside routed experts."""
        return sum(product.parameters for product in self.products) + self.replicated_parameters

    @property
    def parameters(self) -> int:
        """All parameters of one layer."""
        return self.dense_parameters + (self.experts.parameters if self.experts else 0)

    @property
    def syncs(self) -> int:
        """Sums over the tensor-parallel ranks in one forward pass."""
        return sum(product.shard is Shard.ROW for product in self.products)


@dataclass(frozen=True, slots=True)
class TrainingModel:
    """A decoder stack: `order` gives the kind of each decoder layer; embedding before, loss after.

    `predictors` layers of the last kind form multi-token prediction, each with its own loss.
    """

    name: str
    hidden: int
    vocabulary: int
    kinds: tuple[LayerKind, ...]
    order: tuple[tuple[str, int], ...]
    """(kind, count) in running order."""
    tied_embeddings: bool = False
    predictors: int = 0
    position_parameters: int = 0

    def __post_init__(self) -> None:
        known = {kind.name for kind in self.kinds}
        if unknown := [name for name, _ in self.order if name not in known]:
            raise InvalidValue(message=f"model `{self.name}` uses the unknown kind of layer `{unknown[0]}`")
        if self.hidden < 1 or self.vocabulary < 1 or not self.order or any(count < 1 for _, count in self.order):
            raise InvalidValue(message=f"model `{self.name}` has a size below 1")

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return sum(count for _, count in self.order)

    def kind(self, name: str) -> LayerKind:
        """Return the kind called `name`; raises KeyError."""
        for kind in self.kinds:
            if kind.name == name:
                return kind
        raise KeyError(name)

    def sequence(self) -> tuple[str, ...]:
        """Return the kind of every decoder layer in order."""
        return tuple(name for name, count in self.order for _ in range(count))

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding, learned positions included."""
        return self.vocabulary * self.hidden + self.position_parameters

    @property
    def head_parameters(self) -> int:
        """Parameters of the output projection, whether tied or not."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Parameters without multi-token prediction; a tied head is counted once."""
        layers = sum(self.kind(name).parameters * count for name, count in self.order)
        return layers + self.embedding_parameters + (0 if self.tied_embeddings else self.head_parameters) + self.hidden


def runs(kinds: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Return a sequence of kinds as (kind, count) runs."""
    return tuple((name, len(list(items))) for name, items in groupby(kinds))


def dense_layer(
    name: str, hidden: int, heads: int, kv_heads: int, ffn: int, *, gated: bool, bias: bool, dropout: bool
) -> LayerKind:
    """Return a transformer layer of the GPT (`gated=False`) or Llama (`gated=True`) form.

    With `gated=False`, `kv_heads=heads` and dropout the saved bytes are those of Korthikanti et al. (arXiv 2205.05198,
    section 4.1): 10 s b h replicated and 24 s b h sharded, scores apart. Moved with fused kernels (Megatron-LM): two
    norms read and write h each, two additions of bias, dropout and residual read 2 h and write h.
    """
    head_dim = hidden // heads
    keys = 2 * kv_heads * head_dim
    products = (
        Product("qkv", hidden, hidden + keys, Shard.COLUMN, bias),
        Product("proj", hidden, hidden, Shard.ROW, bias),
        Product("up", hidden, (2 if gated else 1) * ffn, Shard.COLUMN, bias),
        Product("down", ffn, hidden, Shard.ROW, bias),
    )
    inner = (2 if gated else 1) * ffn
    return LayerKind(
        name,
        products,
        replicated_parameters=(4 if bias else 2) * hidden,
        replicated_saved=4 * hidden,
        sharded_saved=2 * hidden + keys + inner + ffn,
        replicated_moved=10 * hidden,
        sharded_moved=2 * (hidden + keys) + inner + ffn,
        attention=AttentionCore(heads, kv_heads, head_dim, head_dim),
        masks=2 * hidden if dropout else 0,
        selective_saved=inner + ffn,
        recomputed=("up",),
        norm_saved=2 * hidden,
    )
