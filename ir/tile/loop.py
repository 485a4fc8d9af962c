"""A loop as a cyclic scheduling problem: operations on functional units, dependences over iterations, ring buffers.

A *loop* holds numbers only; where they come from (a machine's cost model, a resource file) is no concern of it. All
times are whole cycles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue


class ZeroDistanceCycle(TreadleError):
    """Operations of one iteration that wait for each other."""

    code = "TRD110"
    template = "the dependences {cycle} form a cycle of distance 0 with a positive delay"
    hint = "a value carried to a later iteration needs a distance of at least 1"


@dataclass(frozen=True, slots=True)
class Unit:
    """A functional unit with `count` identical instances; `None` is unlimited."""

    name: str
    count: int | None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise InvalidValue(message=f"unit `{self.name}` has the count {self.count}; expected at least 1")


@dataclass(frozen=True, slots=True)
class Operation:
    """Holds one instance of `unit` for `occupancy_cycles`; its result is there after `latency_cycles`."""

    name: str
    unit: str
    occupancy_cycles: int
    latency_cycles: int

    def __post_init__(self) -> None:
        if self.occupancy_cycles < 0 or self.latency_cycles < 0:
            raise InvalidValue(message=f"operation `{self.name}` has a negative occupancy or latency")


@dataclass(frozen=True, slots=True)
class Dependence:
    """start(target) >= start(source) + delay_cycles - ii_cycles * distance."""

    source: str
    target: str
    delay_cycles: int
    distance: int = 0

    def __post_init__(self) -> None:
        if self.distance < 0:
            raise InvalidValue(message=f"dependence `{self.source}` -> `{self.target}` has a negative distance")


@dataclass(frozen=True, slots=True)
class Reader:
    """An operation that reads a ring slot written `distance` iterations ago and holds it for `hold_cycles`."""

    operation: str
    hold_cycles: int
    distance: int = 0


@dataclass(frozen=True, slots=True)
class Ring:
    """A circular buffer: `producer` fills one slot an iteration; the slot is free when its last reader lets go.

    A slot is held from the producer's start. With `depth` slots a schedule is legal when
    start(reader) + hold_cycles + ii_cycles * distance - start(producer) <= depth * ii_cycles for every reader.
    """

    name: str
    memory: str
    slot_bytes: int
    producer: str
    readers: tuple[Reader, ...]
    max_depth: int

    def __post_init__(self) -> None:
        if self.slot_bytes < 0 or self.max_depth < 1 or not self.readers:
            raise InvalidValue(message=f"ring `{self.name}` needs readers, a size and a largest depth of at least 1")


@dataclass(frozen=True, slots=True)
class Capacity:
    """A memory of `capacity_bytes`, of which `fixed_bytes` are taken by loop-invariant tiles."""

    memory: str
    capacity_bytes: int
    fixed_bytes: int = 0


@dataclass(frozen=True)
class Loop:
    """A cyclic scheduling problem. Valid once built: names resolve, and no cycle of distance 0 has a positive delay."""

    name: str
    units: tuple[Unit, ...]
    operations: tuple[Operation, ...]
    dependences: tuple[Dependence, ...]
    rings: tuple[Ring, ...] = ()
    capacities: tuple[Capacity, ...] = ()

    def __post_init__(self) -> None:
        if not self.operations:
            raise InvalidValue(message=f"loop `{self.name}` has no operations")
        for kind, names in (
            ("unit", [unit.name for unit in self.units]),
            ("operation", [operation.name for operation in self.operations]),
            ("ring", [ring.name for ring in self.rings]),
        ):
            if len(set(names)) != len(names):
                doubled = next(name for name in names if names.count(name) > 1)
                raise InvalidValue(message=f"loop `{self.name}` has the {kind} `{doubled}` twice")
        self._resolve_names()
        self._refuse_zero_distance_cycles()

    def _resolve_names(self) -> None:
        units = {unit.name for unit in self.units}
        memories = {capacity.memory for capacity in self.capacities}
        for operation in self.operations:
            self._known("unit", operation.unit, units, f"operation `{operation.name}`")
        for dependence in self.dependences:
            for end in (dependence.source, dependence.target):
                self._known("operation", end, self.index, f"dependence `{dependence.source}` -> `{dependence.target}`")
        for ring in self.rings:
            self._known("memory", ring.memory, memories, f"ring `{ring.name}`")
            for user in (ring.producer, *(reader.operation for reader in ring.readers)):
                self._known("operation", user, self.index, f"ring `{ring.name}`")

    def _known(self, kind: str, name: str, known: set[str] | dict[str, int], where: str) -> None:
        if name not in known:
            raise InvalidValue(message=f"{where} of loop `{self.name}` names the unknown {kind} `{name}`")

    def _refuse_zero_distance_cycles(self) -> None:
        """Kahn's order over the positive-delay graph of distance 0, with zero-delay edges kept for closure."""
        from treadle.ir.tile.cycles import positive_cycle

        edges = [
            (self.index[d.source], self.index[d.target], d.delay_cycles) for d in self.dependences if d.distance == 0
        ]
        cycle = positive_cycle(len(self.operations), edges)
        if cycle is not None:
            names = [self.operations[vertex].name for vertex in cycle]
            raise ZeroDistanceCycle(cycle=" -> ".join(f"`{name}`" for name in [*names, names[0]]))

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every operation by name."""
        return {operation.name: position for position, operation in enumerate(self.operations)}

    def operation(self, name: str) -> Operation:
        """Return the operation called `name`; raises KeyError."""
        return self.operations[self.index[name]]

    def unit(self, name: str) -> Unit:
        """Return the unit called `name`; raises KeyError."""
        for unit in self.units:
            if unit.name == name:
                return unit
        raise KeyError(name)
