"""The mixed-integer program of engine pools, as solver and checker both build it.

Variables: engines per candidate (integer); requests/s per candidate and class; total requests/s `z`. Rows: engine time,
flow of each class within each pool, share of each class in `z`, GPUs per type, whole engines inside nodes.
"""

from __future__ import annotations

from fractions import Fraction

from treadle.ir.serving.pools import GpuPool, Objective, PoolsProblem, Role
from treadle.ir.serving.program import Program, Row, Variable


def program_of(problem: PoolsProblem) -> Program:
    """State the problem; the objective is requests/s, or minus the price."""
    maximising = problem.objective is Objective.MOST_REQUESTS
    limits = {pool.gpu: pool.total for pool in problem.gpus}
    variables = [
        Variable(
            engine.name,
            Fraction(0),
            Fraction(limits[engine.gpu] // engine.gpus),
            True,
            Fraction(0) if maximising else -problem.price(engine),
        )
        for engine in problem.engines
    ]
    first_rate = len(variables)
    most = Fraction(0)
    for engine in problem.engines:
        cap = Fraction(limits[engine.gpu] // engine.gpus)
        for position, one in enumerate(problem.classes):
            upper = cap / _seconds(engine.seconds[position])
            most += upper
            variables.append(Variable(f"{engine.name}/{one.name}", Fraction(0), upper, False))
    rate = Fraction(str(problem.rate_per_s))
    variables.append(
        Variable("rate", Fraction(0) if maximising else rate, most if maximising else rate, False, Fraction(maximising))
    )
    rows = [*_load_rows(problem, first_rate), *_flow_rows(problem, first_rate, len(variables) - 1)]
    for pool in problem.gpus:
        rows += _gpu_rows(problem, pool)
    return Program(tuple(variables), tuple(rows))


def _seconds(value: float) -> Fraction:
    """Engine times to nine digits: short fractions keep the exact arithmetic of the checker fast."""
    return Fraction(f"{value:.9g}")


def _load_rows(problem: PoolsProblem, first: int) -> list[Row]:
    classes = len(problem.classes)
    rows: list[Row] = []
    for index, engine in enumerate(problem.engines):
        times = tuple((first + index * classes + c, _seconds(engine.seconds[c])) for c in range(classes))
        rows.append(Row(f"time {engine.name}", (*times, (index, -problem.discount(engine.role))), Fraction(0)))
    return rows


def _flow_rows(problem: PoolsProblem, first: int, rate: int) -> list[Row]:
    classes = len(problem.classes)
    rows: list[Row] = []
    pools = sorted({engine.pool for engine in problem.engines if engine.role is not Role.AGGREGATED})
    for position, one in enumerate(problem.classes):
        for pool in pools:
            terms = tuple(
                (first + index * classes + position, Fraction(1 if engine.role is Role.DECODE else -1))
                for index, engine in enumerate(problem.engines)
                if engine.role is not Role.AGGREGATED and engine.pool == pool
            )
            rows.append(Row(f"flow {pool}/{one.name}", terms, Fraction(0), equal=True))
        served = tuple(
            (first + index * classes + position, Fraction(-1))
            for index, engine in enumerate(problem.engines)
            if engine.role is not Role.PREFILL
        )
        rows.append(Row(f"share {one.name}", (*served, (rate, Fraction(f"{one.share:.12g}"))), Fraction(0)))
    return rows


def _gpu_rows(problem: PoolsProblem, pool: GpuPool) -> list[Row]:
    """GPUs in total; and for every engine size, how many pieces of that size the nodes have.

    Engines of size s or more occupy at least gpus // s pieces of size s. For sizes that divide one another these rows
    are also enough: largest first, everything fits.
    """
    mine = [(index, engine.gpus) for index, engine in enumerate(problem.engines) if engine.gpu == pool.gpu]
    rows = [Row(f"gpus {pool.gpu}", tuple((i, Fraction(g)) for i, g in mine), Fraction(pool.total))]
    if not problem.within_nodes:
        return rows
    for size in sorted({gpus for _, gpus in mine if gpus > 1}):
        pieces = sum(room // size for room in pool.nodes) if size <= max(pool.nodes) else pool.total // size
        if pieces * size < pool.total:
            terms = tuple((i, Fraction(g // size)) for i, g in mine if g >= size)
            rows.append(Row(f"pieces of {size} {pool.gpu}", terms, Fraction(pieces)))
    return rows
