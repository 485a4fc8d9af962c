"""A layer of a model on tensor-parallel GPUs as an operator loop: nano-batches, modes by share of SMs, collectives.

Each operator of each nano-batch may run on an eighth to all of the SMs. With share `s` it takes
max(FLOP / (s * peak * efficiency), bytes / (bandwidth * speed(s))) plus the kernel floor, where `speed` is the curve of
memory-bound kernels (`costmodels.interference`), and holds `s` of the SMs and the share of memory bandwidth that its
bytes over its time need. A residual sum is fused with the norm behind it. The operators of a nano-batch run in launch
order, as on one stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from treadle.costmodels.interference import MEMORY_BOUND, NETWORK, curve
from treadle.ir.machine import Machine
from treadle.ir.model import Attention, Layer, ModelGraph, OperatorKind, Role
from treadle.ir.model import Operator as ModelOperator
from treadle.ir.operator.loop import FULL, Dependence, Mode, Operator, OperatorLoop, Stream
from treadle.ir.operator.plan import SPLIT, OverlapBody, Step
from treadle.ir.plan import Prediction
from treadle.ir.symbolic import evaluate
from treadle.ir.workload import Phase

SM, MEMORY, LINK = "sm", "memory", "link"

SHARES_MILLI = (125, 250, 375, 500, 625, 750, 875, 1000)
"""SM shares a kernel may be launched on."""

COLLECTIVE_SHARES_MILLI = (50, 100, 200, 400, 700, 1000)
"""SM shares a collective may hold; those no faster than a smaller one are dropped."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one operator of one nano-batch does on one GPU; `link_bytes` are those of an all-reduce's buffer."""

    flops: float
    memory_bytes: float
    link_bytes: float = 0


def block_layer(model: ModelGraph) -> Layer:
    """Return the decoder block that the stack repeats most."""
    blocks = [layer for layer in model.layers if layer.role is Role.BLOCK]
    return max(blocks, key=lambda layer: model.counts[layer.name])


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch of a nano-batch: its name, what it does on one GPU, and the model's operators in it."""

    name: str
    demand: Demand
    operators: tuple[str, ...]


def layer_loop(
    model: ModelGraph,
    machine: Machine,
    tensor_parallel: int,
    step: Step,
    nano_batches: tuple[int, ...],
    sequence_parallel: bool = False,
) -> OperatorLoop:
    """Return one block of the model as an operator loop.

    Args:
        model: the model graph.
        machine: the GPU.
        tensor_parallel: GPUs that share each operator.
        step: what the forward pass works on.
        nano_batches: sizes in 1/256 of the step; they add up to 256.
        sequence_parallel: norms and residuals on each GPU's own rows, between the halves of an all-reduce (Megatron
            sequence parallelism, TokenWeave's fused all-reduce and norm); else every GPU repeats them on all rows.

    Raises:
        MissingFigure: the machine lacks a number.
    """
    layer = block_layer(model)
    operators: list[Operator] = []
    dependences: list[Dependence] = []
    for position, parts in enumerate(nano_batches):
        launched = kernels(layer, tensor_parallel, step, parts / SPLIT, sequence_parallel)
        names = [f"{position + 1}.{kernel.name}" for kernel in launched]
        operators += [
            Operator(name, modes_of(kernel.demand, machine, tensor_parallel))
            for name, kernel in zip(names, launched, strict=True)
        ]
        dependences += [Dependence(source, target) for source, target in pairwise(names)]
        dependences.append(Dependence(names[-1], names[0], 1))
    streams = (Stream(SM), Stream(MEMORY), *((Stream(LINK),) if tensor_parallel > 1 else ()))
    return OperatorLoop(f"{model.name}/{layer.name}", streams, tuple(operators), tuple(dependences))


def kernels(
    layer: Layer, tensor_parallel: int, step: Step, share: float, sequence_parallel: bool = False
) -> list[Kernel]:
    """Return the kernels of a nano-batch in launch order, with an all-reduce after each row-parallel product.

    The norm that begins the layer is fused with the residual sum that ended the one before.
    """
    made: list[tuple[Kernel, OperatorKind]] = []
    for operator in layer.operators:
        for suffix, demand in _pieces(operator, tensor_parallel, step, share, sequence_parallel):
            kernel = Kernel(operator.name + suffix, demand, () if suffix == ".reduce" else (operator.name,))
            made.append((kernel, OperatorKind.GEMM if suffix == ".reduce" else operator.kind))
    if made[0][1] is OperatorKind.NORM and made[-1][1] is OperatorKind.RESIDUAL:
        made = [*made[1:], made[0]]
    launched: list[Kernel] = []
    before: OperatorKind | None = None
    for kernel, kind in made:
        if kind is OperatorKind.NORM and before is OperatorKind.RESIDUAL:
            launched[-1] = _fused(launched[-1], kernel)
        else:
            launched.append(kernel)
        before = kind
    return launched


def _fused(residual: Kernel, norm: Kernel) -> Kernel:
    """One kernel for both: the norm does not read again what the sum writes (half of what a norm moves)."""
    demand = Demand(
        residual.demand.flops + norm.demand.flops, residual.demand.memory_bytes + norm.demand.memory_bytes / 2
    )
    return Kernel(f"{residual.name}+{norm.name}", demand, (*residual.operators, *norm.operators))


def _pieces(
    operator: ModelOperator, tensor_parallel: int, step: Step, share: float, sequence_parallel: bool
) -> Iterator[tuple[str, Demand]]:
    """Yield the kernels of an operator: attention by phase, and the all-reduce behind row-parallel products."""
    repeated = REPEATED_KINDS[2:] if sequence_parallel else REPEATED_KINDS
    split = operator.kind not in repeated and operator.name not in REPEATED
    divisor = tensor_parallel if split else 1
    prefill = _amounts(operator, Phase.PREFILL, step.prefill_sequences * share, step.prompt_tokens, step.prompt_tokens)
    decode = _amounts(operator, Phase.DECODE, step.decode_sequences * share, 1, step.context_tokens)
    if isinstance(operator.detail, Attention):
        for suffix, (flops, _, moved, _) in ((".prefill", prefill), (".decode", decode)):
            if flops:
                yield suffix, Demand(flops / divisor, moved / divisor)
        return
    flops, moved = prefill[0] + decode[0], max(prefill[1], decode[1]) + prefill[2] + decode[2]
    if not moved:
        return
    yield "", Demand(flops / divisor, moved / divisor)
    if tensor_parallel > 1 and operator.name in REDUCED:
        yield ".reduce", Demand(0, 0, link_bytes=prefill[3] + decode[3])


REPEATED_KINDS = (OperatorKind.NORM, OperatorKind.RESIDUAL, OperatorKind.ROUTER)
"""Kinds of operators that every GPU of the group runs whole."""

REPEATED = ("router", "latent_down", "combine")
"""Operators by name that every GPU runs whole: all heads need the latent; experts are summed at full width."""

REDUCED = ("output", "out_projection", "down", "combine")
"""Operators whose results are partial sums: what writes into the residual stream (Megatron's row-parallel products)."""


def _amounts(
    operator: ModelOperator, phase: Phase, batch: float, seq: int, kv: int
) -> tuple[float, float, float, float]:
    """Return FLOP, weight bytes, other bytes and written bytes of an operator in a phase; zeros without sequences."""
    if not batch or not operator.runs_in(phase):
        return 0, 0, 0, 0
    values = {"batch": 1, "seq": seq, "kv": kv, "scored": 1, "source": 0}
    written = float(evaluate(operator.written_bytes, **values)) * batch
    moved = float(evaluate(operator.read_bytes, **values)) * batch + written
    weights = float(evaluate(operator.weight_bytes, **{**values, "batch": max(1, ceil(batch))}))
    return float(evaluate(operator.flops, **values)) * batch, weights, moved, written


def modes_of(demand: Demand, machine: Machine, ranks: int) -> tuple[Mode, ...]:
    """Return the modes of a kernel, least share first, without those that are no faster than a smaller one."""
    modes: list[Mode] = []
    for share in COLLECTIVE_SHARES_MILLI if demand.link_bytes else SHARES_MILLI:
        mode = _collective(demand, machine, ranks, share) if demand.link_bytes else _mode(demand, machine, share)
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


def _collective(demand: Demand, machine: Machine, ranks: int, share_milli: int) -> Mode:
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
    compute / (2 * active parameters) tokens/s with the rate that dense products reach (NanoFlow, arXiv 2408.12757,
    equation 5, takes CUTLASS's); beside it stands the same with the vendor's peak, which no kernel reaches.
    """
    blocks = body.model.block_count
    whole = layer_loop(body.model, body.machine, body.tensor_parallel, body.step, (SPLIT,), body.sequence_parallel)
    baseline_s = in_turn_ns(whole) * 1e-9 * blocks
    step_s = body.schedule.period_ns * 1e-9 * blocks
    peak = body.machine.value("peak_flops_bfloat16") * body.tensor_parallel / (2 * body.model.active_parameters())
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
    )
