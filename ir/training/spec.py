"""What training asks for: batch, sequences, precision, optimizer, and which part of the space to search."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from treadle.ir.errors import InvalidValue

PRECISIONS = ("bf16", "fp16", "fp8", "mxfp8", "nvfp4")


class Recompute(Enum):
    """What the backward pass computes again."""

    NONE = "none"
    SELECTIVE = "selective"
    """The attention core (scores, softmax, context)."""
    FULL = "full"
    """Whole layers, from their inputs."""


class Pipeline(Enum):
    """Order of forwards and backwards on a rank."""

    ONE_F_ONE_B = "1f1b"
    INTERLEAVED = "interleaved"


class Order(Enum):
    """Which degree varies faster over the ranks, after tensor and context."""

    DATA_FIRST = "tp-cp-ep-dp-pp"
    PIPELINE_FIRST = "tp-cp-ep-pp-dp"


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
    recompute: tuple[Recompute, ...] = (Recompute.NONE, Recompute.SELECTIVE, Recompute.FULL)
    order: tuple[Order, ...] = (Order.DATA_FIRST,)
    most_virtual: int = 8
    most_micro_batch: int = 64
    tensor_inside_domain: bool = True

    def __post_init__(self) -> None:
        for name in ("data", "tensor", "context", "pipeline", "virtual", "expert", "expert_tensor", "micro_batch"):
            if any(value < 1 for value in getattr(self, name)):
                raise InvalidValue(message=f"search.{name} has a value below 1")
        if any(stage not in (0, 1, 2, 3) for stage in self.zero):
            raise InvalidValue(message="search.zero takes the stages 0, 1, 2 and 3")


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """A training job. `global_batch` counts sequences of `sequence_tokens` tokens."""

    global_batch: int
    sequence_tokens: int
    precision: str = "bf16"
    gradient_bytes: int = 4
    """Bytes per element in which gradients are kept and reduced."""
    optimizer_bytes: int = 12
    """Bytes per parameter of optimizer state, master weights included (Adam in float32: 12)."""
    overlap_gradients: bool = True
    """Gradient reduction and parameter gathering run beside the backward and forward passes."""
    fused_attention: bool = True
    dropout: bool = False
    sequence_parallel: bool = True
    memory_reserve: float = 0.06
    """Part of the memory left to the allocator's fragments, the context and communication buffers."""
    search: SearchSpace = field(default_factory=SearchSpace)

    def __post_init__(self) -> None:
        if self.global_batch < 1 or self.sequence_tokens < 1:
            raise InvalidValue(message="global batch and sequence length are at least 1")
        if self.precision not in PRECISIONS:
            raise InvalidValue(message=f"unknown precision `{self.precision}`; expected one of {', '.join(PRECISIONS)}")
        if not 0 <= self.memory_reserve < 1:
            raise InvalidValue(message=f"memory_reserve is {self.memory_reserve}; expected 0 to below 1")
        if self.gradient_bytes not in (2, 4) or self.optimizer_bytes < 0:
            raise InvalidValue(message="gradient_bytes is 2 or 4, and optimizer_bytes not negative")
