"""Operators of a layer that share streams: what may run beside what, and what waits for what.

Times are whole nanoseconds; shares are thousandths of a stream. One iteration is one layer (or one step).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.cycles import positive_cycle

FULL = 1000
"""Thousandths in a whole stream."""


class ShareTooLarge(TreadleError):
    """No mode of an operator fits the streams."""

    code = "TRD180"
    template = "operator `{operator}` fits no stream: every mode needs more than there is ({shortest})"
    hint = "give the operator a mode with a smaller share"


@dataclass(frozen=True, slots=True)
class Stream:
    """A shared resource with a capacity in thousandths."""

    name: str
    capacity_milli: int = FULL

    def __post_init__(self) -> None:
        if self.capacity_milli < 1:
            raise InvalidValue(message=f"stream `{self.name}` has the capacity {self.capacity_milli}")


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to run an operator: how long it takes and what it holds meanwhile (thousandths by stream)."""

    name: str
    duration_ns: int
    shares_milli: dict[str, int]

    def __post_init__(self) -> None:
        if self.duration_ns < 1 or any(share < 0 for share in self.shares_milli.values()):
            raise InvalidValue(message=f"mode `{self.name}` has a duration below 1 ns or a negative share")


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of one iteration with at least one mode."""

    name: str
    modes: tuple[Mode, ...]

    def __post_init__(self) -> None:
        names = [mode.name for mode in self.modes]
        if not names or len(set(names)) != len(names):
            raise InvalidValue(message=f"operator `{self.name}` needs modes with different names")

    def mode(self, name: str) -> Mode:
        """Return the mode called `name`; raises KeyError."""
        for mode in self.modes:
            if mode.name == name:
                return mode
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Dependence:
    """`target` starts after `source` of `distance` iterations ago has ended."""

    source: str
    target: str
    distance: int = 0


@dataclass(frozen=True)
class OperatorLoop:
    """A periodic (or one-shot) scheduling problem over streams. Valid once built."""

    name: str
    streams: tuple[Stream, ...]
    operators: tuple[Operator, ...]
    dependences: tuple[Dependence, ...]
    periodic: bool = True

    def __post_init__(self) -> None:
        names = [operator.name for operator in self.operators]
        if not names or len(set(names)) != len(names):
            raise InvalidValue(message=f"operator loop `{self.name}` needs operators with different names")
        for operator in self.operators:
            self._check_modes(operator)
        for dependence in self.dependences:
            for end in (dependence.source, dependence.target):
                if end not in self.index:
                    raise InvalidValue(message=f"a dependence of `{self.name}` names the unknown operator `{end}`")
            if dependence.distance < 0 or (dependence.distance and not self.periodic):
                raise InvalidValue(message=f"`{dependence.source}` -> `{dependence.target}` has a wrong distance")
        edges = [(self.index[d.source], self.index[d.target], 1) for d in self.dependences if d.distance == 0]
        if (cycle := positive_cycle(len(names), edges)) is not None:
            ring = " -> ".join(f"`{names[vertex]}`" for vertex in cycle)
            raise InvalidValue(message=f"operators {ring} wait for each other in one iteration")

    def _check_modes(self, operator: Operator) -> None:
        capacities = {stream.name: stream.capacity_milli for stream in self.streams}
        for mode in operator.modes:
            if unknown := set(mode.shares_milli) - set(capacities):
                raise InvalidValue(message=f"operator `{operator.name}` uses the unknown stream `{min(unknown)}`")
        if all(any(mode.shares_milli[s] > capacities[s] for s in mode.shares_milli) for mode in operator.modes):
            shortest = min(operator.modes, key=lambda mode: max(mode.shares_milli.values()))
            raise ShareTooLarge(operator=operator.name, shortest=str(shortest.shares_milli))

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of every operator by name."""
        return {operator.name: position for position, operator in enumerate(self.operators)}

    def operator(self, name: str) -> Operator:
        """Return the operator called `name`; raises KeyError."""
        return self.operators[self.index[name]]
