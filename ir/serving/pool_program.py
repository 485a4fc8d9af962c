"""The mixed-integer program of engine pools, as solver and checker both build it.

Variables: engines per candidate (integer); requests/s per candidate and class; total requests/s `z`; GPUs used per type
(integer, worth branching on first: the price depends on nothing else). Rows: engine time, flow of each class within
each pool, share of each class in `z`, GPUs per type, whole engines inside nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from treadle.ir.serving.pools import Engine, GpuPool, Objective, PoolsProblem, Role
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
        )
        for engine in problem.engines
    ]
    flows = Flows.of(problem)
    most = Fraction(0)
    for engine, position in flows.columns:
        upper = Fraction(limits[engine.gpu] // engine.gpus) / _seconds(engine.seconds[max(position, 0)])
        most += upper
        takes = position < 0 or engine.takes(position)
        name = f"{engine.name}/{problem.classes[position].name}" if position >= 0 else f"{engine.name}/mix"
        variables.append(Variable(name, Fraction(0), upper if takes else Fraction(0), False))
    rate = Fraction(str(problem.rate_per_s))
    variables.append(
        Variable("rate", Fraction(0) if maximising else rate, most if maximising else rate, False, Fraction(maximising))
    )
    rows = [*_load_rows(problem, flows), *_flow_rows(problem, flows, len(variables) - 1)]
    first = len(variables)
    for pool in problem.gpus:
        worth = Fraction(0) if maximising else -problem.price_per_gpu(pool, problem.objective)
        variables.append(Variable(f"gpus {pool.gpu}", Fraction(0), Fraction(pool.total), True, worth, first=True))
        rows += _gpu_rows(problem, pool, len(variables) - 1)
    if problem.budget:
        terms = tuple(
            (first + index, problem.price_per_gpu(pool, problem.budget_in)) for index, pool in enumerate(problem.gpus)
        )
        rows.append(Row("budget", terms, Fraction(str(problem.budget))))
    return Program(tuple(variables), tuple(rows))


@dataclass(frozen=True, slots=True)
class Flows:
    """The rate variables: one per engine and class, or one per engine whose classes come in natural proportion.

    `columns` names engine and class position (-1: the mix) of each; `first` is the position of the first in the
    program, after the engine counts. `parts[c]` are (variable, engine, factor) of class `c`.
    """

    first: int
    columns: tuple[tuple[Engine, int], ...]
    parts: tuple[tuple[tuple[int, Engine, Fraction], ...], ...]

    @classmethod
    def of(cls, problem: PoolsProblem) -> Flows:
        """Lay out the rate variables of a problem."""
        first, classes = len(problem.engines), range(len(problem.classes))
        if not problem.natural_mix:
            columns = tuple((engine, position) for engine in problem.engines for position in classes)
            parts = tuple(
                tuple(
                    (first + index * len(classes) + position, engine, Fraction(1))
                    for index, engine in enumerate(problem.engines)
                )
                for position in classes
            )
            return cls(first, columns, parts)
        return cls(
            first,
            tuple((engine, -1) for engine in problem.engines),
            tuple(
                tuple(
                    (first + index, engine, part)
                    for index, engine in enumerate(problem.engines)
                    if (part := problem.part(engine, position))
                )
                for position in classes
            ),
        )


def routing_of(problem: PoolsProblem, values: Sequence[Fraction]) -> tuple[tuple[float, ...], ...]:
    """Return requests/s by engine and class from the values of all variables."""
    flows = Flows.of(problem)
    by_engine = {engine.name: [0.0] * len(problem.classes) for engine in problem.engines}
    for position, parts in enumerate(flows.parts):
        for variable, engine, factor in parts:
            by_engine[engine.name][position] = float(values[variable] * factor)
    return tuple(tuple(by_engine[engine.name]) for engine in problem.engines)


def _seconds(value: float) -> Fraction:
    """Engine times to nine digits: short fractions keep the exact arithmetic of the checker fast."""
    return Fraction(f"{value:.9g}")


def _load_rows(problem: PoolsProblem, flows: Flows) -> list[Row]:
    times: dict[str, list[tuple[int, Fraction]]] = {engine.name: [] for engine in problem.engines}
    for offset, (engine, position) in enumerate(flows.columns):
        times[engine.name].append((flows.first + offset, _seconds(engine.seconds[max(position, 0)])))
    return [
        Row(f"time {engine.name}", (*times[engine.name], (index, -problem.discount(engine.role))), Fraction(0))
        for index, engine in enumerate(problem.engines)
    ]


def _flow_rows(problem: PoolsProblem, flows: Flows, rate: int) -> list[Row]:
    rows: list[Row] = []
    pools = sorted({engine.pool for engine in problem.engines if engine.role is not Role.AGGREGATED})
    for one, parts in zip(problem.classes, flows.parts, strict=True):
        for pool in pools:
            terms = tuple(
                (variable, factor if engine.role is Role.DECODE else -factor)
                for variable, engine, factor in parts
                if engine.role is not Role.AGGREGATED and engine.pool == pool
            )
            rows.append(Row(f"flow {pool}/{one.name}", terms, Fraction(0), equal=True))
        served = tuple((variable, -factor) for variable, engine, factor in parts if engine.role is not Role.PREFILL)
        rows.append(Row(f"share {one.name}", (*served, (rate, Fraction(f"{one.share:.12g}"))), Fraction(0), equal=True))
    return rows


def _gpu_rows(problem: PoolsProblem, pool: GpuPool, total: int) -> list[Row]:
    """GPUs in total (the variable at position `total`); for every engine size, how many pieces of it the nodes have.

    Engines of size s or more occupy at least gpus // s pieces of size s. For sizes that divide one another these rows
    are also enough: largest first, everything fits.
    """
    mine = [(index, engine.gpus) for index, engine in enumerate(problem.engines) if engine.gpu == pool.gpu]
    used = tuple((i, Fraction(g)) for i, g in mine)
    rows = [Row(f"gpus {pool.gpu}", (*used, (total, Fraction(-1))), Fraction(0), equal=True)]
    if not problem.within_nodes:
        return rows
    for size in sorted({gpus for _, gpus in mine if gpus > 1}):
        pieces = sum(room // size for room in pool.nodes) if size <= max(pool.nodes) else pool.total // size
        if pieces * size < pool.total:
            terms = tuple((i, Fraction(g // size)) for i, g in mine if g >= size)
            rows.append(Row(f"pieces of {size} {pool.gpu}", terms, Fraction(pieces)))
    return rows
