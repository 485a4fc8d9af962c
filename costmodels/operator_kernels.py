"""Kernels of a layer on one tensor-parallel GPU: what each computes, moves and sends, in launch order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from treadle.ir.model import Attention, Layer, OperatorKind
from treadle.ir.model import Operator as ModelOperator
from treadle.ir.operator.plan import Step
from treadle.ir.symbolic import evaluate
from treadle.ir.workload import Phase


@dataclass(frozen=True, slots=True)
class Demand:
    """What one operator of one nano-batch does on one GPU.

    `link_bytes` are those of an all-reduce's buffer; `sent_bytes` leave the GPU by NVLink, `network_bytes` by the
    network, and as many arrive (an exchange between all).
    """

    flops: float
    memory_bytes: float
    link_bytes: float = 0
    sent_bytes: float = 0
    network_bytes: float = 0

    @property
    def collective(self) -> bool:
        """Whether it moves data between GPUs."""
        return bool(self.link_bytes or self.sent_bytes or self.network_bytes)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch of a nano-batch: its name, what it does on one GPU, and the model's operators in it."""

    name: str
    demand: Demand
    operators: tuple[str, ...]
    kind: OperatorKind | None = None
    """Kind of the first operator; None for a collective."""


def kernels(
    layer: Layer, tensor_parallel: int, step: Step, share: float, sequence_parallel: bool = False
) -> list[Kernel]:
    """Return the kernels of a nano-batch in launch order, with an all-reduce after each row-parallel product.

    The norm that begins the layer is fused with the residual sum that ended the one before.
    """
    made: list[Kernel] = []
    for operator in layer.operators:
        for suffix, demand in _pieces(operator, tensor_parallel, step, share, sequence_parallel):
            reduce = suffix == ".reduce"
            names, kind = ((), None) if reduce else ((operator.name,), operator.kind)
            made.append(Kernel(operator.name + suffix, demand, names, kind))
    if made[0].kind is OperatorKind.NORM and made[-1].kind is OperatorKind.RESIDUAL:
        made = [*made[1:], made[0]]
    launched: list[Kernel] = []
    for kernel in made:
        if kernel.kind is OperatorKind.NORM and launched and launched[-1].kind is OperatorKind.RESIDUAL:
            launched[-1] = _fused(launched[-1], kernel)
        else:
            launched.append(kernel)
    return launched


def _fused(residual: Kernel, norm: Kernel) -> Kernel:
    """One kernel for both: the norm does not read again what the sum writes (half of what a norm moves)."""
    demand = Demand(
        residual.demand.flops + norm.demand.flops, residual.demand.memory_bytes + norm.demand.memory_bytes / 2
    )
    return Kernel(f"{residual.name}+{norm.name}", demand, (*residual.operators, *norm.operators), OperatorKind.NORM)


def _pieces(
    operator: ModelOperator, tensor_parallel: int, step: Step, share: float, sequence_parallel: bool
) -> Iterator[tuple[str, Demand]]:
    """Yield the kernels of an operator: attention by phase, and the all-reduce behind row-parallel products."""
    repeated = REPEATED_KINDS[2:] if sequence_parallel else REPEATED_KINDS
    split = operator.kind not in repeated and operator.name not in REPEATED
    divisor = tensor_parallel if split else 1
    prefill, decode = _both(operator, step, share)
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


def weight_bytes(layer: Layer, names: tuple[str, ...], step: Step, share: float) -> float:
    """Return the weights that operators of a layer read, uncut; of a part `share` of a step (or of several steps)."""
    total = 0.0
    for operator in layer.operators:
        if operator.name in names:
            amounts = _both(operator, step, share)
            total += max(amounts[0][1], amounts[1][1])
    return total


def _both(
    operator: ModelOperator, step: Step, share: float
) -> tuple[tuple[float, float, float, float], tuple[float, float, float, float]]:
    """Amounts of an operator for the prompts and for the decoding sequences."""
    return (
        _amounts(operator, Phase.PREFILL, step.prefill_sequences * share, step.prompt_tokens, step.prompt_tokens),
        _amounts(operator, Phase.DECODE, step.decode_sequences * share, 1, step.context_tokens),
    )


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
