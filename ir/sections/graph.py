"""Tasks in running order, the tensors between them, and a cut of the order into sections."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Machine

OUTSIDE = "input"
"""Tensor that comes from memory before the first task."""


class SectionMode(Enum):
    """How the tasks of a section run."""

    IN_TURN = "in-turn"
    """One task on all compute units."""
    PIPELINE = "pipeline"
    """All tasks at once, each on units of its own, rows handed over through buffers on chip."""
    STREAM = "stream"
    """One task on the fixed block of units, operands streamed through fixed buffers (Tempus)."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that a task reads, named by the task that makes it; `whole`: needed in full before the first row."""

    tensor: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One task: its work, its weights, its operands and its result, made in `rows` rows."""

    name: str
    flops: int
    weight_bytes: int
    operands: tuple[Operand, ...]
    result_bytes: int
    rows: int
    layer: int = 0

    def __post_init__(self) -> None:
        if min(self.flops, self.weight_bytes, self.result_bytes) < 0 or self.rows < 1:
            raise InvalidValue(message=f"task `{self.name}` has a negative amount or no rows")


@dataclass(frozen=True)
class TaskGraph:
    """Tasks in an order that respects their operands; `input_bytes` come from memory."""

    name: str
    tasks: tuple[Task, ...]
    input_bytes: int

    def __post_init__(self) -> None:
        known = {OUTSIDE}
        for task in self.tasks:
            if task.name in known:
                raise InvalidValue(message=f"two tasks are called `{task.name}`")
            if late := [operand.tensor for operand in task.operands if operand.tensor not in known]:
                raise InvalidValue(message=f"task `{task.name}` reads `{late[0]}`, which is not made before it")
            known.add(task.name)
        if not self.tasks:
            raise InvalidValue(message=f"task graph `{self.name}` is empty")

    @cached_property
    def size_bytes(self) -> dict[str, int]:
        """Bytes by tensor."""
        return {OUTSIDE: self.input_bytes, **{task.name: task.result_bytes for task in self.tasks}}

    @cached_property
    def live(self) -> tuple[frozenset[str], ...]:
        """Tensors made before each cut and read after it; at the end, the last task's result."""
        reads = dict.fromkeys(self.size_bytes, -1)
        for position, task in enumerate(self.tasks):
            reads |= {operand.tensor: position for operand in task.operands}
        reads[self.tasks[-1].name] = len(self.tasks)
        made = [OUTSIDE, *(task.name for task in self.tasks)]
        return tuple(
            frozenset(name for name in made[: cut + 1] if reads[name] >= cut) for cut in range(len(self.tasks) + 1)
        )


@dataclass(frozen=True, slots=True)
class Section:
    """Tasks `first` to before `end` in a mode; `held` are the tensors left on chip for later sections."""

    first: int
    end: int
    mode: SectionMode
    held: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SectionsBody:
    """The decision: a cut of the task graph into sections on a machine."""

    graph: TaskGraph
    machine: Machine
    sections: tuple[Section, ...]


def check(body: SectionsBody) -> list[Finding]:
    """Return why the cut is not one. Codes: TRD380 order and cover, TRD381 what is held."""
    findings: list[Finding] = []
    at, held = 0, frozenset[str]()
    for number, section in enumerate(body.sections):
        where = f"section {number + 1}"
        if section.first != at or section.end <= section.first or section.end > len(body.graph.tasks):
            found = f"{section.first} to {section.end}"
            return [Finding("TRD380", where, "tasks are not cut one after the other", f"from {at}", found)]
        if section.mode is not SectionMode.PIPELINE and section.end != section.first + 1:
            findings.append(Finding("TRD380", where, f"{section.mode.value} is for one task"))
        made = {task.name for task in body.graph.tasks[section.first : section.end]}
        if odd := set(section.held) - ((made | held) & body.graph.live[section.end]):
            findings.append(Finding("TRD381", where, f"`{min(odd)}` is held but is not on chip, or not read later"))
        at, held = section.end, frozenset(section.held)
    if at != len(body.graph.tasks) or held:
        findings.append(Finding("TRD380", "sections", "tasks are left out, or the result stays on chip"))
    return findings
