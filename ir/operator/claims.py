"""Re-derives what a certificate claims of an operator schedule, from the loop alone.

Evidence by kind: `lp-dual` weights by stream; `pattern-dual` weights by operator; `recurrence` cycle, or path in one
iteration; `resource` operator; `enumeration` weights by operator, with which the states of two lanes are enumerated
again below the bound. Weights are rationals as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any

from treadle.ir.certificate import Certificate, Level, ProofKind
from treadle.ir.diagnostics import Finding
from treadle.ir.operator.lanes import rows_of
from treadle.ir.operator.loop import OperatorLoop
from treadle.ir.operator.patterns import pattern_bound_ns
from treadle.ir.operator.schedule import OperatorSchedule, latency_ns, recurrence_bound_ns, volume_bound_ns
from treadle.ir.operator.two_lanes import least_period_ns


@dataclass(frozen=True, slots=True)
class Recheck:
    """Claims recomputed, claims that rest on a solver's word, and what is wrong."""

    rederived: int
    on_solver_word: int
    findings: tuple[Finding, ...]


def level_names(loop: OperatorLoop) -> tuple[str, ...]:
    """Return what is decided, in order.

    Lanes are apart by what makes them fit best, so their common latency is an outcome, not an aim.
    """
    return ("period", "latency") if loop.periodic and rows_of(loop) is None else ("period",)


def recheck(loop: OperatorLoop, schedule: OperatorSchedule, certificate: Certificate) -> Recheck:
    """Recompute every level. Codes: TRD483 levels and values, TRD484 bounds."""
    names = level_names(loop)
    where = f"{loop.name}.certificate"
    found = tuple(level.name for level in certificate.levels)
    if found != names:
        return Recheck(0, 0, (Finding("TRD483", where, "levels are not those of a schedule", str(names), str(found)),))
    values = {"period": schedule.period_ns, "latency": latency_ns(loop, schedule)}
    findings: list[Finding] = []
    rederived = on_word = 0
    for level in certificate.levels:
        if level.value != values[level.name] or level.unit != "ns":
            place = f"{where}.{level.name}"
            findings.append(Finding("TRD483", place, "value differs", f"{values[level.name]} ns", f"{level.value}"))
        if level.proof.checkable:
            findings += _check_bound(loop, level, where)
        rederived += 1 + level.proof.checkable
        on_word += not level.proof.checkable
    return Recheck(rederived, on_word, tuple(findings))


def _check_bound(loop: OperatorLoop, level: Level, where: str) -> list[Finding]:
    try:
        if level.proof is ProofKind.ENUMERATION and level.name == "period":
            derived = enumerated_bound_ns(loop, level)
        else:
            derived = ceil(derived_bound_ns(loop, level))
    except (KeyError, ValueError, TypeError, ZeroDivisionError, AttributeError) as error:
        return [Finding("TRD484", f"{where}.{level.name}", f"evidence is unreadable: {error}")]
    if level.bound is not None and level.bound <= derived:
        return []
    return [Finding("TRD484", f"{where}.{level.name}", "bound is not derived", f"<= {derived}", str(level.bound))]


def derived_bound_ns(loop: OperatorLoop, level: Level) -> Fraction:
    """Return the bound that a level's evidence proves; 0 when it proves nothing.

    Raises:
        KeyError, ValueError, TypeError, ZeroDivisionError, AttributeError: evidence of another form.
    """
    evidence: dict[str, Any] = level.evidence
    if level.name == "latency" or (level.proof is ProofKind.RECURRENCE and "path" in evidence):
        in_one = level.name == "latency" or not loop.periodic
        return path_bound_ns(loop, list(evidence["path"])) if in_one else Fraction(0)
    if level.proof is ProofKind.RECURRENCE:
        return recurrence_bound_ns(loop, list(evidence["cycle"]))
    if level.proof is ProofKind.LP_DUAL:
        return volume_bound_ns(loop, _fractions(evidence["weights"]))
    if level.proof is ProofKind.PATTERN_DUAL:
        return pattern_bound_ns(loop, _fractions(evidence["weights"]))
    if level.proof is ProofKind.RESOURCE:
        return Fraction(min(mode.duration_ns for mode in loop.operator(evidence["operator"]).modes))
    return Fraction(0)


def enumerated_bound_ns(loop: OperatorLoop, level: Level) -> int:
    """Return the level's bound if no schedule of the two lanes has a period below it, the least period otherwise."""
    weights = {name: float(weight) for name, weight in _fractions(level.evidence["weights"]).items()}
    found = least_period_ns(loop, weights, int(level.bound or 0))
    return found[0] if found is not None else 0


def path_bound_ns(loop: OperatorLoop, path: list[str]) -> Fraction:
    """Return the latency that a path of dependences at distance 0 forces; 0 when it is no path."""
    within = {(d.source, d.target) for d in loop.dependences if d.distance == 0}
    if any(edge not in within for edge in pairwise(path)):
        return Fraction(0)
    return Fraction(sum(min(mode.duration_ns for mode in loop.operator(name).modes) for name in path))


def _fractions(weights: dict[str, str]) -> dict[str, Fraction]:
    return {name: Fraction(text) for name, text in weights.items()}
