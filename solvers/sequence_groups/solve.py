"""Groups of sequences: rounds filled one after the other, longest sequence first, then improved by moves and swaps.

A round's target is what the remaining sequences need on average, or the longest of them alone if that is more. A
sequence opens a group of the smallest size that holds it in time, or joins the fullest open group it fits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from treadle.costmodels.training_group_rounds import RoundPrices
from treadle.costmodels.training_grouping import bounds_us, fewest_rounds, priced_us, rounds_us, time_us, work_us
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.training.grouping import Group, GroupingBody, GroupingProblem
from treadle.solvers.interruption import requested

COST_MODEL = "treadle sequence groups (costmodels/training_grouping.py)"
_STRETCHES = (1.0, 1.02, 1.05, 1.1, 1.2)
"""Targets tried, over the average."""
_PATIENCE = 0.7
_LONGS, _HALVINGS = (1, 2, 3, 4, 6, 8, 12), 6
"""Numbers of sequences that are priced one by one, and steps to the highest price of each."""


@dataclass
class _Bin:
    """A group while it is being filled."""

    size: int
    tokens: int
    squares: int
    items: list[int]
    end_us: float


Round = list[_Bin]


class _Packer:
    """Fills rounds of one problem."""

    def __init__(self, problem: GroupingProblem) -> None:
        self.problem = problem
        lengths = problem.lengths
        self.order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
        self.work = [work_us(problem, length) for length in lengths]
        self._alone: dict[tuple[int, bool], float] = {}

    def alone(self, length: int, patient: bool) -> float:
        """Return the time of a sequence alone, on the fastest group or on the one with the least rank-time."""
        if (length, patient) not in self._alone:
            problem = self.problem
            sizes = [size for size in problem.sizes if length <= size * problem.tokens_per_rank]
            times = {size: time_us(problem, size, length, length * length) for size in sizes}
            best = min(sizes, key=lambda size: times[size] * (size if patient else 1))
            self._alone[length, patient] = times[best]
        return self._alone[length, patient]

    def packed(
        self, waiting: list[int], planned: int, stretch: float, least_size: int, patient: bool | None = False
    ) -> list[Round]:
        """Return rounds that hold the sequences `waiting` (longest first), with groups of at least `least_size`.

        `planned` rounds are aimed at; where sequences are left over there are more. A round lasts at least as long as
        its longest sequence on the group that is fastest for it, or, when `patient`, on the one that wastes least; or,
        when that is None, on the one of both that gets more work done per time.
        """
        problem, found = self.problem, list[Round]()
        while waiting:
            left = max(1, planned - len(found))
            volume = sum(self.work[number] for number in waiting) / problem.ranks
            target = (volume / left + problem.costs.fixed_us) * stretch
            manners = (True, False) if patient is None else (patient,)
            least = {self.alone(problem.lengths[waiting[0]], manner): None for manner in manners}
            trials = [self._round(waiting, max(target, end), least_size) for end in least]
            bins, waiting = max(trials, key=lambda trial: self._pace(trial[0])) if len(trials) > 1 else trials[0]
            found.append(bins)
        return found

    def _pace(self, bins: Round) -> float:
        """Return the work a round gets done per time."""
        done = sum(self.work[number] for group in bins for number in group.items)
        return done / max(group.end_us for group in bins)

    def _round(self, waiting: list[int], target: float, least_size: int) -> tuple[Round, list[int]]:
        problem, lengths = self.problem, self.problem.lengths
        bins: Round = []
        opened: Round = []
        free, later, limit = problem.ranks, list[int](), target * (1 + 1e-9)
        shortest = lengths[waiting[-1]]
        for number in waiting:
            length = lengths[number]
            best = self._best(opened, length, limit)
            if best is None:
                size = self._size(length, limit, least_size, free)
                if not size:
                    later.append(number)
                    continue
                best = _Bin(size, 0, 0, [], 0.0)
                bins.append(best)
                opened.append(best)
                free -= size
            _add(problem, best, number, length)
            if best.end_us + self.work[waiting[-1]] / best.size > limit or self._room(best) < shortest:
                opened.remove(best)
        return bins, later

    def _room(self, item: _Bin) -> int:
        return item.size * self.problem.tokens_per_rank - item.tokens

    def _size(self, length: int, limit: float, least: int, free: int) -> int:
        """Return the smallest size from `least` on that is in time, else the largest below; 0 for none."""
        problem, smaller = self.problem, 0
        for size in problem.sizes:
            if size > free:
                break
            if length > size * problem.tokens_per_rank or time_us(problem, size, length, length * length) > limit:
                continue
            if size >= least:
                return size
            smaller = size
        return smaller

    def _best(self, opened: Round, length: int, limit: float) -> _Bin | None:
        """Return the open group that ends latest with the sequence in it, within the limit."""
        problem, best, latest = self.problem, None, -1.0
        room = problem.tokens_per_rank
        for item in opened:
            if item.end_us > latest and item.tokens + length <= item.size * room:
                end = time_us(problem, item.size, item.tokens + length, item.squares + length * length)
                if end <= limit:
                    best, latest = item, item.end_us
        return best


def _add(problem: GroupingProblem, item: _Bin, number: int, length: int) -> None:
    item.items.append(number)
    item.tokens += length
    item.squares += length * length
    item.end_us = time_us(problem, item.size, item.tokens, item.squares)


def quick(problem: GroupingProblem) -> GroupingBody:
    """Return a grouping in tens of milliseconds."""
    packer, planned = _Packer(problem), fewest_rounds(problem)
    manners = ((True, least) for least in problem.sizes[:3:2])
    plans = [
        packer.packed(packer.order, planned, 1.0, least, patient)
        for patient, least in (*manners, (None, problem.sizes[min(2, len(problem.sizes) - 1)]))
    ]
    return _body(problem, min(plans, key=_total))


def solve(problem: GroupingProblem, repacks: int = 600, seed: int = 0) -> GroupingBody:
    """Return a better grouping: more targets and group sizes, then rounds repacked two at a time.

    Args:
        problem: the batch.
        repacks: pairs of rounds unpacked and packed again; one takes some milliseconds.
        seed: of the pairs, targets and sizes.
    """
    packer, planned = _Packer(problem), fewest_rounds(problem)
    best = min(
        (
            packer.packed(packer.order, rounds, stretch, least, patient)
            for patient in (True, None)
            for rounds in (planned, planned + 1)
            for stretch in _STRETCHES
            for least in problem.sizes[:5]
        ),
        key=_total,
    )
    bound, chance = max(bounds_us(problem).values()), random.Random(seed)
    place = {number: at for at, number in enumerate(packer.order)}
    for _ in range(repacks):
        if _total(best) <= bound * (1 + 1e-6) or requested():
            break
        best = _repacked(packer, best, chance, place)
    return _body(problem, best)


def _repacked(packer: _Packer, best: list[Round], chance: random.Random, place: dict[int, int]) -> list[Round]:
    """Return the rounds with some of them packed again, where that is faster."""
    count = min(len(best), chance.choice((1, 2, 2, 3)))
    chosen = sorted(chance.sample(range(len(best)), count))
    items = sorted((number for at in chosen for group in best[at] for number in group.items), key=place.__getitem__)
    stretch = 1.0 + 0.06 * chance.random() ** 2
    planned, least = chance.choice((count, max(1, count - 1))), chance.choice(packer.problem.sizes[:5])
    trial = packer.packed(items, planned, stretch, least, chance.random() < _PATIENCE or None)
    kept = [bins for at, bins in enumerate(best) if at not in chosen]
    return min(best, kept + trial, key=_total)


def prices(problem: GroupingProblem, rounds: int = 6) -> list[float]:
    """Return weights of group sizes that make `priced_us` large: each in turn, by golden section (it is concave)."""
    weights = [0.0] * len(problem.sizes)
    best = priced_us(problem, weights)
    for _ in range(rounds):
        before = best
        for place, size in enumerate(problem.sizes):
            low, high = 0.0, float(size)
            for _ in range(14):
                left, right = low + 0.382 * (high - low), low + 0.618 * (high - low)
                if _with(problem, weights, place, left) < _with(problem, weights, place, right):
                    low = left
                else:
                    high = right
            for value in (low, high, 0.0, float(size)):
                if (found := _with(problem, weights, place, value)) > best:
                    best, weights = found, [*weights[:place], value, *weights[place + 1 :]]
        if best <= before * (1 + 1e-6):
            break
    return weights


def round_prices(problem: GroupingProblem) -> tuple[list[float], float]:
    """Return prices of the longest sequences that make the bound by rounds large, and that bound.

    Each in turn, the longest first, as high as the others let it be.
    """
    best: tuple[list[float], float] = ([], 0.0)
    for longs in _LONGS:
        if longs > len(problem.lengths):
            break
        table = RoundPrices(problem, longs)
        prices = table.least.copy()
        for place in range(longs):
            low, high = float(table.least[place]), float(table.most[place])
            prices[place] = high
            for _ in range(_HALVINGS if high > low and not table.valid(prices) else 0):
                prices[place] = middle = (low + high) / 2
                low, high = (middle, high) if table.valid(prices) else (low, middle)
                prices[place] = low
        if table.total_us(prices) > best[1]:
            best = prices.tolist(), table.bound_us(prices)
    return best


def _with(problem: GroupingProblem, weights: list[float], place: int, value: float) -> float:
    return priced_us(problem, [*weights[:place], value, *weights[place + 1 :]])


def certificate(body: GroupingBody) -> Certificate:
    """Return the claim: total time, and the best of the bounds."""
    value, weights = sum(rounds_us(body)), prices(body.problem)
    by_rounds, rounds_us_bound = round_prices(body.problem)
    bounds = bounds_us(body.problem) | {"priced": priced_us(body.problem, weights), "rounds": rounds_us_bound}
    bound = max(bounds.values())
    closed = bound >= value * (1 - 1e-9)
    level = Level(
        "batch_time",
        "us",
        value,
        value if closed else bound,
        Status.OPTIMAL if closed else Status.FEASIBLE,
        ProofKind.LP_DUAL,
        {"weights": weights, "prices": by_rounds},
    )
    return Certificate("sequence-groups", COST_MODEL, (level,))


def _total(rounds: list[Round]) -> float:
    return sum(max(item.end_us for item in bins) for bins in rounds)


def _body(problem: GroupingProblem, rounds: list[Round]) -> GroupingBody:
    found: list[tuple[Group, ...]] = []
    for bins in rounds:
        first, groups = 0, list[Group]()
        for item in sorted((item for item in bins if item.items), key=lambda one: -one.size):
            groups.append(Group(first, item.size, tuple(sorted(item.items))))
            first += item.size
        found.append(tuple(groups))
    return GroupingBody(problem, tuple(groups for groups in found if groups))
