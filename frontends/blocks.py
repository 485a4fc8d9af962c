"""What a family's reader says about a model: blocks of mixers and feed-forwards, before they become operators."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from treadle.ir.model import Role


class Norm(Enum):
    """A normalization and its parameters per column."""

    RMS = "rms"
    """Scale only."""
    LAYER = "layer"
    """Scale and bias."""
    PLAIN = "plain"
    """No parameters."""

    @property
    def parameters_per_column(self) -> int:
        """Learned values per normalized column."""
        return {Norm.RMS: 1, Norm.LAYER: 2, Norm.PLAIN: 0}[self]


class QueryKeyNorm(Enum):
    """Normalization of queries and keys before attention."""

    NONE = "none"
    HEAD = "head"
    """One scale of a head's size, shared by the heads."""
    FULL = "full"
    """One scale over all heads."""
    PLAIN = "plain"
    """Without parameters."""


@dataclass(frozen=True, slots=True)
class Indexer:
    """Selects `top_k` keys per query from `heads` cheap scores of `head_dim` (DeepSeek-V3.2, GLM-5, MiniMax-M3)."""

    heads: int
    head_dim: int
    top_k: int
    owned: bool = True
    """False: the selection of an earlier layer is used again."""


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Grouped-query attention with its projections."""

    heads: int
    kv_heads: int
    qk_head_dim: int
    v_head_dim: int
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: QueryKeyNorm = QueryKeyNorm.NONE
    window: int = 0
    chunk: int = 0
    gate: int = 0
    """Columns of the output gate computed from the layer's input (0: none)."""
    sinks: bool = False
    key_is_value: bool = False
    rope: bool = True
    causal: bool = True
    cross: bool = False
    shared_cache: bool = False
    """Keys and values are those of an earlier layer: no projection, no cache of its own."""
    relative_buckets: int = 0
    """Learned biases per head and bucket of distance (T5)."""
    indexer: Indexer | None = None


@dataclass(frozen=True, slots=True)
class LatentBlock:
    """Multi-head latent attention (DeepSeek-V2, section 2.1)."""

    heads: int
    q_rank: int
    kv_rank: int
    nope_head_dim: int
    rope_head_dim: int
    v_head_dim: int
    bias: bool = False
    indexer: Indexer | None = None
    gate: int = 0


@dataclass(frozen=True, slots=True)
class StateSpaceBlock:
    """Mamba-2 mixer (state-space duality)."""

    heads: int
    head_dim: int
    groups: int
    state: int
    kernel: int
    convolution_bias: bool = True
    projection_bias: bool = False
    gated_norm: bool = True


@dataclass(frozen=True, slots=True)
class DeltaBlock:
    """Gated delta rule (Qwen3-Next, Qwen3.5)."""

    key_heads: int
    value_heads: int
    key_head_dim: int
    value_head_dim: int
    kernel: int


@dataclass(frozen=True, slots=True)
class ChannelDeltaBlock:
    """Delta rule with a decay per channel (Kimi Linear)."""

    heads: int
    head_dim: int
    kernel: int


@dataclass(frozen=True, slots=True)
class DenseBlock:
    """Feed-forward of `width`; gated ones have two up projections."""

    width: int
    gated: bool = True
    bias: bool = False
    function: str = "silu"
    """The activation's name in the configuration."""


@dataclass(frozen=True, slots=True)
class ExpertsBlock:
    """Mixture of experts; `shared_width` columns run for every token."""

    experts: int
    top_k: int
    width: int
    gated: bool = True
    bias: bool = False
    shared_width: int = 0
    shared_gate: bool = False
    router_bias: bool = False
    """A learned or tracked value per expert beside the router's weights."""
    function: str = "silu"
    latent_width: int = 0
    """Experts work in this width, with a projection down and up (0: in the model's)."""


Mixer: TypeAlias = AttentionBlock | LatentBlock | StateSpaceBlock | DeltaBlock | ChannelDeltaBlock
Branch: TypeAlias = Mixer | DenseBlock | ExpertsBlock


@dataclass(frozen=True, slots=True)
class Sublayer:
    """Norm, then branches in parallel, then norm, then the residual addition."""

    branches: tuple[Branch, ...]
    before: bool = True
    after: bool = False
    extra_norms: int = 0
    """Further norms of the model's width inside the sublayer."""


@dataclass(frozen=True, slots=True)
class Block:
    """One layer. `extra_parameters` are learned values that no operator stands for (layer scales)."""

    sublayers: tuple[Sublayer, ...]
    role: Role = Role.BLOCK
    extra_parameters: int = 0


@dataclass(frozen=True, slots=True)
class Decoder:
    """A whole model: its blocks in running order, and what surrounds them."""

    hidden_size: int
    vocab_size: int
    blocks: tuple[Block, ...]
    norm: Norm = Norm.RMS
    tied: bool = False
    head_bias: bool = False
    positions: int = 0
    """Rows of a learned position embedding."""
    embedding_width: int = 0
    """Width of the embedding where it differs from the model's."""
    embedding_norm: bool = False
    final_norm: bool = True
    context_tokens: int = 0
    predictors: tuple[Block, ...] = ()
    encoders: tuple[Block, ...] = ()
    head: bool = True
    omitted: tuple[str, ...] = field(default=())


def pre_norm(mixer: Branch, feed_forward: Branch, after: bool = False) -> Block:
    """Return the usual block: norm, mixer, residual, norm, feed-forward, residual."""
    return Block((Sublayer((mixer,), after=after), Sublayer((feed_forward,), after=after)))
