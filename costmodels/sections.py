"""Time and on-chip memory of a section, the figures of a cut, and the bound that potentials prove.

A section takes the longer of its compute and its traffic with memory, plus the filling of its pipeline and a
reconfiguration where the configuration changes. In turn: one task on all units. Pipeline: units in proportion to work
within a phase and to the square root of work between phases (what minimises the sum of phase times under a fixed
allocation); an operand needed whole ends a phase and is buffered whole. A tensor that is not held on chip is written
once and read once by every section that needs it.

After InTAR (arXiv 2502.08807), SN40L (arXiv 2405.07518) and Tempus; the formulas are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, combinations
from math import ceil, sqrt
from pathlib import Path

from treadle.costmodels.machines import load_machine_file, parse_machine
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import UnknownName
from treadle.ir.machine import Machine
from treadle.ir.plan import Prediction
from treadle.ir.sections.graph import Section, SectionMode, SectionsBody, Task, TaskGraph

LONGEST = 16
"""Tasks of a pipeline at most."""


class NoModeFits(TreadleError):
    """A task that no mode can run in the memory on chip."""

    code = "TRD183"
    template = "task `{task}` fits no mode on `{machine}`: needs {need} bytes on chip, there are {capacity}"
    hint = "take a machine with more memory on chip, or a smaller --batch or --tokens"


@dataclass(frozen=True, slots=True)
class Rates:
    """Figures of a machine as the formulas use them."""

    units: int
    stream_units: int
    flops_per_unit_ns: float
    bytes_per_ns: float
    on_chip_bytes: int
    reconfiguration_ns: int
    tile_rows: int
    buffer_bytes: int
    stream_buffer_bytes: int


def rates_of(machine: Machine) -> Rates:
    """Return the figures of a section machine; raises MissingFigure."""
    return Rates(
        int(machine.value("compute_units")),
        int(machine.value("stream_units")),
        machine.value("flops_per_unit_per_s") * machine.value("compute_efficiency") * 1e-9,
        machine.value("memory_bandwidth_bytes_per_s") * 1e-9,
        int(machine.value("on_chip_bytes")),
        ceil(machine.value("reconfiguration_s") * 1e9),
        int(machine.value("tile_rows")),
        int(machine.value("task_buffer_bytes")),
        int(machine.value("stream_buffer_bytes")),
    )


def section_machine(name: str) -> Machine:
    """Return a spatial machine by id, or from a TOML file of the user."""
    if name.endswith(".toml") or "/" in name:
        return load_machine_file(Path(name))
    folder = files("treadle.costmodels").joinpath("data/section_machines")
    known = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    if name not in known:
        raise UnknownName(kind="machine for sections", name=name, expected=f"one of {', '.join(known)}, or a TOML file")
    return parse_machine(folder.joinpath(f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml")


@dataclass(frozen=True, slots=True)
class Base:
    """What a section costs whatever is held: compute and filling, weights, buffers, operands and results."""

    compute_ns: float
    fill_ns: float
    weight_bytes: int
    buffer_bytes: int
    operands: tuple[tuple[str, bool], ...]
    """Tensors from outside the section, and whether they are needed whole."""
    made: frozenset[str]


class SectionCosts:
    """Costs of all sections of a task graph on a machine; what does not depend on held tensors is computed once."""

    def __init__(self, graph: TaskGraph, machine: Machine) -> None:
        self.graph, self.machine, self.rates = graph, machine, rates_of(machine)
        self._bases: dict[tuple[int, int, SectionMode], Base] = {}

    def base(self, first: int, end: int, mode: SectionMode) -> Base:
        """Return the part of a section's cost that does not depend on what is held."""
        key = first, end, mode
        if key not in self._bases:
            self._bases[key] = self._pipeline(first, end) if mode is SectionMode.PIPELINE else self._single(first, mode)
        return self._bases[key]

    def _single(self, first: int, mode: SectionMode) -> Base:
        task, rates = self.graph.tasks[first], self.rates
        units = rates.stream_units if mode is SectionMode.STREAM else rates.units
        buffers = rates.stream_buffer_bytes if mode is SectionMode.STREAM else rates.buffer_bytes
        compute = task.flops / (units * rates.flops_per_unit_ns)
        operands = tuple((operand.tensor, False) for operand in task.operands)
        return Base(compute, 0.0, task.weight_bytes, buffers, operands, frozenset({task.name}))

    def _pipeline(self, first: int, end: int) -> Base:
        tasks, rates = self.graph.tasks[first:end], self.rates
        phases = _phases(tasks)
        units = _allocation(tasks, phases, rates.units)
        times = [task.flops / (count * rates.flops_per_unit_ns) for task, count in zip(tasks, units, strict=True)]
        longest: dict[int, float] = {}
        for phase, time in zip(phases, times, strict=True):
            longest[phase] = max(longest.get(phase, 0.0), time)
        fill = sum(time / max(1, task.rows // rates.tile_rows) for task, time in zip(tasks, times, strict=True))
        made = {task.name: position for position, task in enumerate(tasks)}
        outside: dict[str, bool] = {}
        buffers = len(tasks) * rates.buffer_bytes
        for position in made.values():
            buffers += _handover_bytes(tasks, phases, position, rates.tile_rows)
        for task in tasks:
            for operand in task.operands:
                if operand.tensor not in made:
                    outside[operand.tensor] = outside.get(operand.tensor, False) or operand.whole
        weights = sum(task.weight_bytes for task in tasks)
        return Base(sum(longest.values()), fill, weights, buffers, tuple(outside.items()), frozenset(made))

    def cost_ns(self, section: Section, before: frozenset[str], changed: bool) -> int | None:
        """Return the time of a section, or None when it does not fit on chip.

        Args:
            section: what runs, and what is held after it.
            before: tensors held on chip when it begins.
            changed: the section before had another configuration.
        """
        base, size, rates = self.base(section.first, section.end, section.mode), self.graph.size_bytes, self.rates
        after = frozenset(section.held)
        need = base.buffer_bytes + sum(size[tensor] for tensor in before | after)
        need += sum(size[tensor] for tensor, whole in base.operands if whole and tensor not in before)
        if need > rates.on_chip_bytes:
            return None
        moved = self.moved_bytes(section, before)
        reconfigured = rates.reconfiguration_ns if changed or section.mode is SectionMode.PIPELINE else 0
        return ceil(max(base.compute_ns, moved / rates.bytes_per_ns) + base.fill_ns) + reconfigured

    def moved_bytes(self, section: Section, before: frozenset[str]) -> int:
        """Return the bytes between a section and memory: weights, operands not held, results and evicted tensors."""
        base, size = self.base(section.first, section.end, section.mode), self.graph.size_bytes
        read = sum(size[tensor] for tensor, _ in base.operands if tensor not in before)
        left = self.graph.live[section.end] & (base.made | before) - frozenset(section.held)
        return base.weight_bytes + read + sum(size[tensor] for tensor in left)

    def need_bytes(self, section: Section, before: frozenset[str]) -> int:
        """Return the memory on chip that a section needs."""
        base, size = self.base(section.first, section.end, section.mode), self.graph.size_bytes
        need = base.buffer_bytes + sum(size[tensor] for tensor in before | frozenset(section.held))
        return need + sum(size[tensor] for tensor, whole in base.operands if whole and tensor not in before)

    def options(self, state: State) -> Iterator[tuple[Section, State, int]]:
        """Yield every section that may follow a state, the state after it, and its time."""
        for end in range(state.cut + 1, min(len(self.graph.tasks), state.cut + LONGEST) + 1):
            modes = (SectionMode.IN_TURN, SectionMode.STREAM) if end == state.cut + 1 else (SectionMode.PIPELINE,)
            made = {task.name for task in self.graph.tasks[state.cut : end]}
            last = end == len(self.graph.tasks)
            holdable = [] if last else sorted((made | state.held) & self.graph.live[end])
            for held in chain.from_iterable(combinations(holdable, count) for count in range(len(holdable) + 1)):
                for mode in modes:
                    section = Section(state.cut, end, mode, held)
                    cost = self.cost_ns(section, state.held, state.mode is not mode and state.cut > 0)
                    if cost is not None:
                        yield section, State(end, frozenset(held), mode), cost


@dataclass(frozen=True, slots=True)
class State:
    """Where a cut is: tasks done, tensors held on chip, mode of the section before."""

    cut: int
    held: frozenset[str]
    mode: SectionMode

    @property
    def key(self) -> str:
        """The state as text, for certificates."""
        return f"{self.cut}|{','.join(sorted(self.held))}|{self.mode.value}"


START = State(0, frozenset(), SectionMode.IN_TURN)


def _phases(tasks: tuple[Task, ...]) -> list[int]:
    """Number of whole operands on the longest way to each task."""
    made: dict[str, int] = {}
    phases: list[int] = []
    for task in tasks:
        inside = [made[operand.tensor] + operand.whole for operand in task.operands if operand.tensor in made]
        phases.append(max(inside, default=0))
        made[task.name] = phases[-1]
    return phases


def _allocation(tasks: tuple[Task, ...], phases: list[int], units: int) -> list[int]:
    """Whole units by task, at least one each: the sum of phase times is least in proportion to root work of a phase."""
    work: dict[int, float] = {}
    for task, phase in zip(tasks, phases, strict=True):
        work[phase] = work.get(phase, 0.0) + task.flops
    roots = sum(sqrt(amount) for amount in work.values()) or 1.0
    spare = max(0, units - len(tasks))
    shares = [
        sqrt(work[phase]) / roots * (task.flops / work[phase] if work[phase] else 0.0)
        for task, phase in zip(tasks, phases, strict=True)
    ]
    return [1 + int(spare * share) for share in shares]


def _handover_bytes(tasks: tuple[Task, ...], phases: list[int], position: int, tile_rows: int) -> int:
    """Buffer of a result inside a pipeline: whole across phases, else two tiles a stage it skips over."""
    task = tasks[position]
    readers = [
        (later, operand.whole)
        for later in range(position + 1, len(tasks))
        for operand in tasks[later].operands
        if operand.tensor == task.name
    ]
    if not readers:
        return 0
    if any(whole or phases[later] > phases[position] for later, whole in readers):
        return task.result_bytes
    tile = ceil(task.result_bytes * min(tile_rows, task.rows) / task.rows)
    return min(task.result_bytes, 2 * tile * max(later - position for later, _ in readers))


def total_ns(costs: SectionCosts, sections: tuple[Section, ...]) -> int | None:
    """Return the time of a cut, or None when one of its sections does not fit."""
    held, mode, time = START.held, START.mode, 0
    for section in sections:
        cost = costs.cost_ns(section, held, mode is not section.mode and section.first > 0)
        if cost is None:
            return None
        time, held, mode = time + cost, frozenset(section.held), section.mode
    return time


def potential_bound_ns(costs: SectionCosts, potentials: dict[str, int]) -> int:
    """Return the bound that potentials prove: no section from any reachable state costs less than the drop over it.

    Returns 0 when some section does, or a reachable state has no potential (states from which nothing fits have none).
    """
    end, seen = len(costs.graph.tasks), {START}
    todo = [START]
    while todo:
        state = todo.pop()
        for _, after, cost in costs.options(state):
            rest = 0 if after.cut == end else potentials.get(after.key)
            if after.cut < end and after not in seen:
                seen.add(after)
                todo.append(after)
            if rest is not None and state.key in potentials and potentials[state.key] > cost + rest:
                return 0
            if rest is not None and state.key not in potentials:
                return 0
    return potentials.get(START.key, 0)


def in_turn_sections(graph: TaskGraph) -> tuple[Section, ...]:
    """Return every task on its own, every tensor through memory."""
    return tuple(Section(number, number + 1, SectionMode.IN_TURN) for number in range(len(graph.tasks)))


def dataflow_sections(graph: TaskGraph) -> tuple[Section, ...]:
    """Return one fixed pipeline a layer."""
    cuts = [n for n, task in enumerate(graph.tasks) if n == 0 or task.layer != graph.tasks[n - 1].layer]
    ends = [*cuts[1:], len(graph.tasks)]
    return tuple(Section(first, end, SectionMode.PIPELINE) for first, end in zip(cuts, ends, strict=True))


def predictions(body: SectionsBody) -> tuple[Prediction, ...]:
    """Return time and what it is beside running in turn and beside one fixed pipeline a layer (where that fits)."""
    costs = SectionCosts(body.graph, body.machine)
    time = total_ns(costs, body.sections) or 0
    found = [Prediction("time", time, "ns")]
    for name, sections in (("in_turn", in_turn_sections(body.graph)), ("dataflow", dataflow_sections(body.graph))):
        if (other := total_ns(costs, sections)) is not None:
            found += [Prediction(f"{name}_time", other, "ns"), Prediction(f"gain_over_{name}", other / time, "1")]
    return tuple(found)
