"""A re-plan: what happened to a running plan's nodes, the plan that goes on, and what moves for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue, Unmet
from treadle.ir.training.holdings import Part
from treadle.ir.training.plan import Degrees, ParallelBody, StageFigures, StageLayout
from treadle.ir.training.spec import Pipeline, Sharding

CHECKPOINT = -1
"""The source of what is read from the last checkpoint."""


class NotElastic(TreadleError):
    """A plan or an event that cannot be re-planned."""

    code = "TRD630"
    template = "cannot re-plan: {reason}"
    hint = "nodes are numbered from 0 in rank order"


class NothingLeft(Unmet):
    """No plan goes on with the nodes that are left."""

    code = "TRD631"
    template = "no plan fits the {nodes} nodes that are left{limit}"
    hint = "wait for nodes, or plan again with other degrees"


@dataclass(frozen=True, slots=True)
class SlowNode:
    """A node whose work takes `factor` times as long."""

    node: int
    factor: float

    def __post_init__(self) -> None:
        if self.node < 0 or not 1 < self.factor <= 100:
            raise InvalidValue(message=f"node {self.node} x {self.factor:g}; expected a factor above 1, at most 100")


@dataclass(frozen=True, slots=True)
class Event:
    """Nodes lost and nodes that are slow, by number."""

    lost: tuple[int, ...] = ()
    slow: tuple[SlowNode, ...] = ()

    def __post_init__(self) -> None:
        numbers = [*self.lost, *(item.node for item in self.slow)]
        if len(set(numbers)) != len(numbers) or min(numbers, default=0) < 0:
            raise InvalidValue(message="a node is named twice, or has a negative number")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a re-plan may do, and the machines' habits behind checkpoints and lost time."""

    most_migrated_bytes: int | None = None
    mirrored: bool = False
    """Every optimizer slice is also in the host memory of the next node of its stage, as of the last step."""
    even: bool = False
    """All data ranks run equally many microbatches, as Megatron-LM and torchtitan ask for."""
    storage_bytes_per_us: float = 1000.0
    """Per node. 2 TB/s for 2,048 nodes: Llama 3's storage (arXiv 2407.21783, section 3.3.1)."""
    node_mtbf_h: float = 6334.0
    """419 unexpected interruptions in 54 days on 2,048 nodes (arXiv 2407.21783, table 5)."""
    restart_us: float = 300e6
    """From failure to first step, state apart: detection, rescheduling, communicators."""

    def __post_init__(self) -> None:
        if min(self.storage_bytes_per_us, self.node_mtbf_h) <= 0 or self.restart_us < 0:
            raise InvalidValue(message="storage rate and time between failures are positive, a restart not negative")


class Recovery(Enum):
    """Where the state of the new plan comes from."""

    LIVE = "live"
    """From ranks that still run, after the last whole step."""
    CHECKPOINT = "checkpoint"
    """All of it from the last checkpoint, since some of it has no copy left."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes that every lane of a cell sends: `start` to `end` of a part of each piece from `first` to before `after`.

    `source` and `target` are the first ranks of cells: the source in the numbers of the old plan (or `CHECKPOINT`),
    the target in those of the new plan.
    """

    source: int
    target: int
    part: Part
    first: int
    after: int
    start: int
    end: int
    mirror: bool = False
    """From the source's host memory, which mirrors the slice of a lost holder."""

    @property
    def lane_bytes(self) -> int:
        """Bytes that one lane sends."""
        return (self.after - self.first) * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """How often to save: every `steps` steps; `wasted` is the expected share of time that brings no progress."""

    steps: int
    interval_us: float
    write_us: float
    mtbf_us: float
    wasted: float
    young_us: float
    daly_us: float


@dataclass(frozen=True, slots=True)
class ReplanBody:
    """The decisions of a plan of kind `replan`, with the plan and the event they answer.

    Seat s of the old and block b of the new plan are `unit` GPUs in rank order; `seats[b]` is the seat whose nodes take
    block b. `counts[d]` are the microbatches of data rank d.
    """

    before: ParallelBody
    event: Event
    terms: Terms
    degrees: Degrees
    layout: StageLayout
    counts: tuple[int, ...]
    seats: tuple[int, ...]
    recovery: Recovery
    transfers: tuple[Transfer, ...]
    stages: tuple[StageFigures, ...]
    checkpoints: Checkpoints

    @property
    def unit(self) -> int:
        """GPUs of a seat: a node, or as many nodes as a tensor group takes."""
        return unit_of(self.before)

    @property
    def migrated_bytes(self) -> int:
        """Bytes that move, on all lanes."""
        return self.degrees.tensor * sum(item.lane_bytes for item in self.transfers)


def node_size(body: ParallelBody) -> int:
    """Return the GPUs of a node; raises NotElastic where nodes differ."""
    sizes = {group.gpus_per_node for group in body.cluster.groups}
    if len(sizes) > 1 or len({group.gpu for group in body.cluster.groups}) > 1:
        raise NotElastic(reason="the cluster's nodes differ", expected="nodes of one GPU type and size")
    return sizes.pop()


def require_elastic(body: ParallelBody) -> None:
    """Refuse a plan whose shards a re-plan cannot follow; raises NotElastic."""
    degrees = body.degrees
    if degrees.tensor > 1 and degrees.order.dimensions[0] != "tp":
        raise NotElastic(reason=f"rank order {degrees.order.value}", expected="tensor ranks innermost")
    if degrees.sharding is not Sharding.GLOBAL:
        raise NotElastic(reason=f"state shared over {degrees.sharding.value} groups", expected="global sharding")
    experts = degrees.expert * degrees.expert_tensor
    if experts % degrees.tensor and degrees.tensor % experts:
        reason = f"{experts} expert ranks beside {degrees.tensor} tensor ranks"
        raise NotElastic(reason=reason, expected="one tiles the other")
    unit_of(body)


def unit_of(body: ParallelBody) -> int:
    """Return the GPUs of a seat; raises NotElastic where tensor groups do not tile nodes."""
    node, tensor = node_size(body), body.degrees.tensor
    unit = max(node, tensor)
    if unit % node or unit % tensor:
        raise NotElastic(reason=f"tensor groups of {tensor} do not tile nodes of {node} GPUs")
    return unit


def seats_left(body: ParallelBody, lost: tuple[int, ...]) -> tuple[int, ...]:
    """Return the seats without a lost node; raises NotElastic for a node that is not there."""
    node, unit = node_size(body), unit_of(body)
    nodes = body.cluster.gpus // node
    for number in lost:
        if number >= nodes:
            raise NotElastic(reason=f"there is no node {number}", expected=f"0 to {nodes - 1}")
    gone = {number * node // unit for number in lost}
    return tuple(seat for seat in range(body.cluster.gpus // unit) if seat not in gone)


def least_count(degrees: Degrees) -> int:
    """Return the fewest microbatches a data rank may run."""
    return 2 * degrees.pipeline if degrees.schedule is Pipeline.ZERO_BUBBLE_V else degrees.pipeline


def grain_of(degrees: Degrees) -> int:
    """Return what microbatches of a data rank are a multiple of."""
    return degrees.pipeline if degrees.schedule is Pipeline.INTERLEAVED else 1
