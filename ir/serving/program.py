"""A small mixed-integer program in exact numbers: what a search tree's bound is recomputed on.

Always a maximisation over a box, under rows `sum a_j x_j <= b` or `= b`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: its box, whether it is integer, and its coefficient in the objective."""

    name: str
    lower: Fraction
    upper: Fraction
    integer: bool
    objective: Fraction = Fraction(0)
    first: bool = False
    """Whether a search splits it before others: a hint, no part of the problem."""

    def __post_init__(self) -> None:
        if self.lower > self.upper:
            raise InvalidValue(message=f"variable `{self.name}` has an empty range {self.lower} to {self.upper}")


@dataclass(frozen=True, slots=True)
class Row:
    """One constraint over (variable position, coefficient) pairs; `equal` asks for `= limit`, else `<= limit`."""

    name: str
    terms: tuple[tuple[int, Fraction], ...]
    limit: Fraction
    equal: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """Variables and rows; maximise the objective."""

    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def integral(self) -> bool:
        """Whether every solution has a whole objective value."""
        return all(
            variable.objective == 0 or (variable.integer and variable.objective.denominator == 1)
            for variable in self.variables
        )


def value_of(program: Program, solution: tuple[Fraction, ...]) -> Fraction:
    """Return the objective of a solution."""
    return sum(
        (variable.objective * value for variable, value in zip(program.variables, solution, strict=True)), Fraction(0)
    )


def violations(program: Program, solution: tuple[Fraction, ...], tolerance: Fraction) -> list[str]:
    """Return the names of variables outside their box and of rows violated by more than `tolerance` (relative)."""
    broken = [
        variable.name
        for variable, value in zip(program.variables, solution, strict=True)
        if not variable.lower - tolerance <= value <= variable.upper + tolerance
        or (variable.integer and value.denominator != 1)
    ]
    for row in program.rows:
        excess = sum((factor * solution[index] for index, factor in row.terms), Fraction(0)) - row.limit
        scale = max(Fraction(1), abs(row.limit))
        if excess > tolerance * scale or (row.equal and excess < -tolerance * scale):
            broken.append(row.name)
    return broken
