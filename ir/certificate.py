"""How good a plan is, and what the claim rests on.

A certificate has one level per entry of the lexicographic objective. Each level states a value, a bound, and the kind
of proof behind the bound; the evidence is what a checker needs to recompute the bound without a solver.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from treadle.ir.errors import InvalidValue


class Status(Enum):
    """What is known of a level. `OPTIMAL` and `FEASIBLE` are never merged."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


class ProofKind(Enum):
    """What the checker does about a bound, from most to least convincing."""

    RESOURCE = "resource"
    """Recount the demand on the binding resource."""
    RECURRENCE = "recurrence"
    """Re-walk the named cycle or path: latency over distance."""
    CAPACITY = "capacity"
    """Total volume against total capacity."""
    COUNT = "count"
    """A trivial count: everything placed, nothing moved."""
    LP_DUAL = "lp-dual"
    """Recompute the bound from stored multipliers in exact arithmetic."""
    PATTERN_DUAL = "pattern-dual"
    """As `LP_DUAL`, with the pricing problem re-solved by the checker."""
    ENUMERATION = "enumeration"
    """Re-evaluate the stored frontier, or re-run the enumeration."""
    PROOF_LOG = "proof-log"
    """Replay a logged refutation step by step."""
    SOLVER = "solver"
    """Nothing: the bound rests on the solver's word."""
    NONE = "none"
    """No bound is claimed."""

    @property
    def checkable(self) -> bool:
        """Whether a checker without a solver can confirm the bound."""
        return self not in (ProofKind.SOLVER, ProofKind.NONE)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a lexicographic objective.

    `value` and `bound` are in `unit`; `bound` is `None` when nothing is proven. `evidence` is JSON data whose form
    belongs to the problem and the kind (documented where the claim is checked).
    """

    name: str
    unit: str
    value: float
    bound: float | None
    status: Status
    proof: ProofKind
    evidence: dict[str, Any] = field(default_factory=dict[str, Any])
    maximize: bool = False

    def __post_init__(self) -> None:
        if self.status is Status.OPTIMAL and self.bound != self.value:
            raise InvalidValue(
                message=f"level `{self.name}` claims {self.value} {self.unit} optimal with the bound {self.bound}"
            )
        if self.bound is not None and (self.bound > self.value if not self.maximize else self.bound < self.value):
            raise InvalidValue(message=f"level `{self.name}`: bound {self.bound} is beyond the value {self.value}")
        if (self.bound is None) != (self.proof is ProofKind.NONE):
            raise InvalidValue(message=f"level `{self.name}`: a bound and a kind of proof go together")

    @property
    def gap(self) -> float | None:
        """Distance of value and bound, relative to the value; `None` without a bound."""
        if self.bound is None:
            return None
        return 0.0 if self.value == self.bound else abs(self.value - self.bound) / max(abs(self.value), 1e-12)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The levels of one problem's objective in order, and the cost model they are relative to."""

    problem: str
    cost_model: str
    levels: tuple[Level, ...]

    def __getitem__(self, name: str) -> Level:
        """Return the level called `name`; raises KeyError."""
        for level in self.levels:
            if level.name == name:
                return level
        raise KeyError(name)

    @property
    def status(self) -> Status:
        """`OPTIMAL` only when every level is; otherwise the first level's weaker status."""
        for level in self.levels:
            if level.status is not Status.OPTIMAL:
                return level.status
        return Status.OPTIMAL
