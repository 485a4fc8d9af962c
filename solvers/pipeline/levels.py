"""Closes in on the levels of a schedule by the search over turns: little effort for many values, then more for few.

A question is soon answered where groups are decided, whichever way, but for values next to the least one. So a round
bisects what is open with few nodes a question, and the next one asks about what is left with more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import gcd

from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.pipeline.points import Point, value_at
from treadle.solvers.pipeline.search import Search
from treadle.solvers.pipeline.turning import LEVEL_NODES, SMALL_SIZE, ordered, refuted_below, turned
from treadle.solvers.pipeline.walks import survivors


@dataclass(frozen=True, slots=True)
class Round:
    """Nodes of a question, and questions without an answer after which the round is over."""

    nodes: int
    failures: int


ROUNDS = (Round(200, 3), Round(2_000, 3), Round(5_000, 1))
"""The first one begins with the bound, others with whether the best value known is the least."""


@dataclass(slots=True)
class Between:
    """A level between the bound on it and the best schedule known."""

    low: int
    high: int
    point: Point | None = None


def closed_level(
    search: Search, name: str, fixed: dict[str, int], bound: Bound, value: int, *, soon: bool = False
) -> tuple[Bound, Point | None]:
    """Close in on a level from both sides; return the bound and the best schedule that was found, if any.

    Where a full unit has several orders, from above: under those, schedules are found in few nodes. The length is then
    left to the solver, which knows it from windows, unless few assignments to groups are left; its proof is asked for
    afterwards (`logs`). With `soon` little is asked where the solver comes next.
    """
    between = Between(bound.value, value)
    if ordered(search) and len(search.warps.loop.operations) > SMALL_SIZE:
        if name != "length":
            return _from_above(search, name, fixed, bound, between), between.point
        if not _few_left(search, fixed):
            return bound, None
    for round_ in ROUNDS[:1] if soon and solver_first(search) else ROUNDS:
        first = between.low if round_ is ROUNDS[0] else between.high - 1
        _closer(search, name, fixed, between, first, round_)
    return (bound if between.low == bound.value else refuted_below(search.ii, fixed, between.low)), between.point


def solver_first(search: Search) -> bool:
    """Whether the solver is asked before turns have many nodes: in small loops with orders and large ones without."""
    return ordered(search) != (len(search.warps.loop.operations) > SMALL_SIZE)


def _from_above(search: Search, name: str, fixed: dict[str, int], bound: Bound, between: Between) -> Bound:
    while between.low < between.high:
        answer = turned(search, {**fixed, name: between.high - 1}, LEVEL_NODES)
        if answer.point is None:
            return refuted_below(search.ii, fixed, between.high) if answer.refuted else bound
        between.point = answer.point
        between.high = value_at(search.warps, search.network, search.ii, name, answer.point)
    return bound


def _few_left(search: Search, fixed: dict[str, int]) -> bool:
    return search.walkable and bool(survivors(search.warps, search.ii, fixed))


def _closer(search: Search, name: str, fixed: dict[str, int], between: Between, first: int, round_: Round) -> None:
    """Ask for the first value, then for the middle of what was not asked about; of what that has, whether it is best.

    What was found is often the least there is, since it starts as early as paths let it, and often nothing near.
    """
    step = _step(search, name)
    floor, target, failures = between.low, first, round_.failures
    best = first == between.high - 1
    while floor < between.high and failures and search.budget.nodes > 0:
        target = min(between.high - 1, target + (between.high - 1 - target) % step)
        answer = turned(search, {**fixed, name: target}, round_.nodes)
        if answer.point is not None:
            between.point, best = answer.point, not best
            between.high = value_at(search.warps, search.network, search.ii, name, answer.point)
        elif answer.refuted:
            between.low, best = target + 1, False
            floor = between.low
        else:
            floor, best, failures = (floor if best else target + 1), False, failures - 1
        target = between.high - 1 if best else (floor + between.high - 1) // 2


def _step(search: Search, name: str) -> int:
    """Return what the values of a level differ by at least."""
    registers = [value.registers for value in search.warps.values]
    return max(1, reduce(gcd, registers, 0)) if name == "registers" else 1
