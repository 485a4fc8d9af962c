"""A bound on a grouping that sees what a round with a long sequence leaves to others: prices of rounds.

Prices of the sequences add up to a bound when no round holds more of them than it lasts. Let N ranks hold M tokens each
and w be a sequence's work. All but the longest few sequences are *short* (at most `s` tokens) and cost

    w / N + fixed tokens / (N M)

so a rank holds at most `V = fixed + M (linear + quadratic s)` N-ths of them, however long a round lasts: a rank that
waits for a long sequence soon has nothing to do. With long sequences in groups of sizes g that last t, of a round that
lasts T, each rank leaves at least D = max(0, T - V) of the round unpaid, so long sequences may together cost

    D + sum over their groups of g / N max(0, t - fixed - D)

Their prices are given; that no set of them costs more is checked over all D (in steps, each at its worst) by adding
sequences to ranks. Those that share a group are relaxed to ranks in the share of their work; ring time counts in groups
where attention hides none of it for any long sequence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.training_grouping import time_us, work_us
from treadle.ir.training.grouping import GroupingProblem

_STEPS = 64
"""Steps of D beside those where a sequence's own group ends."""
Line = NDArray[np.float64]


class RoundPrices:
    """The prices of one problem with so many long sequences."""

    def __init__(self, problem: GroupingProblem, longs: int) -> None:
        ordered = sorted(problem.lengths, reverse=True)
        self.problem, self._long, self._short = problem, ordered[:longs], ordered[longs:]
        costs, room = problem.costs, problem.tokens_per_rank
        most = self._short[0] if self._short else 0
        self._waiting_us = costs.fixed_us + room * (costs.linear_us + costs.quadratic_us * most)
        self._alone = {
            size: np.array([time_us(problem, size, length, length * length) for length in self._long])
            for size in problem.sizes
        }
        for size, times in self._alone.items():
            times[np.array(self._long) > size * room] = np.inf
        self._works = np.array([work_us(problem, length) for length in self._long])
        self.least = self._works / problem.ranks
        """Prices that are always valid: work over all ranks."""
        finite = np.concatenate([times[np.isfinite(times)] for times in self._alone.values()])
        ends = np.unique(np.maximum(0.0, finite - self._waiting_us))
        self._grid = np.unique(np.concatenate(([0.0], ends, np.linspace(0.0, max(ends, default=0.0), _STEPS))))
        self.most = np.maximum(self.least, self._solo_us())
        """The most a sequence may cost when it runs without other long ones."""

    def _solo_us(self) -> Line:
        """Return what each long sequence may cost when it runs without other long ones, on its best group."""
        costs, ranks = self.problem.costs, self.problem.ranks
        found = np.full(len(self._long), np.inf)
        for size, times in self._alone.items():
            unpaid = np.maximum(0.0, times - self._waiting_us)
            with np.errstate(invalid="ignore"):
                price = unpaid + size / ranks * np.maximum(0.0, times - costs.fixed_us - unpaid)
            found = np.where(np.isfinite(times), np.minimum(found, price), found)
        return found

    def bound_us(self, prices: Line) -> float:
        """Return the bound of these prices of the long sequences; 0 where some set costs more than its round."""
        return self.total_us(prices) if self.valid(prices) else 0.0

    def total_us(self, prices: Line) -> float:
        """Return what all sequences cost."""
        problem = self.problem
        tokens = problem.costs.fixed_us / (problem.ranks * problem.tokens_per_rank)
        short = sum(work_us(problem, length) / problem.ranks + tokens * length for length in self._short)
        return float(prices.sum()) + short

    def valid(self, prices: Line) -> bool:
        """Whether no set of long sequences costs more than a round has for it.

        Sets that are each in a group of its own are asked at the D of their longest group. More of D never makes a set
        dearer, so those with some that share groups are asked at the beginning of the step of D that they end in; what
        of these counts is what is beyond their ranks' part of D, which those that share can always fill.
        """
        ranks, unpaid = self.problem.ranks, self._grid
        ends = np.append(unpaid[1:], unpaid[-1]) + self._waiting_us
        apart = np.zeros((len(unpaid), ranks + 1))
        early, mixed = apart.copy(), np.full_like(apart, -np.inf)
        rate = (unpaid / ranks)[:, None]
        for number, price in enumerate(prices.tolist()):
            early_before, mixed_before = early.copy(), mixed.copy()
            own = self._own(number, price)
            apart = _with_one(apart, apart, own, unpaid + self._waiting_us)
            early = _with_one(early, early, own, ends)
            paid = {size: (time, worth - size * rate) for size, (time, worth) in own.items()}
            mixed = _with_one(mixed, mixed, paid, ends)
            taken, beyond = self._shared(number, price, ends)
            started = np.maximum(mixed_before, early_before - np.arange(ranks + 1) * rate)
            mixed = np.maximum(mixed, _later(started, taken) + beyond)
        most = np.maximum(apart.max(axis=1), mixed.max(axis=1) + unpaid)
        return bool((most <= unpaid + 1e-9 * (1 + ends)).all())

    def _own(self, number: int, price: float) -> dict[int, tuple[float, Line]]:
        """Return, for every size of a group of its own, its time and how far the price is above what its ranks pay."""
        ranks, fixed = self.problem.ranks, self.problem.costs.fixed_us
        found: dict[int, tuple[float, Line]] = {}
        for size, times in self._alone.items():
            time = float(times[number])
            if time < np.inf:
                spare = np.maximum(0.0, time - fixed - self._grid)[:, None]
                found[size] = time, price - size / ranks * spare
        return found

    def _shared(self, number: int, price: float, limit: Line) -> tuple[NDArray[np.int64], float]:
        """Return the ranks a long sequence takes at least in a group it shares, per step, and what its price is above
        its work there over all ranks."""
        problem, length = self.problem, self._long[number]
        room, fixed = problem.tokens_per_rank, problem.costs.fixed_us
        least, beyond = np.full(len(limit), problem.ranks + 1.0), -np.inf
        for size in problem.sizes:
            if len(self._long) == 1 or length + self._long[-1] > size * room:
                continue
            work = float(self._works[number]) + size * max(0.0, self._ring_us(size, length))
            needed = work / np.maximum(limit - fixed, 1e-9)
            least = np.where(needed <= size, np.minimum(least, needed), least)
            beyond = max(beyond, price - work / problem.ranks)
        return np.floor(least + 1e-9).astype(np.int64), beyond

    def _ring_us(self, size: int, length: int) -> float:
        """Return a sequence's ring time that attention does not hide, 0 where it hides some for any long one."""
        costs = self.problem.costs
        rate = costs.near_us if size <= self.problem.domain else costs.far_us
        if rate < costs.quadratic_us * self._long[0] / size:
            return 0.0
        return (size - 1) / size * (rate * length - costs.quadratic_us * length * length / size)


def _with_one(before: Line, values: Line, own: dict[int, tuple[float, Line]], limit: Line) -> Line:
    """Return `values` or, where that is more, `before` with one more sequence in a group that ends by the limit."""
    best = values.copy()
    for size, (time, worth) in own.items():
        rows = time <= limit * (1 + 1e-12)
        best[rows, size:] = np.maximum(best[rows, size:], before[rows, :-size] + worth[rows])
    return best


def _later(values: Line, by: NDArray[np.int64]) -> Line:
    """Return every row moved to the right by its number of places."""
    places = np.arange(values.shape[1])[None, :] - by[:, None]
    return np.where(places >= 0, np.take_along_axis(values, np.maximum(places, 0), axis=1), -np.inf)
