"""Bounds and candidates from walking over the assignments to groups (`ir.tile.assignments`), without times."""

from __future__ import annotations

from itertools import islice
from typing import Any

from treadle.ir.certificate import ProofKind
from treadle.ir.tile.assignments import DECIDED, WalkTooLong, any_left, assignments, least, least_interval, least_roomy
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.modulo.bounds import Bound

BOUNDED = (*DECIDED, "registers", "length")
"""Levels that a walk bounds."""
MOST_SURVIVORS = 6
"""Assignments that are scheduled one by one; with more of them all are asked about together."""
UNREACHED = 10**12


def decided_levels(order: tuple[str, ...]) -> tuple[str, ...]:
    """Return the leading levels after the interval that an assignment alone decides."""
    found: list[str] = []
    for name in order[1:]:
        if name not in DECIDED:
            break
        found.append(name)
    return tuple(found)


def walked_bound(warps: WarpLoop, ii: int, name: str, fixed: dict[str, int], below: int) -> Bound | None:
    """Return the bound on a level that the assignments give, `below` at most; None when they are too many."""
    most = {level: value for level, value in fixed.items() if level in BOUNDED}
    try:
        value = least(warps, ii, most, name, below)
    except WalkTooLong:
        return None
    return Bound(value, ProofKind.ENUMERATION, {"interval": ii, "most": most})


def paced_bound(warps: WarpLoop, basis: Bound, longest: int) -> tuple[Bound, bool]:
    """Return the least interval that walks over the assignments leave, and whether they can be gone through at it."""
    try:
        value = least_interval(warps, basis.value, longest)
        any_left(warps, value)
    except WalkTooLong:
        return basis, False
    return raised(basis, value, []), True


def passed_by_walk(warps: WarpLoop, ii: int, last: int) -> int:
    """Return the first interval from `ii` that walks leave, or `ii` where they are too long."""
    try:
        return least_roomy(warps, ii, last)
    except WalkTooLong:
        return ii


def raised(bound: Bound, value: int, refuted: list[int]) -> Bound:
    """Return the bound on the interval after a walk; evidence is the basis and the intervals refuted one by one."""
    if value <= bound.value:
        return bound
    basis = bound.evidence.get("basis") if bound.proof is ProofKind.ENUMERATION else None
    plain = {"value": bound.value, "proof": bound.proof.value, "evidence": bound.evidence}
    kept: dict[str, Any] = {}
    if basis:
        kept = {name: bound.evidence[name] for name in ("orders", "turns") if name in bound.evidence}
    return Bound(value, ProofKind.ENUMERATION, {"basis": basis or plain, "refuted": refuted, **kept})


def survivors(warps: WarpLoop, ii: int, fixed: dict[str, int]) -> list[dict[str, int]] | None:
    """Return the assignments that nothing refutes within the levels decided; None when they are too many."""
    most = {level: value for level, value in fixed.items() if level in BOUNDED}
    try:
        found = list(islice(assignments(warps, ii, most), MOST_SURVIVORS + 1))
    except WalkTooLong:
        return None
    return [needs.groups for needs in found] if len(found) <= MOST_SURVIVORS else None


def refuted_by_walk(warps: WarpLoop, ii: int) -> bool:
    """Whether no assignment is left at an interval."""
    try:
        return not any_left(warps, ii)
    except WalkTooLong:
        return False
