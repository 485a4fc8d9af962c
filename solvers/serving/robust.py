"""Plans under errors of the engine times: what the nominal plan may lose, and the plan that loses least at worst."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

from treadle.costmodels.serving_regret import rate_of
from treadle.ir.certificate import Certificate
from treadle.ir.serving.front import price_goal, rate_problem
from treadle.ir.serving.pool_program import program_of, routing_of
from treadle.ir.serving.pools import Objective, Pools, PoolsPlan, PoolsProblem
from treadle.ir.serving.program import Program
from treadle.ir.serving.tree import Tree
from treadle.solvers.serving.branch import maximise
from treadle.solvers.serving.solve import TOLERANCE, certificate_of, idle_off, route, solve_pools

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


def hedged(plan: PoolsPlan, tree: Tree | None, error: float) -> tuple[PoolsPlan, Certificate, Robust]:
    """Return the plan that loses least at worst under an error of the step times, and its certificate.

    Of the plans that sustain the asked rate if there is no error. The bound stays that of the nominal problem: its gap
    is what the hedge costs.

    Args:
        plan: the nominal optimum.
        tree: what proves its bound; None where the recursion does.
        error: relative, in (0, 1).
    """
    found = robust_choice(plan, error)
    pools = with_counts(plan.problem, found.counts)
    changed = PoolsPlan(plan.problem, pools) if pools is not None else plan
    return changed, certificate_of(changed, tree), found


def with_counts(problem: PoolsProblem, counts: tuple[int, ...]) -> Pools | None:
    """Return given engines with the routing of the highest rate, or of the asked one; None where they fall short."""
    asked = problem.rate_per_s if problem.objective is not Objective.MOST_REQUESTS else 0.0
    if len(problem.classes) == 1:
        rate = rate_of(problem, counts)
        wanted = Fraction(str(asked)) if asked else Fraction(rate)
        return Pools(counts, route(problem, counts, wanted)) if rate >= asked * (1 - TOLERANCE) else None
    solved = maximise(_fixed(problem, counts))
    if solved.solution is None:
        return None
    return Pools(counts, idle_off(counts, routing_of(problem, solved.solution)))


def robust_choice(plan: PoolsPlan, error: float, draws: int = DRAWS) -> Robust:
    """Draw every engine's time from [1 - error, 1 + error] and compare plans over the draws, at the plan's price.

    Plans are the nominal one and the best of each draw, as far as they sustain the asked rate without an error; the
    regret is the share of the draw's best rate that is lost.
    """
    goal = price_goal(plan.problem)
    pairs = list(zip(plan.problem.engines, plan.pools.counts, strict=True))
    budget = float(sum((plan.problem.price(engine, goal) * count for engine, count in pairs), Fraction(0)))
    random = Random(0)
    scenarios = [_disturbed(rate_problem(plan.problem, budget), error, random) for _ in range(draws)]
    best = [solve_pools(scenario)[0] for scenario in scenarios]
    others = [one.pools.counts for one in best if with_counts(plan.problem, one.pools.counts) is not None]
    choices = list(dict.fromkeys((plan.pools.counts, *others)))
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
    return maximise(_fixed(problem, counts)).value or 0.0


def _fixed(problem: PoolsProblem, counts: tuple[int, ...]) -> Program:
    program = program_of(problem)
    fixed = tuple(
        replace(variable, lower=Fraction(count), upper=Fraction(count))
        for variable, count in zip(program.variables, counts, strict=False)
    )
    return Program((*fixed, *program.variables[len(counts) :]), program.rows)
