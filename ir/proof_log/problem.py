"""Finite-domain problems as data: what a proof log refutes.

A problem is rebuilt by the checker from the plan (never read from the file that carries the proof), so that a log can
only refute what the plan claims to be impossible.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Term:
    """`scale * variable + offset`, by position of the variable."""

    variable: int
    scale: int = 1
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Linear:
    """The sum of the terms is at most `most`."""

    terms: tuple[Term, ...]
    most: int


@dataclass(frozen=True, slots=True)
class Cumulative:
    """Tasks that run without a break from their start need no more than `capacity` at any time.

    `starts` are terms of scale 1; `durations` and `demands` run along with them.
    """

    starts: tuple[Term, ...]
    durations: tuple[int, ...]
    demands: tuple[int, ...]
    capacity: int


Constraint = Linear | Cumulative


@dataclass(slots=True)
class Problem:
    """Variables by position with their first and last values, and constraints in the order of their tags (from 1)."""

    bounds: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    constraints: list[Constraint] = field(default_factory=list[Constraint])

    def variable(self, first: int, last: int) -> Term:
        """Add a variable and return it as a term."""
        self.bounds.append((first, last))
        return Term(len(self.bounds) - 1)

    def at_most(self, terms: list[Term], most: int) -> None:
        """State that the sum of the terms is at most `most`."""
        self.constraints.append(Linear(tuple(terms), most))

    def equal(self, terms: list[Term], total: int) -> None:
        """State that the sum of the terms is `total`: two inequalities."""
        self.at_most(terms, total)
        self.at_most([Term(t.variable, -t.scale, -t.offset) for t in terms], -total)

    def cumulative(
        self, starts: list[Term], durations: list[int], capacity: int, demands: list[int] | None = None
    ) -> None:
        """State that tasks fit the capacity at any time; demands are 1 unless given.

        pumpkin-solver 0.5 wants no start below 0.
        """
        needs = (1,) * len(starts) if demands is None else tuple(demands)
        self.constraints.append(Cumulative(tuple(starts), tuple(durations), needs, capacity))


def satisfied(problem: Problem, values: list[int]) -> bool:
    """Whether the values solve the problem (for tests: a problem with a solution must have no proof)."""
    inside = all(first <= value <= last for (first, last), value in zip(problem.bounds, values, strict=True))
    return inside and all(_holds(constraint, values) for constraint in problem.constraints)


def _holds(constraint: Constraint, values: list[int]) -> bool:
    if isinstance(constraint, Linear):
        return sum(term.scale * values[term.variable] + term.offset for term in constraint.terms) <= constraint.most
    busy: dict[int, int] = {}
    for start, duration, demand in zip(constraint.starts, constraint.durations, constraint.demands, strict=True):
        begin = values[start.variable] + start.offset
        for time in range(begin, begin + duration):
            busy[time] = busy.get(time, 0) + demand
    return max(busy.values(), default=0) <= constraint.capacity
