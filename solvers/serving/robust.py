"""Plans under errors of the engine times: what the nominal plan may lose, and the plan that loses least at worst."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

from treadle.costmodels.serving_regret import rate_of
from treadle.ir.serving.front import price_goal, rate_problem
from treadle.ir.serving.pool_program import program_of
from treadle.ir.serving.pools import PoolsPlan, PoolsProblem
from treadle.ir.serving.program import Program
from treadle.solvers.serving.branch import maximise
from treadle.solvers.serving.solve import solve_pools

DRAWS = 12
"""Draws of engine times per error."""


@dataclass(frozen=True, slots=True)
class Robust:
    """Regret of the nominal plan (median, worst), and the engines whose worst regret over the draws is least."""

    error: float
    median: float
    worst: float
    counts: tuple[int, ...]
    counts_worst: float


def robust_choice(plan: PoolsPlan, error: float, draws: int = DRAWS) -> Robust:
    """Draw every engine's time from [1 - error, 1 + error] and compare plans over the draws, at the plan's price.

    Plans are the nominal one and the best of each draw; the regret is the share of the draw's best rate that is lost.
    """
    goal = price_goal(plan.problem)
    pairs = list(zip(plan.problem.engines, plan.pools.counts, strict=True))
    budget = float(sum((plan.problem.price(engine, goal) * count for engine, count in pairs), Fraction(0)))
    random = Random(0)
    scenarios = [_disturbed(rate_problem(plan.problem, budget), error, random) for _ in range(draws)]
    best = [solve_pools(scenario)[0] for scenario in scenarios]
    choices = list(dict.fromkeys((plan.pools.counts, *(one.pools.counts for one in best))))
    regrets = {
        counts: sorted(
            max(0.0, 1 - fixed_rate(scenario, counts) / max(1e-12, float(one.rate_per_s)))
            for scenario, one in zip(scenarios, best, strict=True)
        )
        for counts in choices
    }
    own = regrets[plan.pools.counts]
    least = min(choices, key=lambda counts: (regrets[counts][-1], counts != plan.pools.counts))
    return Robust(error, own[draws // 2], own[-1], least, regrets[least][-1])


def _disturbed(problem: PoolsProblem, error: float, random: Random) -> PoolsProblem:
    engines = []
    for engine in problem.engines:
        factor = 1 + error * (2 * random.random() - 1)
        engines.append(replace(engine, seconds=tuple(float(f"{time * factor:.9g}") for time in engine.seconds)))
    return replace(problem, engines=tuple(engines))


def fixed_rate(problem: PoolsProblem, counts: tuple[int, ...]) -> float:
    """Return the highest rate of given engines: a linear program, or a formula for one class."""
    if len(problem.classes) == 1:
        return rate_of(problem, counts)
    program = program_of(problem)
    fixed = tuple(
        replace(variable, lower=Fraction(count), upper=Fraction(count))
        for variable, count in zip(program.variables, counts, strict=False)
    )
    solved = maximise(Program((*fixed, *program.variables[len(counts) :]), program.rows))
    return solved.value or 0.0
