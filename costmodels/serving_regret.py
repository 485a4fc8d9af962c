"""What a choice of pools loses when engine times are other than assumed.

Each engine's time is multiplied by a factor drawn from [1 - error, 1 + error]; the regret is the share of the rate that
the best pools of the same GPUs would have had over the chosen ones. In the worst case of such a box every engine is
slower by the whole error, all rates shrink alike, and the nominal optimum stays optimal: no plan has a better worst
case, so none is sought.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from treadle.ir.serving.pools import GpuPool, PoolsPlan, PoolsProblem, Role
from treadle.ir.serving.recursion import applies, best_pools

DRAWS = 20
"""Draws per error."""


@dataclass(frozen=True, slots=True)
class Regret:
    """Median and highest regret over the draws of one error."""

    error: float
    median: float
    worst: float


def regret_of(plan: PoolsPlan, error: float) -> Regret | None:
    """Return the regret of a plan on the GPUs it uses; None where the recursion does not apply."""
    problem = plan.problem
    if not applies(problem) or not plan.gpus_used:
        return None
    random = Random(0)
    found: list[float] = []
    for _ in range(DRAWS):
        engines = tuple(
            replace(engine, seconds=(engine.seconds[0] * (1 + error * (2 * random.random() - 1)),))
            for engine in problem.engines
        )
        gpus = GpuPool(problem.gpus[0].gpu, (plan.gpus_used,))
        disturbed = replace(problem, engines=engines, gpus=(gpus,), within_nodes=False)
        best = float(best_pools(disturbed)[-1][0])
        found.append(1 - rate_of(disturbed, plan.pools.counts) / best)
    found.sort()
    return Regret(error, max(0.0, found[DRAWS // 2]), max(0.0, found[-1]))


def rate_of(problem: PoolsProblem, counts: tuple[int, ...]) -> float:
    """Return the rate of given engines of the one class."""
    rates: dict[tuple[Role, str], float] = {}
    for engine, count in zip(problem.engines, counts, strict=True):
        key = (engine.role, "" if engine.role is Role.AGGREGATED else engine.pool)
        rates[key] = rates.get(key, 0.0) + count * float(problem.discount(engine.role)) / engine.seconds[0]
    pools = {pool for role, pool in rates if role is Role.PREFILL}
    paired = sum(min(rates[Role.PREFILL, pool], rates.get((Role.DECODE, pool), 0.0)) for pool in pools)
    return paired + rates.get((Role.AGGREGATED, ""), 0.0)
