"""Interpolation on a grid with holes, in logarithmic coordinates.

A grid stores the logarithm of measured over estimated, so what varies fast (work, bytes, waves) is carried by the
estimate and the interpolation only bends it. Between points it is multilinear in the logarithms of the coordinates;
outside it keeps the ratio of the edge. At a measured point the measurement comes back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from treadle.ir.errors import InvalidValue

Floats = NDArray[np.float64]
Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """Log ratios over the product of `axes` (ascending logarithms of coordinates); NaN where nothing was measured."""

    axes: tuple[Floats, ...]
    values: Floats
    _filled: dict[Index, float] = field(default_factory=dict[Index, float], repr=False)

    @staticmethod
    def of(points: Sequence[Sequence[float]] | Floats, ratios: Iterable[float] | Floats) -> Grid:
        """Build a grid from coordinates (all positive) and measured-over-estimated ratios.

        Of several ratios at one point the smallest counts: the fastest kernel that was measured.
        """
        coordinates = np.log(np.asarray(points, dtype=np.float64))
        if coordinates.ndim != 2 or not len(coordinates):
            raise InvalidValue(message="a grid needs at least one measured point")
        axes = tuple(np.unique(coordinates[:, column]) for column in range(coordinates.shape[1]))
        places = tuple(np.searchsorted(axis, coordinates[:, column]) for column, axis in enumerate(axes))
        values = np.full([len(axis) for axis in axes], np.inf)
        np.minimum.at(values, places, np.log(np.fromiter(ratios, dtype=np.float64)))
        values[np.isinf(values)] = np.nan
        return Grid(axes, values)

    def ratio(self, point: Sequence[float]) -> float:
        """Return measured over estimated at a point of positive coordinates."""
        brackets = [_bracket(axis, math.log(value)) for axis, value in zip(self.axes, point, strict=True)]
        total = weight_sum = 0.0
        for corner in product(*brackets):
            weight = math.prod(share for _, share in corner)
            if weight > 0:
                value = self._value(tuple(place for place, _ in corner))
                if not math.isnan(value):
                    total += weight * value
                    weight_sum += weight
        return math.exp(total / weight_sum) if weight_sum else self._nearest([math.log(value) for value in point])

    def _value(self, index: Index) -> float:
        """Return the log ratio at a grid point; a hole takes what its neighbours along the axes say, NaN if none."""
        stored = float(self.values[index])
        if not math.isnan(stored):
            return stored
        if index not in self._filled:
            self._filled[index] = self._fill(index)
        return self._filled[index]

    def _fill(self, index: Index) -> float:
        """Interpolate along each axis whose line has points on both sides; nearer pairs weigh more."""
        between: list[tuple[float, float]] = []
        beside: list[tuple[float, float]] = []
        for axis, position in enumerate(index):
            line = np.moveaxis(self.values, axis, -1)[(*index[:axis], *index[axis + 1 :])]
            known = np.flatnonzero(~np.isnan(line))
            below, above = known[known < position], known[known > position]
            places = self.axes[axis]
            if below.size and above.size:
                low, high = below[-1], above[0]
                gap = places[high] - places[low]
                share = (places[position] - places[low]) / gap
                between.append((float(gap**-2), float(line[low] * (1 - share) + line[high] * share)))
            elif known.size:
                nearest = above[0] if above.size else below[-1]
                beside.append((float(abs(places[nearest] - places[position]) ** -2), float(line[nearest])))
        votes = between or beside
        weight = sum(vote for vote, _ in votes)
        return float(sum(vote * value for vote, value in votes) / weight) if votes else math.nan

    def _nearest(self, place: list[float]) -> float:
        """Return the ratio of the measured point nearest in logarithms."""
        known = np.argwhere(~np.isnan(self.values))
        distance = np.zeros(len(known))
        for column, (axis, value) in enumerate(zip(self.axes, place, strict=True)):
            distance += (axis[known[:, column]] - value) ** 2
        return math.exp(float(self.values[tuple(known[int(distance.argmin())])]))


def _bracket(axis: Floats, value: float) -> tuple[tuple[int, float], ...]:
    """Return the grid positions around a value with their weights; one position at a grid line or beyond the ends."""
    high = int(np.searchsorted(axis, value))
    nearest = min(max(high, 0), len(axis) - 1)
    for position in (nearest, max(0, nearest - 1)):
        if math.isclose(axis[position], value, abs_tol=1e-9):
            return ((position, 1.0),)
    if high == 0 or high == len(axis):
        return ((nearest, 1.0),)
    share = float((value - axis[high - 1]) / (axis[high] - axis[high - 1]))
    return (high - 1, 1 - share), (high, share)
