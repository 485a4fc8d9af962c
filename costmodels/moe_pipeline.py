"""A mixture-of-experts layer cut into chunks that flow through network, node and tensor cores.

The chunks of a layer (all-to-all, gather in the node, experts, scatter in the node, all-to-all) are simulated event by
event: each stream runs one thing at a time, the furthest or the nearest stage first. Pieces of the gradient all-reduce
fill the network where no chunk waits for it; what is left of them runs beside the dense part of the layer, or after it.

After FSMoE (arXiv 2501.10714: a stage of n bytes in r chunks takes alpha + n / r * beta each) and Comet (arXiv
2502.19811: chunks are groups of tiles of one kernel, a share of whose SMs moves data); the formulas are ours.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from math import ceil

from treadle.costmodels.interference import NETWORK, curve
from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Machine

PIECES = 8
"""Pieces a gradient all-reduce is cut into."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a chunk: the stream, a fixed part each chunk pays, and a part that the chunks divide."""

    stream: str
    fixed_ns: int
    shared_ns: int

    def chunk_ns(self, degree: int) -> int:
        """Return the time of one of `degree` chunks."""
        return self.fixed_ns + ceil(self.shared_ns / degree)


@dataclass(frozen=True, slots=True)
class MoePipeline:
    """Stages of a layer, the gradient all-reduce that may run beside them, and the dense compute after them."""

    stages: tuple[Stage, ...]
    gradient: Stage | None = None
    dense_ns: int = 0

    def __post_init__(self) -> None:
        if not self.stages or self.dense_ns < 0:
            raise InvalidValue(message="a pipeline has at least one stage, and no negative dense part")


@dataclass(frozen=True, slots=True)
class MoeSchedule:
    """The decision: chunks, pieces of the gradient all-reduce beside them, and which stage goes first."""

    degree: int
    pieces: int
    late_first: bool
    time_ns: int


def time_ns(pipeline: MoePipeline, degree: int, pieces: int, late_first: bool) -> int:
    """Return the time of a layer with `degree` chunks and `pieces` of `PIECES` of the gradient beside them."""
    piece = pipeline.gradient.chunk_ns(PIECES) if pipeline.gradient else 0
    beside = makespan_ns(pipeline, degree, pieces, late_first)
    return beside + max(pipeline.dense_ns, (PIECES - pieces) * piece)


def makespan_ns(pipeline: MoePipeline, degree: int, pieces: int, late_first: bool) -> int:
    """Return when all chunks, and the pieces beside them, have ended."""
    durations = [stage.chunk_ns(degree) for stage in pipeline.stages]
    sign = -1 if late_first else 1
    ready: dict[str, list[tuple[int, int, int]]] = {stage.stream: [] for stage in pipeline.stages}
    for chunk in range(degree):
        heapq.heappush(ready[pipeline.stages[0].stream], (0, chunk, 0))
    left = pieces if pipeline.gradient else 0
    piece = pipeline.gradient.chunk_ns(PIECES) if pipeline.gradient else 0
    gradient_stream = pipeline.gradient.stream if pipeline.gradient else ""
    busy: dict[str, bool] = dict.fromkeys([*ready, gradient_stream], False)
    events: list[tuple[int, str, int, int]] = []
    now = 0
    while True:
        for stream, waiting in ready.items():
            if waiting and not busy[stream]:
                _, chunk, number = heapq.heappop(waiting)
                heapq.heappush(events, (now + durations[number], stream, chunk, number))
                busy[stream] = True
        if left and not busy[gradient_stream]:
            heapq.heappush(events, (now + piece, gradient_stream, -1, -1))
            busy[gradient_stream] = True
            left -= 1
        if not events:
            return now
        now = events[0][0]
        while events and events[0][0] == now:
            _, stream, chunk, number = heapq.heappop(events)
            busy[stream] = False
            if 0 <= number < len(durations) - 1:
                after = number + 1
                heapq.heappush(ready[pipeline.stages[after].stream], (sign * after, chunk, after))


def bound_ns(pipeline: MoePipeline, degree: int, pieces: int) -> int:
    """Return a time that no order beats: the load of a stream, or one chunk's way, and what comes after."""
    durations = [stage.chunk_ns(degree) for stage in pipeline.stages]
    piece = pipeline.gradient.chunk_ns(PIECES) if pipeline.gradient else 0
    loads: dict[str, int] = {}
    for stage, duration in zip(pipeline.stages, durations, strict=True):
        loads[stage.stream] = loads.get(stage.stream, 0) + degree * duration
    if pipeline.gradient:
        stream = pipeline.gradient.stream
        loads[stream] = loads.get(stream, 0) + pieces * piece
    return max(*loads.values(), sum(durations)) + max(pipeline.dense_ns, (PIECES - pieces) * piece)


@dataclass(frozen=True, slots=True)
class MoeShape:
    """An expert-parallel layer as one GPU sees it."""

    tokens: int
    hidden: int
    intermediate: int
    top_k: int
    gated: bool = True
    nodes: int = 1
    gpus_per_node: int = 8
    dense_flops: float = 0.0
    gradient_bytes: float = 0.0

    def __post_init__(self) -> None:
        if min(self.tokens, self.hidden, self.intermediate, self.top_k, self.nodes, self.gpus_per_node) < 1:
            raise InvalidValue(message="an expert layer has at least one token, channel, expert and GPU")


@dataclass(frozen=True, slots=True)
class Network:
    """What crosses nodes: bytes/s of one GPU, and the start of a message. In the node the machine's figures count."""

    bytes_per_s: float = 50e9
    """A 400 Gb/s NIC a GPU."""
    start_us: float = 20.0
    """Assumed: an all-to-all over nodes starts in about 20 us."""


def training_pipeline(shape: MoeShape, machine: Machine, network: Network, backward: bool) -> MoePipeline:
    """Return the chunks of FSMoE: all-to-all over nodes, gather and scatter in the node, experts, gradients.

    Backward has twice the compute of forward (gradients of inputs and of weights).
    """
    rows = shape.tokens * shape.top_k
    moved = 2 * rows * shape.hidden
    across = moved * (shape.nodes - 1) / shape.nodes
    within = moved * (shape.gpus_per_node - 1) / shape.gpus_per_node
    rate = machine.value("peak_flops_bfloat16") * machine.value("gemm_efficiency")
    flops = (3 if shape.gated else 2) * 2 * rows * shape.hidden * shape.intermediate * (2 if backward else 1)
    floor = _ns(machine.value("kernel_floor_us") * 1e-6)
    start, node = _ns(network.start_us * 1e-6), _ns(machine.value("allreduce_latency_us") * 1e-6)
    far = Stage("network", start, _ns(across / network.bytes_per_s))
    near = Stage("node", node, _ns(within / machine.value("allreduce_bus_bandwidth_bytes_per_s")))
    experts = Stage("compute", floor, _ns(flops / rate))
    gradient = Stage("network", start, _ns(2 * shape.gradient_bytes / network.bytes_per_s))
    dense = _ns(shape.dense_flops * (2 if backward else 1) / rate)
    return MoePipeline((far, near, experts, near, far), gradient if backward and shape.gradient_bytes else None, dense)


TILE_START_NS = 500
"""Assumed: what handing a group of tiles over inside a kernel costs."""


def tile_pipeline(shape: MoeShape, machine: Machine, share_milli: int) -> MoePipeline:
    """Return Comet's layer in one node: dispatch, two products, combine, handed over by groups of tiles.

    `share_milli` of the SMs move data for the whole layer, the others compute.
    """
    rows = shape.tokens * shape.top_k
    speed = curve(machine.id, NETWORK).speed(share_milli / 1000)
    link = machine.value("allreduce_bus_bandwidth_bytes_per_s") * speed
    moved = 2 * rows * shape.hidden * (shape.gpus_per_node - 1) / shape.gpus_per_node
    rate = machine.value("peak_flops_bfloat16") * machine.value("gemm_efficiency") * (1 - share_milli / 1000)
    first = (2 if shape.gated else 1) * 2 * rows * shape.hidden * shape.intermediate / rate
    second = 2 * rows * shape.hidden * shape.intermediate / rate
    transfer = Stage("link", TILE_START_NS, _ns(moved / link))
    return MoePipeline(
        (transfer, Stage("compute", TILE_START_NS, _ns(first)), Stage("compute", TILE_START_NS, _ns(second)), transfer)
    )


def without_overlap_ns(shape: MoeShape, machine: Machine) -> int:
    """Return the time of Comet's layer in turn: transfers and products one after the other, each at its full rate."""
    rows = shape.tokens * shape.top_k
    moved = 2 * rows * shape.hidden * (shape.gpus_per_node - 1) / shape.gpus_per_node
    rate = machine.value("peak_flops_bfloat16") * machine.value("gemm_efficiency")
    flops = (3 if shape.gated else 2) * 2 * rows * shape.hidden * shape.intermediate
    transfers = 2 * moved / machine.value("allreduce_bus_bandwidth_bytes_per_s")
    starts = 2 * (machine.value("allreduce_latency_us") + machine.value("kernel_floor_us")) * 1e-6
    return _ns(transfers + flops / rate + starts)


def _ns(seconds: float) -> int:
    return ceil(seconds * 1e9)
