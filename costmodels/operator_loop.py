"""A layer of a model on tensor-parallel GPUs as an operator loop: nano-batches, modes by share of SMs, collectives.

Each operator of each nano-batch may run on an eighth to all of the SMs. With share `s` it takes
max(FLOP / (s * peak * efficiency), bytes / (bandwidth * speed(s))) plus the kernel floor, where `speed` is the curve of
memory-bound kernels (`costmodels.interference`), and holds `s` of the SMs and the share of memory bandwidth that its
bytes over its time need. A residual sum is fused with the norm behind it. The operators of a nano-batch run in launch
order, as on one stream.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import ceil

from treadle.costmodels.interference import MEMORY_BOUND, NETWORK, curve
from treadle.costmodels.operator_experts import Spread, spread_kernels, spread_of
from treadle.costmodels.operator_kernels import Demand, Kernel, kernels
from treadle.costmodels.training_lanes import BACKWARD, FORWARD, backward_kernels
from treadle.ir.machine import Machine
from treadle.ir.model import Layer, ModelGraph, Role
from treadle.ir.operator.loop import FULL, Dependence, Mode, Operator, OperatorLoop, Stream
from treadle.ir.operator.plan import SPLIT, OverlapBody, Step
from treadle.ir.operator.schedule import latency_ns
from treadle.ir.plan import Prediction

SM, MEMORY, LINK, NETWORK_STREAM = "sm", "memory", "link", "network"

SHARES_MILLI = (125, 250, 375, 500, 625, 750, 875, 1000)
"""SM shares a kernel may be launched on."""

COLLECTIVE_SHARES_MILLI = (50, 100, 200, 400, 700, 1000)
"""SM shares a collective may hold; those no faster than a smaller one are dropped."""


def block_layer(model: ModelGraph) -> Layer:
    """Return the decoder block that the stack repeats most."""
    blocks = [layer for layer in model.layers if layer.role is Role.BLOCK]
    return max(blocks, key=lambda layer: model.counts[layer.name])


def layer_loop(
    model: ModelGraph,
    machine: Machine,
    tensor_parallel: int,
    step: Step,
    nano_batches: tuple[int, ...],
    sequence_parallel: bool = False,
    expert_parallel: int = 1,
) -> OperatorLoop:
    """Return one block of the model as an operator loop.

    Args:
        model: the model graph.
        machine: the GPU.
        tensor_parallel: GPUs that share each operator.
        step: what the forward pass works on.
        nano_batches: sizes in 1/256 of the step; they add up to 256. A training step has one, and a lane each way.
        sequence_parallel: norms and residuals on each GPU's own rows, between the halves of an all-reduce (Megatron
            sequence parallelism, TokenWeave's fused all-reduce and norm); else every GPU repeats them on all rows.
        expert_parallel: GPUs that the experts are spread over, each group of `tensor_parallel` with a step of its own;
            1 cuts experts like dense products.

    Raises:
        MissingFigure: the machine lacks a number.
    """
    layer = block_layer(model)
    operators: list[Operator] = []
    dependences: list[Dependence] = []
    spread = spread_of(machine, tensor_parallel, expert_parallel) if expert_parallel > 1 else None
    for lane, launched in _lanes(layer, tensor_parallel, step, nano_batches, sequence_parallel, spread):
        names = [f"{lane}.{kernel.name}" for kernel in launched]
        operators += [
            Operator(name, modes_of(kernel.demand, machine, tensor_parallel))
            for name, kernel in zip(names, launched, strict=True)
        ]
        dependences += [Dependence(source, target) for source, target in pairwise(names)]
        dependences.append(Dependence(names[-1], names[0], 1))
    links = [LINK] if max(tensor_parallel, expert_parallel) > 1 else []
    links += [NETWORK_STREAM] if spread is not None and spread.gpus > spread.gpus_per_node else []
    streams = tuple(Stream(name) for name in (SM, MEMORY, *links))
    return OperatorLoop(f"{model.name}/{layer.name}", streams, tuple(operators), tuple(dependences))


def _lanes(
    layer: Layer,
    tensor_parallel: int,
    step: Step,
    nano_batches: tuple[int, ...],
    sequence_parallel: bool,
    spread: Spread | None,
) -> list[tuple[str, list[Kernel]]]:
    """Return what runs side by side: nano-batches, or forward of one microbatch and backward of the one before."""

    def part(share: float) -> list[Kernel]:
        made = kernels(layer, tensor_parallel, step, share, sequence_parallel)
        return made if spread is None else spread_kernels(made, layer, step, share, spread)

    if not step.training:
        return [(str(position), part(parts / SPLIT)) for position, parts in enumerate(nano_batches, 1)]
    forward = part(1.0)
    if spread is not None:
        return [(FORWARD, forward), (BACKWARD, backward_kernels(forward, 0.0, mirrored=True))]
    reduced = max((kernel.demand.link_bytes for kernel in forward), default=0.0)
    return [(FORWARD, forward), (BACKWARD, backward_kernels(forward, reduced))]


def modes_of(demand: Demand, machine: Machine, ranks: int) -> tuple[Mode, ...]:
    """Return the modes of a kernel, least share first, without those that are no faster than a smaller one."""
    modes: list[Mode] = []
    make = _mode if not demand.collective else _exchange if not demand.link_bytes else partial(_collective, ranks)
    for share in COLLECTIVE_SHARES_MILLI if demand.collective else SHARES_MILLI:
        mode = make(demand, machine, share)
        if not modes or mode.duration_ns < modes[-1].duration_ns:
            modes.append(mode)
    return tuple(modes)


def _mode(demand: Demand, machine: Machine, share_milli: int) -> Mode:
    share = share_milli / FULL
    peak = machine.value("peak_flops_bfloat16") * machine.value("gemm_efficiency")
    bandwidth = machine.value("memory_bandwidth_sustained_bytes_per_s")
    compute_s = demand.flops / (peak * share)
    memory_s = demand.memory_bytes / (bandwidth * curve(machine.id, MEMORY_BOUND).speed(share))
    duration_s = max(compute_s, memory_s) + machine.value("kernel_floor_us") * 1e-6
    used = ceil(FULL * demand.memory_bytes / (bandwidth * duration_s))
    return Mode(f"{share_milli // 10}%", _whole_ns(duration_s), {SM: share_milli, MEMORY: min(FULL, used)})


def _exchange(demand: Demand, machine: Machine, share_milli: int) -> Mode:
    """All-to-all: what leaves by NVLink and by the network, side by side, plus the small-message latency."""
    speed = curve(machine.id, NETWORK).speed(share_milli / FULL)
    inside_s = demand.sent_bytes / machine.value("nvlink_bandwidth_bytes_per_s")
    across_s = demand.network_bytes / machine.value("network_bandwidth_bytes_per_s") if demand.network_bytes else 0.0
    duration_s = max(inside_s, across_s) / speed + machine.value("allreduce_latency_us") * 1e-6
    shares = {SM: share_milli, LINK: min(FULL, ceil(FULL * inside_s / duration_s))}
    if demand.network_bytes:
        shares[NETWORK_STREAM] = min(FULL, ceil(FULL * across_s / duration_s))
    moved = _share(2 * (demand.sent_bytes + demand.network_bytes), duration_s, machine)
    return Mode(f"exchange {share_milli // 10}%", _whole_ns(duration_s), {**shares, MEMORY: moved})


def _collective(ranks: int, demand: Demand, machine: Machine, share_milli: int) -> Mode:
    """Ring all-reduce: 2 (n-1)/n of the buffer over the measured bus bandwidth, plus the small-message latency."""
    traffic = 2 * (ranks - 1) / ranks * demand.link_bytes
    speed = curve(machine.id, NETWORK).speed(share_milli / FULL)
    duration_s = traffic / (machine.value("allreduce_bus_bandwidth_bytes_per_s") * speed)
    duration_s += machine.value("allreduce_latency_us") * 1e-6
    link = FULL if speed == 1 else ceil(FULL * speed)
    moved = _share(3 * demand.link_bytes, duration_s, machine)
    return Mode(f"ring {share_milli // 10}%", _whole_ns(duration_s), {SM: share_milli, LINK: link, MEMORY: moved})


def _whole_ns(duration_s: float) -> int:
    """Round up to whole microseconds: kernels are not timed more finely, and schedules stay readable."""
    return max(1, ceil(duration_s * 1e6)) * 1000


def _share(moved_bytes: float, duration_s: float, machine: Machine) -> int:
    bandwidth = machine.value("memory_bandwidth_sustained_bytes_per_s")
    return min(FULL, ceil(FULL * moved_bytes / (bandwidth * duration_s)))


def in_turn_ns(loop: OperatorLoop) -> int:
    """Return the time of all operators one after the other, each in its fastest mode."""
    return sum(min(mode.duration_ns for mode in operator.modes) for operator in loop.operators)


def predictions(body: OverlapBody) -> tuple[Prediction, ...]:
    """Return the figures of an overlap plan.

    All blocks are taken to be like the planned one; embedding and head are left out. The optimum is
    compute / (2 * active parameters) tokens/s (6 in training) with the rate that dense products reach (NanoFlow, arXiv
    2408.12757, equation 5, takes CUTLASS's); beside it stands the same with the vendor's peak, which no kernel reaches.
    """
    blocks = body.model.block_count
    ways = body.tensor_parallel, body.step, (SPLIT,), body.sequence_parallel, body.expert_parallel
    whole = layer_loop(body.model, body.machine, *ways)
    baseline_s = in_turn_ns(whole) * 1e-9 * blocks
    step_s = body.schedule.period_ns * 1e-9 * blocks
    per_token = (6 if body.step.training else 2) * body.model.active_parameters()
    peak = body.machine.value("peak_flops_bfloat16") * body.tensor_parallel / per_token
    optimum = peak * body.machine.value("gemm_efficiency")
    tokens = body.step.tokens
    return (
        Prediction("step_time", step_s, "s"),
        Prediction("throughput", tokens / step_s, "token/s"),
        Prediction("in_turn_throughput", tokens / baseline_s, "token/s"),
        Prediction("optimal_throughput", optimum, "token/s"),
        Prediction("share_of_optimal", tokens / step_s / optimum, "1"),
        Prediction("in_turn_share_of_optimal", tokens / baseline_s / optimum, "1"),
        Prediction("share_of_vendor_peak", tokens / step_s / peak, "1"),
        Prediction("gain", baseline_s / step_s, "1"),
        Prediction("layer_latency", latency_ns(body.loop, body.schedule) * 1e-9, "s"),
    )
