"""The Pareto front of price and rate: what more GPUs, money or power buy, point by point."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.serving.check import check
from treadle.ir.serving.plan import FrontPoint
from treadle.ir.serving.pool_program import program_of
from treadle.ir.serving.pools import Objective, PoolsPlan, PoolsProblem
from treadle.ir.serving.recursion import applies, best_pools
from treadle.ir.serving.tree import tree_bound

TOLERANCE = 1e-8
"""Relative distance within which a rate and its bound count as equal."""


def price_goal(problem: PoolsProblem) -> Objective:
    """Return what the front's price counts: the problem's goal, GPUs where that is the rate."""
    return Objective.FEWEST_GPUS if problem.objective is Objective.MOST_REQUESTS else problem.objective


def rate_problem(problem: PoolsProblem, budget: float = 0.0) -> PoolsProblem:
    """Return the problem of the highest rate within a budget."""
    goal = price_goal(problem)
    return replace(problem, objective=Objective.MOST_REQUESTS, rate_per_s=0.0, budget=budget, budget_in=goal)


def price_per_gpu(problem: PoolsProblem) -> Fraction:
    """Return the price of one GPU of the only type."""
    return problem.price(problem.engines[0], price_goal(problem)) / problem.engines[0].gpus


def check_front(problem: PoolsProblem, front: tuple[FrontPoint, ...]) -> list[Finding]:
    """Return what is wrong with a front (TRD458): an illegal point, another rate, or a bound above it."""
    findings: list[Finding] = []
    frontier = best_pools(rate_problem(problem)) if front and applies(rate_problem(problem)) else None
    for position, point in enumerate(front):
        where = f"front[{position}]"
        within = rate_problem(problem, point.price)
        plan = PoolsPlan(within, point.pools)
        wrong = check(plan)
        if wrong:
            findings.append(Finding("TRD458", where, f"the point is not legal: {wrong[0]}"))
            continue
        try:
            bound = _bound(problem, within, point, frontier)
        except TreadleError as error:
            findings.append(Finding("TRD458", where, f"the point's tree proves nothing: {error}"))
            continue
        rate = float(plan.rate_per_s)
        if abs(rate - point.rate_per_s) > TOLERANCE * max(1.0, rate):
            findings.append(Finding("TRD458", where, "the pools have another rate", str(rate), str(point.rate_per_s)))
        claimed = max(rate, point.bound_per_s)
        if point.bound_per_s and abs(bound - point.bound_per_s) > TOLERANCE * max(1.0, bound):
            stored = str(point.bound_per_s)
            findings.append(Finding("TRD458", where, "the tree proves another bound", str(bound), stored))
        if not bound <= claimed * (1 + TOLERANCE) + TOLERANCE:
            findings.append(Finding("TRD458", where, "more may be possible at this price", f"<= {claimed}", str(bound)))
    rising = all(a.price < b.price and a.rate_per_s < b.rate_per_s for a, b in pairwise(front))
    return findings if rising else [*findings, Finding("TRD458", "front", "points do not rise in price and rate")]


def _bound(
    problem: PoolsProblem,
    within: PoolsProblem,
    point: FrontPoint,
    frontier: tuple[tuple[Fraction, tuple[int, ...]], ...] | None,
) -> float:
    if point.tree is not None:
        return float(tree_bound(program_of(within), point.tree) or 0)
    if frontier is None:
        return float("inf")
    gpus = int(Fraction(str(point.price)) / price_per_gpu(problem))
    return float(frontier[min(gpus, len(frontier) - 1)][0])
