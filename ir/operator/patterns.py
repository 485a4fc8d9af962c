"""Which operators may run at the same time, and the period that this alone forces."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from math import ceil, lcm

from treadle.ir.operator.lane_patterns import heaviest
from treadle.ir.operator.lanes import Row, rows_of
from treadle.ir.operator.loop import Mode, OperatorLoop, Stream

Pattern = tuple[tuple[str, Mode], ...]
"""Operators with their modes that run at the same time."""

LARGEST = 200_000
"""Patterns beyond which the bound is not attempted."""


def never_together(loop: OperatorLoop) -> dict[str, frozenset[str]]:
    """Return for each operator those that cannot run beside it in any legal schedule.

    Periodic: `u` and `v` on a common cycle of total distance 1, since `v` then lies between two runs of `u`.
    One-shot: those with a path between them.
    """
    names = list(loop.index)
    far = len(names) * (1 + sum(d.distance for d in loop.dependences)) + 1
    steps = {(u, v): far for u in names for v in names}
    for dependence in loop.dependences:
        edge = dependence.source, dependence.target
        steps[edge] = min(steps[edge], dependence.distance)
    for middle, u, v in product(names, names, names):
        steps[u, v] = min(steps[u, v], steps[u, middle] + steps[middle, v])

    def apart(u: str, v: str) -> bool:
        around = steps[u, v] + steps[v, u]
        return around <= 1 if loop.periodic else min(steps[u, v], steps[v, u]) < far

    return {u: frozenset(v for v in names if v == u or apart(u, v)) for u in names}


def patterns(loop: OperatorLoop) -> Iterator[Pattern]:
    """Yield every set of operators, with modes, that may run at the same time and fits the streams."""
    apart = never_together(loop)
    capacities = {stream.name: stream.capacity_milli for stream in loop.streams}
    yield from _grow(loop, apart, (), list(loop.index), capacities)


def _grow(
    loop: OperatorLoop, apart: dict[str, frozenset[str]], chosen: Pattern, allowed: list[str], left: dict[str, int]
) -> Iterator[Pattern]:
    for position, name in enumerate(allowed):
        rest = [other for other in allowed[position + 1 :] if other not in apart[name]]
        for mode in loop.operator(name).modes:
            if any(share > left[stream] for stream, share in mode.shares_milli.items()):
                continue
            grown = (*chosen, (name, mode))
            yield grown
            if rest:
                remaining = {stream: free - mode.shares_milli.get(stream, 0) for stream, free in left.items()}
                yield from _grow(loop, apart, grown, rest, remaining)


WEIGHT_BITS = 50
"""Rates of lanes are rounded up to whole parts: the most of them has about this many bits."""


def pattern_bound_ns(loop: OperatorLoop, weights: dict[str, Fraction]) -> Fraction:
    """Return the period that patterns force, for multipliers `weights >= 0` by operator.

    While a pattern runs for a time t, operator v in mode m completes t / duration(v, m) of itself. With
    `lambda` the most weight per ns that any pattern completes, the period is at least `sum(weights) / lambda`.
    """
    rates: dict[tuple[str, str], Fraction] = {}
    for operator in loop.operators:
        weight = weights.get(operator.name, Fraction(0))
        if weight < 0:
            return Fraction(0)
        rates |= {(operator.name, mode.name): weight / mode.duration_ns for mode in operator.modes}
    rows = rows_of(loop)
    most = _most_of_all(loop, rates) if rows is None else _most_of_lanes(rows, loop.streams, rates)
    total = sum((weights.get(name, Fraction(0)) for name in loop.index), Fraction(0))
    return total / most if most else Fraction(0)


def _most_of_all(loop: OperatorLoop, rates: dict[tuple[str, str], Fraction]) -> Fraction:
    """Most weight per ns, by listing every pattern."""
    denominator = lcm(*(rate.denominator for rate in rates.values()))
    whole = {key: rate.numerator * (denominator // rate.denominator) for key, rate in rates.items()}
    most = max((sum(whole[name, mode.name] for name, mode in pattern) for pattern in patterns(loop)), default=0)
    return Fraction(most, denominator)


def _most_of_lanes(
    rows: tuple[Row, ...], streams: tuple[Stream, ...], rates: dict[tuple[str, str], Fraction]
) -> Fraction:
    """Most weight per ns of lanes; rounded up, which only lowers the bound."""
    largest = max(rates.values(), default=Fraction(0))
    if not largest:
        return Fraction(0)
    unit = Fraction(largest, 2**WEIGHT_BITS)
    found = heaviest(rows, streams, {key: ceil(rate / unit) for key, rate in rates.items()}, 1)
    most: Fraction = int(found.weight[0]) * unit
    return most
