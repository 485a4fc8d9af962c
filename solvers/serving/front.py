"""Pareto fronts of engine pools: the recursion gives all points at once; else one search per budget, from the top."""

from __future__ import annotations

from fractions import Fraction

from treadle.ir.serving.front import price_goal, price_per_gpu, rate_problem
from treadle.ir.serving.plan import FrontPoint
from treadle.ir.serving.pool_program import program_of, routing_of
from treadle.ir.serving.pools import Objective, Pools, PoolsPlan, PoolsProblem
from treadle.ir.serving.recursion import applies, best_pools
from treadle.ir.serving.tree import tree_bound
from treadle.solvers.serving.branch import incumbent, maximise
from treadle.solvers.serving.solve import idle_off, route

MOST_POINTS = 16
"""Points of a front that needs a search each."""
MOST_NODES = 24
"""Nodes of such a search; what is open then is part of the point's bound."""
GAP = 2e-3
"""Relative distance from the bound at which such a search ends."""


def pareto_front(problem: PoolsProblem, points: int = MOST_POINTS) -> tuple[FrontPoint, ...]:
    """Return the front by rising price; every point has a proven bound on the rate at its price."""
    free = rate_problem(problem)
    return _recursive(problem, free) if applies(free) else _searched(problem, points)


def _recursive(problem: PoolsProblem, free: PoolsProblem) -> tuple[FrontPoint, ...]:
    per_gpu = price_per_gpu(problem)
    found: list[FrontPoint] = []
    best = Fraction(0)
    for gpus, (rate, counts) in enumerate(best_pools(free)):
        if rate > best * (1 + Fraction(1, 10**9)):
            pools = Pools(counts, route(free, counts, rate))
            plan = PoolsPlan(free, pools)
            found.append(FrontPoint(float(per_gpu * gpus), float(plan.rate_per_s), pools))
            best = rate
    return tuple(found)


def _searched(problem: PoolsProblem, points: int) -> tuple[FrontPoint, ...]:
    goal = price_goal(problem)
    whole = sum((_largest_price(problem, index, goal) for index in range(len(problem.gpus))), Fraction(0))
    step = whole / points if goal is not Objective.FEWEST_GPUS else max(Fraction(1), Fraction(int(whole) // points))
    found: list[FrontPoint] = []
    budget = whole
    while budget > 0:
        within = rate_problem(problem, float(budget))
        program = program_of(within)
        solved = maximise(program, nodes=MOST_NODES, gap=GAP, start=incumbent(program))
        if solved.solution is None or not solved.value:
            break
        counts = tuple(int(value) for value in solved.solution[: len(problem.engines)])
        pools = Pools(counts, idle_off(counts, routing_of(within, solved.solution)))
        rate = float(PoolsPlan(within, pools).rate_per_s)
        if found and rate >= found[-1].rate_per_s * (1 - 1e-9):
            found.pop()
        bound = float(tree_bound(program, solved.tree) or 0)
        found.append(FrontPoint(float(budget), rate, pools, solved.tree, bound))
        price = sum(
            (problem.price(engine, goal) * n for engine, n in zip(problem.engines, counts, strict=True)), Fraction(0)
        )
        budget = min(budget - step, price - step / 1000 if goal is not Objective.FEWEST_GPUS else price - 1)
        budget = Fraction(f"{float(budget):.9g}")
    return tuple(reversed(found))


def _largest_price(problem: PoolsProblem, index: int, goal: Objective) -> Fraction:
    """Return the price of all GPUs of a type."""
    pool = problem.gpus[index]
    per_gpu = {Objective.LEAST_COST: pool.cost_per_hour, Objective.LEAST_POWER: pool.watts}.get(goal, 1)
    return Fraction(str(per_gpu)) * pool.total
