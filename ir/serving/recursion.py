"""Exact pools for one request class and one GPU type: knapsacks over the number of GPUs.

Best prefill and decode rates on `g` GPUs are unbounded knapsacks; a pool's rate is the smaller of the two, best over
the split; pools and aggregated engines add up. The checker repeats the recursion, which takes milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from treadle.ir.serving.pools import PoolsProblem, Role

_NOTHING: tuple[tuple[int, int], ...] = ()


def applies(problem: PoolsProblem) -> bool:
    """Whether one class, one GPU type, and sizes that always fit into its nodes make the recursion exact."""
    if len(problem.classes) != 1 or len(problem.gpus) != 1 or problem.budget:
        return False
    if not problem.within_nodes:
        return True
    pool = problem.gpus[0]
    sizes = sorted({engine.gpus for engine in problem.engines} | {max(pool.nodes)})
    chain = all(larger % smaller == 0 for smaller, larger in pairwise(sizes))
    return chain and len(set(pool.nodes)) == 1


@dataclass(frozen=True, slots=True)
class _Best:
    """The best rate with at most so many GPUs, and the engines that give it: (candidate, count) pairs."""

    rate: Fraction
    engines: tuple[tuple[int, int], ...]


def best_pools(problem: PoolsProblem) -> tuple[tuple[Fraction, tuple[int, ...]], ...]:
    """Return for 0, 1, ... all GPUs the highest rate and the engine counts; rates are exact for the given times."""
    total = problem.gpus[0].total
    best = _knapsack(problem, Role.AGGREGATED, "", total)
    pools = sorted({engine.pool for engine in problem.engines if engine.role is not Role.AGGREGATED})
    for pool in pools:
        best = _sum(best, _paired(problem, pool, total))
    return tuple((one.rate, _counts(one.engines, len(problem.engines))) for one in best)


def _rate(problem: PoolsProblem, index: int) -> Fraction:
    engine = problem.engines[index]
    return problem.discount(engine.role) / Fraction(f"{engine.seconds[0]:.9g}")


def _knapsack(problem: PoolsProblem, role: Role, pool: str, total: int) -> list[_Best]:
    offers: dict[int, tuple[Fraction, int]] = {}
    for index, engine in enumerate(problem.engines):
        if engine.role is role and (role is Role.AGGREGATED or engine.pool == pool):
            rate = _rate(problem, index)
            if engine.gpus not in offers or rate > offers[engine.gpus][0]:
                offers[engine.gpus] = (rate, index)
    best = [_Best(Fraction(0), _NOTHING)]
    for gpus in range(1, total + 1):
        chosen = best[gpus - 1]
        for size, (rate, index) in offers.items():
            if size <= gpus and best[gpus - size].rate + rate > chosen.rate:
                chosen = _Best(best[gpus - size].rate + rate, (*best[gpus - size].engines, (index, 1)))
        best.append(chosen)
    return best


def _paired(problem: PoolsProblem, pool: str, total: int) -> list[_Best]:
    prefill = _knapsack(problem, Role.PREFILL, pool, total)
    decode = _knapsack(problem, Role.DECODE, pool, total)
    best = [_Best(Fraction(0), _NOTHING)]
    for gpus in range(1, total + 1):
        split = max(range(gpus + 1), key=lambda p: min(prefill[p].rate, decode[gpus - p].rate))
        rate = min(prefill[split].rate, decode[gpus - split].rate)
        own = _Best(rate, prefill[split].engines + decode[gpus - split].engines)
        best.append(own if rate > best[-1].rate else best[-1])
    return best


def _sum(one: list[_Best], other: list[_Best]) -> list[_Best]:
    best: list[_Best] = []
    for gpus in range(len(one)):
        split = max(range(gpus + 1), key=lambda g: one[g].rate + other[gpus - g].rate)
        left, right = one[split], other[gpus - split]
        best.append(_Best(left.rate + right.rate, left.engines + right.engines))
    return best


def _counts(engines: tuple[tuple[int, int], ...], length: int) -> tuple[int, ...]:
    counts = [0] * length
    for index, number in engines:
        counts[index] += number
    return tuple(counts)
