"""A parallel plan: degrees, stage layout, and what each stage costs and holds."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.errors import InvalidValue
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.grouping import Group
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.spec import (
    ContextMode,
    Offload,
    Order,
    Pipeline,
    Recompute,
    Sharding,
    TrainingSpec,
)


@dataclass(frozen=True, slots=True)
class Degrees:
    """The discrete choices. Expert ranks are taken out of data, context and tensor ranks."""

    data: int
    tensor: int
    context: int
    pipeline: int
    micro_batch: int
    virtual: int = 1
    expert: int = 1
    expert_tensor: int = 1
    zero: int = 1
    recompute: Recompute = Recompute.NONE
    schedule: Pipeline = Pipeline.ONE_F_ONE_B
    order: Order = Order.DATA_FIRST
    sharding: Sharding = Sharding.GLOBAL
    context_mode: ContextMode = ContextMode.RING
    offload: Offload = Offload.NONE
    overlap_tensor: bool = False
    """Sums over tensor ranks run beside the products before and after them."""
    placement: tuple[int, ...] = ()
    """Node groups of the cluster along the pipeline, where each stage has one GPU type; empty: all stages are alike."""

    def __post_init__(self) -> None:
        sizes = (self.data, self.tensor, self.context, self.pipeline, self.micro_batch, self.virtual, self.expert)
        if min(*sizes, self.expert_tensor) < 1:
            raise InvalidValue(message="a parallel degree is below 1")
        if self.zero not in (0, 1, 2, 3):
            raise InvalidValue(message=f"ZeRO stage {self.zero}; expected 0, 1, 2 or 3")

    @property
    def gpus(self) -> int:
        """GPUs the plan takes."""
        return self.data * self.tensor * self.context * self.pipeline

    @property
    def slots(self) -> int:
        """Virtual stages over all ranks."""
        return self.pipeline * self.virtual

    def rank_of(self, slot: int) -> int:
        """Return the pipeline rank of a virtual stage: round and round, or there and back along a V."""
        turn, place = divmod(slot, self.pipeline)
        return self.pipeline - 1 - place if self.schedule is Pipeline.ZERO_BUBBLE_V and turn else place

    def slots_of(self, rank: int) -> tuple[int, ...]:
        """Return the virtual stages of a rank, one per chunk."""
        if self.schedule is Pipeline.ZERO_BUBBLE_V:
            return rank, 2 * self.pipeline - 1 - rank
        return tuple(range(rank, self.slots, self.pipeline))

    @property
    def last_rank(self) -> int:
        """The rank of the last virtual stage, which has the loss."""
        return self.rank_of(self.slots - 1)

    def microbatches(self, global_batch: int) -> int:
        """Microbatches per step and data rank."""
        return global_batch // (self.data * self.micro_batch)

    def text(self) -> str:
        """Return the degrees as people write them: `tp8 pp4 dp16 mb1 ...`, degrees of 1 left out."""
        parts = [f"dp{self.data}"]
        named: tuple[tuple[str, int], ...] = (
            ("tp", self.tensor),
            ("cp", self.context),
            ("pp", self.pipeline),
            ("vp", self.virtual),
        )
        named += (("ep", self.expert), ("etp", self.expert_tensor))
        parts += [f"{name}{value}" for name, value in named if value > 1]
        parts += [f"mb{self.micro_batch}", f"zero{self.zero}", f"recompute={self.recompute.value}"]
        return " ".join([*parts, *self._options()])

    def _options(self) -> list[str]:
        """Return the choices that differ from what trainers do by themselves."""
        found = [self.schedule.value] if self.schedule.splits_backward else []
        if self.sharding is not Sharding.GLOBAL:
            found.append(f"shard={self.sharding.value}")
        if self.context_mode is not ContextMode.RING:
            found.append(f"cp={self.context_mode.value}")
        if self.offload is not Offload.NONE:
            found.append(f"offload={self.offload.value}")
        if self.overlap_tensor:
            found.append("overlap=tp")
        if self.placement:
            found.append(f"groups={'-'.join(map(str, self.placement))}")
        return found + ([f"order={self.order.value}"] if self.order is not Order.DATA_FIRST else [])


@dataclass(frozen=True, slots=True)
class StageLayout:
    """Decoder layers per virtual stage in model order; `Degrees.rank_of` says which rank has a slot.

    The embedding is on the first slot; multi-token prediction and loss are on the last.
    """

    layers: tuple[int, ...]
    recomputed: tuple[int, ...] = ()
    """With `Recompute.STAGES`: how many of each virtual stage's layers, from its first, run again in the backward."""

    def __post_init__(self) -> None:
        if not self.layers or min(self.layers) < 0:
            raise InvalidValue(message="a stage layout needs at least one stage, and no negative count")
        again = self.recomputed or (0,) * len(self.layers)
        pairs = zip(again, self.layers, strict=False)
        if len(again) != len(self.layers) or not all(0 <= some <= count for some, count in pairs):
            raise InvalidValue(message="a stage recomputes from none to all of its layers")

    def cuts(self) -> tuple[tuple[int, int], ...]:
        """Return (first layer, layer after the last) per slot."""
        found: list[tuple[int, int]] = []
        start = 0
        for count in self.layers:
            found.append((start, start + count))
            start += count
        return tuple(found)


@dataclass(frozen=True, slots=True)
class StageFigures:
    """What one pipeline rank holds and does for one microbatch."""

    rank: int
    forward_us: float
    backward_us: float
    parameters: int
    """Parameters on each of its GPUs."""
    state_bytes: int
    activation_bytes: int
    transient_bytes: int
    host_bytes: int = 0
    """In the memory of its host."""

    @property
    def memory_bytes(self) -> int:
        """Peak of one GPU of the stage."""
        return self.state_bytes + self.activation_bytes + self.transient_bytes


@dataclass(frozen=True, slots=True)
class Alternative:
    """A plan that was considered: its time, its peak memory, and why it loses."""

    degrees: Degrees
    layout: StageLayout
    step_time_us: float
    peak_memory_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class FrontStep:
    """The fastest plan on so many GPUs within a memory limit (0: what the reserve leaves); none where nothing fits."""

    gpus: int
    most_memory: int
    candidates: int
    degrees: Degrees | None = None
    layout: StageLayout | None = None
    step_time_us: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class GroupedPlan:
    """A plan with a batch of mixed lengths grouped on its data and context ranks, and the step that gives."""

    degrees: Degrees
    layout: StageLayout
    rounds: tuple[tuple[Group, ...], ...]
    step_time_us: float


@dataclass(frozen=True, slots=True)
class ParallelBody:
    """The decisions of a plan of kind `parallel`, with the problem they answer."""

    model: TrainingModel
    cluster: ClusterTopology
    spec: TrainingSpec
    degrees: Degrees
    layout: StageLayout
    stages: tuple[StageFigures, ...]
    alternatives: tuple[Alternative, ...] = ()
    steps: tuple[FrontStep, ...] = ()
    """What the front of time, memory and GPUs is made of, where it was asked for."""
    grouped: tuple[GroupedPlan, ...] = ()
    """With mixed lengths: this plan and those it was compared with, each with its sequences grouped; this one first."""
