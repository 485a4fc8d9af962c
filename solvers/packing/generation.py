"""Column generation over contents of nodes: prices whose bound `costmodels/node_patterns.py` confirms.

Every round prices contents at a point between the best prices so far and the master's duals (smoothing: Wentges,
1997) and yields a valid bound. Few labels at first, more when nothing new turns up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from treadle.costmodels.node_contents import Integers, best_contents
from treadle.costmodels.node_patterns import MOST_LABELS, Patterns, Prices, constant_part, finish
from treadle.ir.cluster.objective import Measure
from treadle.solvers.packing.columns import Content, Floats, Master, Point

_UNIT = 2_000
_SMOOTH = 0.6
_MOST_NEW = 6
"""Columns taken per node and round."""
_FEW_LABELS = 2_000
_MORE = 5
LABEL_S = 4e-7
ROUND_S = 0.004
"""Deterministic seconds charged per label and per round."""


@dataclass(frozen=True, slots=True)
class Priced:
    """Prices, the bound in whole prices, how many columns were new, and whether no label was dropped."""

    prices: Prices
    total: int
    new: int
    exact: bool


class Generation:
    """A master with its best bound so far; `run` goes on from there."""

    def __init__(
        self,
        found: Patterns,
        level: Measure,
        earlier: Sequence[Measure],
        charge: Callable[[float], None],
        left: Callable[[], bool],
        wall_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.master = Master(found, level, earlier)
        self.level = level
        self.charge = charge
        self.labels = _FEW_LABELS
        self.bound: int | None = None
        self.prices: Prices | None = None
        self.converged = False
        self.left = left
        self.wall_s = wall_s
        self._center: Point | None = None
        self._best_total = -float("inf")

    def seed(self, contents: Sequence[Sequence[Content]]) -> None:
        """Add the contents of a placement, and those that first prices suggest."""
        for position, inside in enumerate(contents):
            self.master.add(position, ())
            for content in inside:
                self.master.add(position, content)
        if self._center is None:
            for point in _first_points(self.master):
                if self.left():
                    self._price(point)

    def run(self, value: int, *, through: bool = False) -> None:
        """Generate until the bound meets `value`, cannot meet it any more (unless `through`), or has converged."""
        while self.left() and self.bound != value and not self.converged:
            duals = self.master.solve(self.wall_s())
            if duals is None:
                return
            if not through and self.hopeless(value):
                return
            self._round(duals)

    def hopeless(self, value: int) -> bool:
        """Whether even the master's value, which no bound exceeds, does not meet the level's value."""
        reach = self._finish(int(np.ceil(self.master.value * _UNIT - 0.5)))
        return reach > value if self.level.maximize else reach < value

    def _round(self, duals: Point) -> None:
        smooth = _SMOOTH
        while True:
            priced = self._price(self._between(duals, smooth))
            if priced.new or not self.left():
                return
            if not smooth:
                if priced.exact or self.labels >= MOST_LABELS:
                    self.converged = True
                    return
                self.labels = min(MOST_LABELS, self.labels * _MORE)
            smooth = 0.0

    def _between(self, duals: Point, smooth: float) -> Point:
        if self._center is None or not smooth:
            return duals
        stay, arrive, levels = (
            smooth * center + (1 - smooth) * dual for center, dual in zip(self._center, duals, strict=True)
        )
        return stay, arrive, levels

    def _finish(self, total: int) -> int:
        return finish(self.master.found, self.level, self.master.earlier, total, _UNIT)

    def _price(self, point: Point) -> Priced:
        """Price contents at a point, add the new ones, and note the bound."""
        master, found = self.master, self.master.found
        stay, arrive, levels = (np.floor(part * _UNIT + 0.5).astype(np.int64) for part in point)
        multipliers = {one.name: int(m) for one, m in zip(master.earlier, levels.tolist(), strict=True) if m}
        prices = Prices(_UNIT, tuple(stay.tolist()), tuple(arrive.tolist()), multipliers)
        known = [max((_worth(content, stay, arrive) for content in columns), default=0) for columns in master.columns]
        lower = np.array(known, dtype=np.int64)
        contents = best_contents(found.offer, stay, arrive, lower, self.labels, self.left)
        self.charge(ROUND_S + contents.work * LABEL_S)
        total, new = constant_part(found, self.level, master.earlier, prices), 0
        for position, (upper, chosen) in enumerate(zip(contents.upper.tolist(), contents.chosen, strict=True)):
            total -= upper * len(found.members[position])
            new += sum(master.add(position, _content(inside)) for inside in chosen[:_MOST_NEW])
        self._note(point, prices, total)
        return Priced(prices, total, new, bool((contents.upper == contents.value).all()))

    def _note(self, point: Point, prices: Prices, total: int) -> None:
        if total > self._best_total:
            self._best_total, self._center = total, point
        bound = self._finish(total)
        if self.bound is None or (bound < self.bound if self.level.maximize else bound > self.bound):
            self.bound, self.prices = bound, prices


def _worth(content: Content, stay: Integers, arrive: Integers) -> int:
    return sum(int(stay[g]) * stays + int(arrive[g]) * arrives for g, stays, arrives in content)


def _content(chosen: tuple[tuple[int, bool], ...]) -> Content:
    counts: dict[int, list[int]] = {}
    for kind, stays in chosen:
        counts.setdefault(kind, [0, 0])[0 if stays else 1] += 1
    return tuple((kind, both[0], both[1]) for kind, both in sorted(counts.items()))


def _first_points(master: Master) -> list[Point]:
    """Return prices to begin with: in proportion to the size of pods, at some levels."""
    found, offer = master.found, master.found.offer
    largest = np.maximum(offer.capacity.max(axis=0, initial=1), 1)
    if not len(largest) or not len(found.kinds):
        return []
    sizes: Floats = (offer.weights / largest).mean(axis=1)
    copies = np.array([len(members) for members in found.members])
    room = float((offer.capacity / largest).mean(axis=1) @ copies)
    worth = sizes * (float(offer.counts.sum()) / max(room, 1e-9))
    if master.level.maximize:
        nothing = np.zeros(len(master.earlier))
        flat = [np.minimum(worth * scale, 1.0) for scale in (0.8, 0.9, 1.0, 1.1)]
        return [(one, one, nothing) for one in flat]
    runs = np.array([kind.running > 0 for kind in found.kinds])
    placed = np.array([4.0 if one.maximize else 0.0 for one in master.earlier])
    return [(worth * scale + 1.0, worth * scale - runs, placed * scale) for scale in (0.5, 1.0, 2.0, 4.0)]
