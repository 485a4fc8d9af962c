"""The least length over the assignments that the levels before leave, one after the other, groups held.

Where an exchange of two equal sub-tiles maps one assignment onto another, one of the two is asked about; where it maps
an assignment onto itself, one sub-tile is held before the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from treadle.ir.certificate import Status
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.backend import Limits, Outcome, SolverReport
from treadle.solvers.modulo import model as modulo
from treadle.solvers.pipeline.announcements import answered
from treadle.solvers.pipeline.points import Point, read, value_at
from treadle.solvers.pipeline.search import EFFORTS, Answer, Search, Target
from treadle.solvers.pipeline.symmetry import mirror
from treadle.solvers.pipeline.unrolled import unrolled
from treadle.solvers.pipeline.walks import survivors

HELD: dict[str, bool | int | float] = {**modulo.TUNING, "use_precedences_in_disjunctive_constraint": False}
"""What the solver finds out about precedences costs more than it prunes where windows are short and groups held."""
QUESTIONS = 4
"""Questions that halve the lengths of an assignment have this part of its share each."""
FINEST_PART = 64
"""They end where the lengths left are this part of the best."""
CLOSE_PART = 16
"""Where the bound is farther from the best than this part of it, most effort would be for nothing."""


@dataclass(frozen=True, slots=True)
class Held:
    """An assignment, and two operations that start in this order where an exchange maps the assignment onto itself."""

    groups: dict[str, int]
    ordered: tuple[str, str] | None = None


def distinct(warps: WarpLoop, every: list[dict[str, int]]) -> list[Held]:
    """Return the assignments of which none is another one with equal sub-tiles exchanged, evenly loaded ones first."""
    swapped = mirror(warps)
    seen: set[tuple[int, ...]] = set()
    found: list[Held] = []
    for groups in every:
        pattern = _pattern(warps, groups)
        mirrored = _pattern(warps, {name: groups[swapped.get(name, name)] for name in groups})
        if mirrored not in seen or not swapped:
            found.append(Held(groups, _pair(warps, swapped) if swapped and mirrored == pattern else None))
        seen.add(pattern)
    return sorted(found, key=lambda held: _largest_issue(warps, held.groups))


def _pattern(warps: WarpLoop, groups: Mapping[str, int]) -> tuple[int, ...]:
    """Return the groups of all issued operations, named by their first appearance."""
    names: dict[int, int] = {}
    return tuple(names.setdefault(groups[issue.operation], len(names)) for issue in warps.issues)


def _pair(warps: WarpLoop, swapped: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first two operations on the busiest unit that are exchanged and hold values: nothing else moves them.

    Operations that only end an iteration may be moved by whole intervals (`ir.tile.orders.windows`), in any order.
    """
    busy: Counter[str] = Counter()
    for operation in warps.loop.operations:
        busy[operation.unit] += operation.occupancy_cycles
    holding = {value.producer for value in warps.values}
    moved = [op for op in warps.loop.operations if swapped[op.name] != op.name and op.name in holding]
    first = max(moved, key=lambda op: busy[op.unit], default=None)
    return None if first is None else (first.name, swapped[first.name])


def _largest_issue(warps: WarpLoop, groups: Mapping[str, int]) -> int:
    cycles: Counter[int] = Counter()
    for issue in warps.issues:
        cycles[groups[issue.operation]] += issue.issue_cycles
    return max(cycles.values())


@dataclass(slots=True)
class _Known:
    """What is known so far: the least length found, its schedule, and bounds of the assignments that are left."""

    best: int
    left: list[tuple[Held, int]]
    point: Point | None = None
    report: SolverReport | None = None

    @property
    def bound(self) -> int:
        """No schedule of any assignment is shorter."""
        return min([self.best, *(bound for _, bound in self.left)])


def shortest_held(search: Search, target: Target, share: float) -> Answer | None:
    """Look for the least length of `target` over one assignment at a time; None where these are too many.

    Little effort for each first, which halves the lengths left: the less is asked for, the shorter are the windows.
    """
    most = {**target.fixed, target.name: target.below - 1}
    every = survivors(search.warps, search.ii, most) if search.walkable else None
    if every is None:
        return None
    known = _Known(target.below, [(held, target.least) for held in distinct(search.warps, every)])
    for effort in EFFORTS:
        for held, bound in tuple(known.left):
            far = known.best - bound > known.best // CLOSE_PART
            if search.budget.over or known.bound >= known.best or (far and effort == EFFORTS[-1]):
                break
            known.left.remove((held, bound))
            limits = search.budget.share(share * effort / (len(known.left) + 1))
            halve = effort == EFFORTS[0]
            still = (_halved if halve else _climbed)(search, held, replace(target, least=bound), known, limits)
            known.left += [] if still is None else [(held, still)]
    status = Status.OPTIMAL if known.bound == known.best else Status.FEASIBLE
    return Answer(known.point, known.best, known.bound, status, known.report)


def _halved(search: Search, held: Held, target: Target, known: _Known, limits: Limits) -> int | None:
    """Halve the lengths that an assignment may have, as far as short questions go; return its bound, None for none."""
    low, below = target.least, known.best
    limits = replace(limits, deterministic_s=limits.deterministic_s and limits.deterministic_s / QUESTIONS)
    while below - low > max(1, known.best // FINEST_PART) and not search.budget.over:
        middle = (low + below) // 2
        outcome = _asked(search, held, replace(target, least=low, below=middle), known, limits)
        if outcome is None or outcome.status is Status.INFEASIBLE:
            low = middle
        else:
            below = min(middle, known.best)
    return low if low < known.best else None


def _climbed(search: Search, held: Held, target: Target, known: _Known, limits: Limits) -> int | None:
    """Look for the least length of an assignment in wider and wider ranges; return its bound, None for none."""
    low, width = target.least, max(1, known.best // FINEST_PART)
    while low < known.best:
        below = min(known.best, low + width + 1)
        outcome = _asked(search, held, replace(target, least=low, below=below), known, limits, minimized=True)
        if outcome is None or outcome.status is Status.INFEASIBLE:
            low, width = below, 2 * width
        elif outcome.status is Status.OPTIMAL:
            return None
        else:
            return low if outcome.bound is None else max(low, -int(-outcome.bound // 1))
    return None


def _asked(
    search: Search, held: Held, target: Target, known: _Known, limits: Limits, *, minimized: bool = False
) -> Outcome | None:
    """Ask for a length in the range of `target` over an assignment; None where paths alone refute it."""
    joint = unrolled(search.warps, search.ii, held.groups, {**target.fixed, "length": target.below - 1})
    if joint is None or joint.base.length is None:
        return None
    joint.cp.add(joint.base.length >= target.least)
    if minimized:
        joint.cp.minimize(joint.base.length)
    if held.ordered is not None:
        first, second = held.ordered
        joint.cp.add(joint.start(first) <= joint.start(second))
    outcome = answered(joint, limits, search.budget, HELD)
    known.report = outcome.report
    if outcome.solved:
        found = read(joint, outcome)
        length = value_at(search.warps, search.network, search.ii, "length", found)
        if length < known.best:
            known.best, known.point = length, found
    return outcome
