"""A layer of a model on tensor-parallel GPUs as an operator loop: nano-batches, modes by share of SMs, collectives.

Each operator of each nano-batch may run on an eighth to all of the SMs. With share `s` it takes
max(FLOP / (s * peak * efficiency), bytes / (bandwidth * min(1, s / SATURATION))) plus the kernel floor, and holds `s`
of the SMs and the share of memory bandwidth that its bytes over its time need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

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

SATURATION = 0.4
"""Share of SMs that saturates memory bandwidth. Assumed: NanoFlow (arXiv 2408.12757, section 4) reports memory- and
network-bound kernels near their peak with 30 to 40 % of the SMs."""

COLLECTIVE_SHARE_MILLI = 100
"""SMs a collective holds. Assumed: NCCL's default channels on 8 GPUs take about a tenth of an A100 or H100."""


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


def layer_loop(
    model: ModelGraph, machine: Machine, tensor_parallel: int, step: Step, nano_batches: tuple[int, ...]
) -> OperatorLoop:
    """Return one block of the model as an operator loop.

    Args:
        model: the model graph.
        machine: the GPU.
        tensor_parallel: GPUs that share each operator; norms and residuals are repeated on all.
        step: what the forward pass works on.
        nano_batches: sizes in 1/256 of the step; they add up to 256.

    Raises:
        MissingFigure: the machine lacks a number.
    """
    layer = block_layer(model)
    operators: list[Operator] = []
    dependences: list[Dependence] = []
    for position, parts in enumerate(nano_batches):
        made, edges = _nano_batch(layer, machine, tensor_parallel, step, parts / SPLIT, f"{position + 1}.")
        operators += made
        dependences += edges
    streams = (Stream(SM), Stream(MEMORY), *((Stream(LINK),) if tensor_parallel > 1 else ()))
    return OperatorLoop(f"{model.name}/{layer.name}", streams, tuple(operators), tuple(dependences))


def _nano_batch(
    layer: Layer, machine: Machine, tensor_parallel: int, step: Step, share: float, prefix: str
) -> tuple[list[Operator], list[Dependence]]:
    """One nano-batch: operators with modes, an all-reduce after each row-parallel product, edges, the next layer."""
    operators: list[Operator] = []
    edges: list[Dependence] = []
    ends: dict[str, list[str]] = {"input": []}
    for operator in layer.operators:
        pieces = list(_pieces(operator, tensor_parallel, step, share))
        before = [name for source in operator.inputs for name in ends.get(source, [])]
        names = [prefix + operator.name + suffix for suffix, _ in pieces]
        for name, (_, demand) in zip(names, pieces, strict=True):
            operators.append(Operator(name, modes_of(demand, machine, tensor_parallel)))
            edges += [Dependence(source, name) for source in dict.fromkeys(before)]
            before = [name] if pieces[-1][1].link_bytes else before
        ends[operator.name] = names[-1:] if pieces and pieces[-1][1].link_bytes else names or before
    last = operators[-1].name
    first = [name for name in (op.name for op in operators) if not any(edge.target == name for edge in edges)]
    edges += [Dependence(last, name, 1) for name in first]
    return operators, edges


def _pieces(operator: ModelOperator, tensor_parallel: int, step: Step, share: float) -> Iterator[tuple[str, Demand]]:
    """Yield the kernels of an operator: attention by phase, and the all-reduce behind row-parallel products."""
    split = operator.kind not in REPEATED_KINDS and operator.name not in REPEATED
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
    if demand.link_bytes:
        return (_collective(demand.link_bytes, machine, ranks),)
    modes: list[Mode] = []
    for share in SHARES_MILLI:
        mode = _mode(demand, machine, share)
        if not modes or mode.duration_ns < modes[-1].duration_ns:
            modes.append(mode)
    return tuple(modes)


def _mode(demand: Demand, machine: Machine, share_milli: int) -> Mode:
    share = share_milli / FULL
    peak = machine.value("peak_flops_bfloat16") * machine.value("gemm_efficiency")
    bandwidth = machine.value("memory_bandwidth_sustained_bytes_per_s")
    compute_s = demand.flops / (peak * share)
    memory_s = demand.memory_bytes / (bandwidth * min(1.0, share / SATURATION))
    duration_s = max(compute_s, memory_s) + machine.value("kernel_floor_us") * 1e-6
    used = ceil(FULL * demand.memory_bytes / (bandwidth * duration_s))
    return Mode(f"{share_milli // 10}%", _whole_ns(duration_s), {SM: share_milli, MEMORY: min(FULL, used)})


def _collective(buffer_bytes: float, machine: Machine, ranks: int) -> Mode:
    """Ring all-reduce: 2 (n-1)/n of the buffer over the measured bus bandwidth, plus the small-message latency."""
    traffic = 2 * (ranks - 1) / ranks * buffer_bytes
    duration_s = traffic / machine.value("allreduce_bus_bandwidth_bytes_per_s")
    duration_s += machine.value("allreduce_latency_us") * 1e-6
    shares = {SM: COLLECTIVE_SHARE_MILLI, LINK: FULL, MEMORY: _share(3 * buffer_bytes, duration_s, machine)}
    return Mode("ring", _whole_ns(duration_s), shares)


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
    peak / (2 * active parameters) tokens/s (NanoFlow, arXiv 2408.12757, section 3), by the vendor's peak.
    """
    blocks = body.model.block_count
    whole = layer_loop(body.model, body.machine, body.tensor_parallel, body.step, (SPLIT,))
    baseline_s = in_turn_ns(whole) * 1e-9 * blocks
    step_s = body.schedule.period_ns * 1e-9 * blocks
    optimum = body.machine.value("peak_flops_bfloat16") * body.tensor_parallel / (2 * body.model.active_parameters())
    tokens = body.step.tokens
    return (
        Prediction("step_time", step_s, "s"),
        Prediction("throughput", tokens / step_s, "token/s"),
        Prediction("in_turn_throughput", tokens / baseline_s, "token/s"),
        Prediction("optimal_throughput", optimum, "token/s"),
        Prediction("share_of_optimal", tokens / step_s / optimum, "1"),
        Prediction("in_turn_share_of_optimal", tokens / baseline_s / optimum, "1"),
        Prediction("gain", baseline_s / step_s, "1"),
    )
