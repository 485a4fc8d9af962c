"""The line of `treadle overlap`: model, machine and step -> operator loops -> best schedule -> plan and timeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from treadle.codegen.operator_module import engine_options, operator_module
from treadle.codegen.operator_timeline import operator_timeline
from treadle.costmodels.machines import load_machine
from treadle.costmodels.operator_loop import block_layer, layer_loop, predictions
from treadle.driver.kernel import machine_input
from treadle.driver.versions import versions
from treadle.frontends.hf import load_model
from treadle.ir.certificate import Certificate
from treadle.ir.codec import encode
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.model import GroupedGemm, ModelGraph
from treadle.ir.operator.loop import OperatorLoop
from treadle.ir.operator.plan import SPLIT, OverlapBody, Step, label_of
from treadle.ir.operator.schedule import OperatorSchedule
from treadle.ir.plan import Plan, input_from
from treadle.solvers.backend import Limits
from treadle.solvers.overlap.solve import OverlapOptions, schedule

Tell = Callable[[str], None]

SIZES: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((SPLIT,),),
    2: tuple((small, SPLIT - small) for small in range(128, 63, -8)),
    3: ((85, 85, 86), *((a, b, SPLIT - a - b) for a in (80, 64, 48) for b in range(a, (SPLIT - a) // 2 + 1, 16))),
    4: ((64, 64, 64, 64), (56, 56, 72, 72), (48, 64, 64, 80)),
}
"""Sizes tried by number of nano-batches, in 1/256 of the step."""

SCAN = OverlapOptions(searched_modes=0, exact=False, beam_widths=(400, 1000))
"""Sizes are compared by enumeration; a loop that cannot be enumerated is given to CP-SAT at the best size only."""

WHAT_IF = 1.25
"""Factor by which a figure grows when we ask what it would buy."""

LEVERS = {
    "tensor cores": "peak_flops_bfloat16",
    "memory bandwidth": "memory_bandwidth_sustained_bytes_per_s",
    "all-reduce bandwidth": "allreduce_bus_bandwidth_bytes_per_s",
}


class NanoBatchNumber(TreadleError):
    """A number of nano-batches that is not tried."""

    code = "TRD181"
    template = "{found} nano-batches are not planned"
    hint = "give --nano-batches auto"


class GroupTooLarge(TreadleError):
    """More GPUs in a tensor-parallel group than all-reduce figures are for."""

    code = "TRD182"
    template = "tensor parallelism {found} on `{machine}`: the all-reduce figures are for 1 to {most} GPUs of a node"
    hint = "give --tensor-parallel up to the GPUs of a node"


class ExpertSpread(TreadleError):
    """Experts cannot be spread over so many GPUs."""

    code = "TRD186"
    template = "experts of `{model}` over {found} GPUs: {reason}"
    hint = "give --expert-parallel {nearest}"


@dataclass(frozen=True, slots=True)
class OverlapRequest:
    """A step of a model on a tensor-parallel group; `nano_batches` None tries every known number."""

    machine: str
    tensor_parallel: int
    step: Step
    nano_batches: int | None = None
    options: OverlapOptions = field(default_factory=lambda: OverlapOptions(limits=Limits(deterministic_s=1.0)))
    sequence_parallel: bool | None = None
    """Norms on each GPU's own rows; None tries both."""
    expert_parallel: int = 1
    """GPUs that experts are spread over; 1 cuts them like dense products."""

    @property
    def ways(self) -> tuple[bool, ...]:
        """Whether norms run on each GPU's own rows: what is tried. One GPU has nothing to divide."""
        if self.tensor_parallel == 1:
            return (False,)
        if self.expert_parallel > 1:
            return (True,)
        return (True, False) if self.sequence_parallel is None else (self.sequence_parallel,)


@dataclass(frozen=True, slots=True)
class Found:
    """The best schedule of one number and sizes of nano-batches."""

    sizes: tuple[int, ...]
    sequence_parallel: bool
    schedule: OperatorSchedule
    certificate: Certificate

    @property
    def period_ns(self) -> int:
        """Time of a layer."""
        return self.schedule.period_ns


def plan_overlap(model_path: Path, request: OverlapRequest, tell: Tell) -> Plan:
    """Return the best plan over the sizes tried, not sealed yet.

    Raises:
        TreadleError: bad input; NanoBatchNumber, GroupTooLarge; MissingFigure.
    """
    machine, model = _checked(request), load_model(model_path)
    _check_spread(model, request)
    best, tried = best_overlap(model, machine, request, tell)
    body = OverlapBody(
        model=model,
        machine=machine,
        tensor_parallel=request.tensor_parallel,
        step=request.step,
        nano_batches=best.sizes,
        loop=_loop(model, machine, request, best.sizes, best.sequence_parallel),
        schedule=best.schedule,
        alternatives=tried,
        sequence_parallel=best.sequence_parallel,
        expert_parallel=request.expert_parallel,
    )
    file = model_path / "config.json" if model_path.is_dir() else model_path
    inputs = (input_from("model", file), machine_input(machine))
    return Plan("overlap", inputs, encode(request), versions(), body, (best.certificate,), predictions(body))


def _checked(request: OverlapRequest) -> Machine:
    if request.nano_batches is not None and request.nano_batches not in SIZES:
        raise NanoBatchNumber(found=request.nano_batches, expected=f"one of {', '.join(map(str, SIZES))}, or auto")
    if request.step.training and (request.nano_batches or 1) > 1:
        raise NanoBatchNumber(found=request.nano_batches, expected="1: training overlaps forward and backward")
    machine = load_machine(request.machine)
    most = int(machine.value("gpus_per_node"))
    if not 1 <= request.tensor_parallel <= most:
        raise GroupTooLarge(found=request.tensor_parallel, machine=machine.id, most=most)
    return machine


def _check_spread(model: ModelGraph, request: OverlapRequest) -> None:
    """Raise ExpertSpread where experts do not divide among whole groups of GPUs."""
    gpus, ways = request.expert_parallel, request.tensor_parallel
    if gpus == 1:
        return
    details = (operator.detail for operator in block_layer(model).operators)
    experts = next((detail.experts for detail in details if isinstance(detail, GroupedGemm)), 0)
    legal = [count for count in range(ways, experts + 1, ways) if experts % count == 0 and count > 1]
    if gpus in legal:
        return
    nearest = min(legal, key=lambda count: (abs(count - gpus), count)) if legal else 1
    reason = f"it has {experts}, which divide among whole groups of {ways}" if experts else "it has none in its blocks"
    raise ExpertSpread(model=model.name, found=gpus, reason=reason, nearest=nearest)


def _loop(
    model: ModelGraph, machine: Machine, request: OverlapRequest, sizes: tuple[int, ...], apart: bool
) -> OperatorLoop:
    ways, experts = request.tensor_parallel, request.expert_parallel
    return layer_loop(model, machine, ways, request.step, sizes, apart, experts)


def best_overlap(
    model: ModelGraph, machine: Machine, request: OverlapRequest, tell: Tell
) -> tuple[Found, dict[str, int]]:
    """Try every size and both ways to run norms quickly, then search the best thoroughly; return it and all periods."""
    numbers = SIZES if request.nano_batches is None else {request.nano_batches: SIZES[request.nano_batches]}
    if request.step.training:
        numbers = {1: SIZES[1]}
    tried: list[Found] = []
    for number, apart in product(numbers, request.ways):
        for sizes in numbers[number]:
            loop = _loop(model, machine, request, sizes, apart)
            least = min((one.period_ns for one in tried), default=None)
            found = Found(sizes, apart, *schedule(loop, replace(SCAN, below_ns=least)))
            bound = found.certificate["period"].bound or 0
            if least is not None and bound >= least:
                tell(f"{label_of(sizes, apart)}: at least {bound / 1000:.0f} us a layer")
                continue
            tried.append(found)
            tell(f"{label_of(sizes, apart)}: {found.period_ns / 1000:.0f} us a layer")
    tried += _thorough(model, machine, request, tried)
    tried.sort(key=lambda one: -one.period_ns)
    return tried[-1], {label_of(one.sizes, one.sequence_parallel): one.period_ns for one in tried}


THOROUGH = 3
"""Sizes of three and more nano-batches that are searched thoroughly: their quick schedules say little."""


def _thorough(model: ModelGraph, machine: Machine, request: OverlapRequest, tried: list[Found]) -> list[Found]:
    """Search the best few again; two nano-batches are proven, and their quick schedules are near the least."""
    ranked = sorted(tried, key=lambda one: one.period_ns)
    chosen = ranked[:1] if len(ranked[0].sizes) < 3 else [one for one in ranked if len(one.sizes) > 2][:THOROUGH]
    found: list[Found] = []
    for one in chosen:
        loop = _loop(model, machine, request, one.sizes, one.sequence_parallel)
        found.append(Found(one.sizes, one.sequence_parallel, *schedule(loop, request.options)))
    return found


def what_more_buys(body: OverlapBody) -> dict[str, int]:
    """Return the period in ns with a quarter more of each resource, at the plan's nano-batches."""
    bought: dict[str, int] = {}
    for name, figure in LEVERS.items():
        if body.tensor_parallel == 1 and figure.startswith("allreduce"):
            continue
        more = tuple(replace(f, value=f.value * WHAT_IF) if f.name == figure else f for f in body.machine.figures)
        machine = replace(body.machine, figures=more)
        loop = layer_loop(
            body.model, machine, body.tensor_parallel, body.step, body.nano_batches, body.sequence_parallel,
            body.expert_parallel,
        )  # fmt: skip
        bought[name] = schedule(loop, SCAN)[0].period_ns
    return bought


def overlap_files(body: OverlapBody) -> dict[str, bytes]:
    """Return the files of an overlap plan: timeline, options of engines, and a PyTorch module that runs the layers."""
    return {
        "timeline.json": operator_timeline(body.loop, body.schedule).encode(),
        "engine_options.json": engine_options(body).encode(),
        "overlap.py": operator_module(body).encode(),
    }
