"""A machine as data: named figures, each with unit, source, date and basis."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from treadle.ir.diagnostics import TreadleError, closest
from treadle.ir.errors import InvalidValue


class MissingFigure(TreadleError):
    """A machine description lacks a number that a cost model needs."""

    code = "TRD201"
    template = "machine `{machine}` has no figure `{figure}`"
    hint = "add the figure with unit, source, date and basis to the machine file"


MAY_BE_ZERO = ("cycle", "us", "1", "W")
"""Beginnings of the units of figures that may be zero: latencies, what is added, and shares."""
TRAITS = (
    "async_copy",
    "async_mma",
    "distributed_shared_memory",
    "register_reallocation",
    "tensor_memory",
    "tma",
    "warp_specialization",
)
"""Abilities that rules know; a machine file names those it has."""


class Basis(Enum):
    """Where a figure comes from."""

    MEASURED = "measured"
    VENDOR = "vendor"
    DERIVED = "derived"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a machine, in `unit`, with the document it is from and the date that document was read or made."""

    name: str
    value: float
    unit: str
    source: str
    date: str
    basis: Basis

    def __post_init__(self) -> None:
        if not self.value >= 0:
            raise InvalidValue(message=f"figure `{self.name}` is {self.value}; figures are not negative")
        if not self.unit or not self.source or not self.date:
            raise InvalidValue(message=f"figure `{self.name}` needs a unit, a source and a date")


@dataclass(frozen=True, slots=True)
class Machine:
    """A GPU type. `architecture` is the compiler's name (`sm_90`, `gfx942`); figures are looked up by name."""

    id: str
    name: str
    vendor: str
    architecture: str
    figures: tuple[Figure, ...]
    traits: tuple[str, ...] = ()
    """Abilities that rules depend on: `async_mma`, `tma`, `register_reallocation`, `tensor_memory`, ..."""

    def __post_init__(self) -> None:
        names = [figure.name for figure in self.figures]
        if len(set(names)) != len(names):
            doubled = next(name for name in names if names.count(name) > 1)
            raise InvalidValue(message=f"machine `{self.id}` has the figure `{doubled}` twice")

    def figure(self, name: str) -> Figure:
        """Return the figure called `name`; raises MissingFigure."""
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise MissingFigure(
            machine=self.id, figure=name, hint=closest(name, [f.name for f in self.figures]) or MissingFigure.hint
        )

    def value(self, name: str) -> float:
        """Return the value of the figure called `name`, in the figure's unit; raises MissingFigure."""
        return self.figure(name).value

    def has(self, trait: str) -> bool:
        """Whether the machine has the trait."""
        return trait in self.traits
