"""What training asks for: batch, sequences, precision, optimizer, and which part of the space to search."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cache

from treadle.ir.errors import InvalidValue

PRECISIONS = ("bf16", "fp16", "fp8", "mxfp8", "nvfp4")


class Choice(Enum):
    """A choice of the search space; members hash by identity, since memories of times hold millions of them."""

    __hash__ = object.__hash__


class Recompute(Choice):
    """What the backward pass computes again: nothing, whole layers (all, or some of every stage), a set of modules."""

    NONE = "none"
    SELECTIVE = "selective"
    """What trainers call so: the attention core, or beside a fused attention (which does that itself) the MLP."""
    FULL = "full"
    """Whole layers, from their inputs."""
    NORM = "norm"
    """Outputs of the normalizations."""
    CORE = "core"
    """The attention core (scores, softmax, context); only where attention is not fused."""
    MLP = "mlp"
    """The inner part of the MLP, and of the experts."""
    CORE_NORM = "core+norm"
    MLP_NORM = "mlp+norm"
    CORE_MLP = "core+mlp"
    CORE_MLP_NORM = "core+mlp+norm"
    STAGES = "stages"
    """Whole layers, the first ones of every virtual stage: as many as its memory asks for."""

    def modules(self, fused_attention: bool) -> frozenset[str]:
        """Return the modules of one layer that run again; `STAGES` has none of its own in a layer it leaves alone."""
        if self in (Recompute.NONE, Recompute.FULL):
            return frozenset({"layer"} if self is Recompute.FULL else ())
        if self is Recompute.SELECTIVE:
            return frozenset({"mlp" if fused_attention else "core"})
        return frozenset(self.value.split("+"))


@cache
def _dimensions(order: str) -> tuple[str, ...]:
    return tuple(order.split("-"))


class Pipeline(Choice):
    """Order of forwards and backwards on a rank."""

    ONE_F_ONE_B = "1f1b"
    INTERLEAVED = "interleaved"
    ZERO_BUBBLE = "zb-h1"
    """Weight gradients apart from input gradients, as many microbatches in flight as 1F1B's first rank."""
    ZERO_BUBBLE_V = "zb-v"
    """The same with two chunks per rank, placed along a V: the first rank has the first and the last."""

    @property
    def splits_backward(self) -> bool:
        """Whether weight gradients are entries of their own."""
        return self in (Pipeline.ZERO_BUBBLE, Pipeline.ZERO_BUBBLE_V)


class Order(Choice):
    """Which degree varies fastest over the ranks, from the innermost to the outermost."""

    DATA_FIRST = "tp-cp-ep-dp-pp"
    PIPELINE_FIRST = "tp-cp-ep-pp-dp"
    TENSOR_DATA_CONTEXT_PIPELINE = "tp-ep-dp-cp-pp"
    TENSOR_DATA_PIPELINE_CONTEXT = "tp-ep-dp-pp-cp"
    TENSOR_PIPELINE_CONTEXT_DATA = "tp-pp-cp-ep-dp"
    TENSOR_PIPELINE_DATA_CONTEXT = "tp-pp-ep-dp-cp"
    CONTEXT_TENSOR_DATA_PIPELINE = "cp-tp-ep-dp-pp"
    CONTEXT_TENSOR_PIPELINE_DATA = "cp-tp-pp-ep-dp"
    CONTEXT_DATA_TENSOR_PIPELINE = "cp-ep-dp-tp-pp"
    CONTEXT_DATA_PIPELINE_TENSOR = "cp-ep-dp-pp-tp"
    CONTEXT_PIPELINE_TENSOR_DATA = "cp-pp-tp-ep-dp"
    CONTEXT_PIPELINE_DATA_TENSOR = "cp-pp-ep-dp-tp"
    DATA_TENSOR_CONTEXT_PIPELINE = "ep-dp-tp-cp-pp"
    DATA_TENSOR_PIPELINE_CONTEXT = "ep-dp-tp-pp-cp"
    DATA_CONTEXT_TENSOR_PIPELINE = "ep-dp-cp-tp-pp"
    DATA_CONTEXT_PIPELINE_TENSOR = "ep-dp-cp-pp-tp"
    DATA_PIPELINE_TENSOR_CONTEXT = "ep-dp-pp-tp-cp"
    DATA_PIPELINE_CONTEXT_TENSOR = "ep-dp-pp-cp-tp"
    PIPELINE_TENSOR_CONTEXT_DATA = "pp-tp-cp-ep-dp"
    PIPELINE_TENSOR_DATA_CONTEXT = "pp-tp-ep-dp-cp"
    PIPELINE_CONTEXT_TENSOR_DATA = "pp-cp-tp-ep-dp"
    PIPELINE_CONTEXT_DATA_TENSOR = "pp-cp-ep-dp-tp"
    PIPELINE_DATA_TENSOR_CONTEXT = "pp-ep-dp-tp-cp"
    PIPELINE_DATA_CONTEXT_TENSOR = "pp-ep-dp-cp-tp"

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of the dimensions, innermost first."""
        return _dimensions(self.value)


class Sharding(Choice):
    """Over which data ranks ZeRO shares state."""

    GLOBAL = "global"
    """All of them."""
    NODE = "node"
    """Those inside a domain of fast links; domains hold copies (HSDP, arXiv 2304.11277)."""
    HIERARCHICAL = "hierarchical"
    """Weights inside a domain, gradients and optimizer state over all (the secondary partition of ZeRO++,
    arXiv 2306.10209)."""


class ContextMode(Choice):
    """How context ranks exchange keys and values."""

    RING = "ring"
    """Blocks travel round a ring (arXiv 2310.01889)."""
    ALL_TO_ALL = "all-to-all"
    """Heads against sequence, and back (DeepSpeed-Ulysses, arXiv 2309.14509)."""
    BIDIRECTIONAL = "bidirectional"
    """A ring in both directions: half the steps, twice the buffers."""
    HIERARCHICAL = "hierarchical"
    """All-to-all inside a domain, a ring across domains (USP, arXiv 2405.07719)."""


class Offload(Choice):
    """What the host's memory keeps."""

    NONE = "none"
    OPTIMIZER = "optimizer"
    """Optimizer state, and the update runs on the host (ZeRO-Offload, arXiv 2101.06840)."""
    ACTIVATIONS = "activations"
    """Saved activations, out after a layer's forward and back before its backward."""
    BOTH = "both"

    @property
    def optimizer(self) -> bool:
        """Whether optimizer state is on the host."""
        return self in (Offload.OPTIMIZER, Offload.BOTH)

    @property
    def activations(self) -> bool:
        """Whether saved activations are on the host."""
        return self in (Offload.ACTIVATIONS, Offload.BOTH)


class Trainer(Choice):
    """Whose configuration must be able to say the plan."""

    ANY = "any"
    MEGATRON = "megatron"
    TORCHTITAN = "torchtitan"
    DEEPSPEED = "deepspeed"


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Allowed values; an empty tuple leaves a degree free."""

    data: tuple[int, ...] = ()
    tensor: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    pipeline: tuple[int, ...] = ()
    virtual: tuple[int, ...] = ()
    expert: tuple[int, ...] = ()
    expert_tensor: tuple[int, ...] = (1,)
    micro_batch: tuple[int, ...] = ()
    zero: tuple[int, ...] = (0, 1, 3)
    recompute: tuple[Recompute, ...] = tuple(Recompute)
    order: tuple[Order, ...] = tuple(Order)
    schedule: tuple[Pipeline, ...] = tuple(Pipeline)
    sharding: tuple[Sharding, ...] = tuple(Sharding)
    context_mode: tuple[ContextMode, ...] = tuple(ContextMode)
    offload: tuple[Offload, ...] = tuple(Offload)
    """Legal where the cluster says how much memory its hosts have."""
    overlap_tensor: tuple[bool, ...] = (False, True)
    trainer: Trainer = Trainer.ANY
    most_virtual: int = 8
    most_micro_batch: int = 64
    tensor_inside_domain: bool = True
    most_memory: int = 0
    """Bytes of a GPU that a plan may use; 0: what the reserve leaves."""

    def __post_init__(self) -> None:
        for name in ("data", "tensor", "context", "pipeline", "virtual", "expert", "expert_tensor", "micro_batch"):
            if any(value < 1 for value in getattr(self, name)):
                raise InvalidValue(message=f"search.{name} has a value below 1")
        if self.most_memory < 0:
            raise InvalidValue(message="search.most_memory is negative")
        if any(stage not in (0, 1, 2, 3) for stage in self.zero):
            raise InvalidValue(message="search.zero takes the stages 0, 1, 2 and 3")


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """A training job. `global_batch` counts sequences of `sequence_tokens` tokens (rows, with `lengths`)."""

    global_batch: int
    sequence_tokens: int
    precision: str = "bf16"
    gradient_bytes: int = 4
    """Bytes per element in which gradients are kept and reduced."""
    optimizer_bytes: int = 12
    """Bytes per parameter of optimizer state, master weights included (Adam in float32: 12)."""
    overlap_gradients: bool = True
    """Gradient reduction and parameter gathering run beside the backward and forward passes. Under ZeRO-3 they always
    do: a layer's weights are gathered beside the layer before (FSDP)."""
    fused_attention: bool = True
    fused_loss: bool = False
    """The loss is one kernel that keeps no 32-bit copies of the logits but one."""
    early_stop: bool = False
    """Recomputing a layer ends with the last tensor that its backward needs, so the layer's last product is left out
    (PyTorch's checkpoint without re-entrance)."""
    dropout: bool = False
    sequence_parallel: bool = True
    memory_reserve: float = 0.06
    """Part of the memory left to the allocator's fragments, the context and communication buffers."""
    search: SearchSpace = field(default_factory=SearchSpace)
    lengths: tuple[int, ...] = ()
    """A batch's sequences in tokens where they differ: rows are packed from such, and a fused attention sees one
    sequence at a time; the ranks together must hold the longest."""

    def attended_tokens(self, window: int = 0) -> float:
        """Return over how many keys an average token's attention goes, the causal half not taken off.

        With sequences of their own lengths: the mean over tokens, so the sum of squares over the sum.
        """
        lengths = self.lengths or (self.sequence_tokens,)
        pairs = sum(length * min(length, window or length) for length in lengths)
        return pairs / sum(lengths)

    def __post_init__(self) -> None:
        if any(length < 1 for length in self.lengths):
            raise InvalidValue(message="every sequence of `lengths` has a token")
        if self.global_batch < 1 or self.sequence_tokens < 1:
            raise InvalidValue(message="global batch and sequence length are at least 1")
        if self.precision not in PRECISIONS:
            raise InvalidValue(message=f"unknown precision `{self.precision}`; expected one of {', '.join(PRECISIONS)}")
        if not 0 <= self.memory_reserve < 1:
            raise InvalidValue(message=f"memory_reserve is {self.memory_reserve}; expected 0 to below 1")
        if self.gradient_bytes not in (2, 4) or self.optimizer_bytes < 0:
            raise InvalidValue(message="gradient_bytes is 2 or 4, and optimizer_bytes not negative")
