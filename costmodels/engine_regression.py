"""Latencies of whole engines learned from measured end-to-end points: a Gaussian process in logarithms.

A point is a deployment (categories: model, system, framework, ...; sizes: concurrency, degrees, lengths) with a
measured latency. The prior mean is linear in the logarithms of the sizes; residuals are correlated by a
squared-exponential kernel over log sizes, multiplied by a factor below one for each category in which two points
differ. Prediction is the posterior mean (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treadle.ir.errors import InvalidValue

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """One deployment: category words, and positive sizes; all points of a fit have the same numbers of both."""

    categories: tuple[str, ...]
    sizes: tuple[float, ...]

    def __post_init__(self) -> None:
        if any(not 0 < size < float("inf") for size in self.sizes):
            raise InvalidValue(message=f"a point has the sizes {self.sizes}; expected positive ones")


@dataclass(frozen=True, slots=True)
class Kernel:
    """Length scale in log size, correlation kept per differing category, and variance of the noise."""

    likeness: tuple[float, ...]
    scale: float = 3.0
    noise: float = 0.02


@dataclass(frozen=True, eq=False)
class Regression:
    """A fitted regression."""

    kernel: Kernel
    codes: tuple[dict[str, int], ...]
    known: NDArray[np.int64]
    sizes: Floats
    centre: Floats
    slopes: Floats
    weights: Floats

    def predict(self, points: Sequence[Point]) -> Floats:
        """Return latencies in the unit of the fit; unknown categories differ from all known ones."""
        sizes = _logs(points)
        codes = _encode(points, self.codes)
        mean = _design(sizes, self.centre) @ self.slopes
        logarithms: Floats = mean + _correlations(sizes, self.sizes, codes, self.known, self.kernel) @ self.weights
        return np.exp(logarithms)


def fit(points: Sequence[Point], latencies: Sequence[float], kernel: Kernel) -> Regression:
    """Fit measured latencies (positive, any unit).

    Raises:
        InvalidValue: no points, different lengths, a latency that is not positive, or a wrong number of categories.
    """
    if not points or len(points) != len(latencies) or min(latencies) <= 0:
        raise InvalidValue(message="a regression needs points, and one positive latency for each")
    if len(points[0].categories) != len(kernel.likeness):
        raise InvalidValue(message=f"the kernel knows {len(kernel.likeness)} categories")
    words = [sorted({point.categories[j] for point in points}) for j in range(len(kernel.likeness))]
    codes = tuple({word: index for index, word in enumerate(column)} for column in words)
    sizes, known, target = _logs(points), _encode(points, codes), np.log(np.array(latencies))
    centre = sizes.mean(axis=0)
    design = _design(sizes, centre)
    slopes: Floats = np.asarray(np.linalg.lstsq(design, target, rcond=None)[0], dtype=np.float64)
    covariance = _correlations(sizes, sizes, known, known, kernel) + kernel.noise * np.eye(len(points))
    weights: Floats = np.asarray(np.linalg.solve(covariance, target - design @ slopes), dtype=np.float64)
    return Regression(kernel, codes, known, sizes, centre, slopes, weights)


def _logs(points: Sequence[Point]) -> Floats:
    return np.log(np.array([point.sizes for point in points], dtype=np.float64))


def _design(sizes: Floats, centre: Floats) -> Floats:
    return np.hstack([np.ones((len(sizes), 1)), sizes - centre])


def _encode(points: Sequence[Point], codes: tuple[dict[str, int], ...]) -> NDArray[np.int64]:
    rows = [[code.get(word, -1) for word, code in zip(point.categories, codes, strict=True)] for point in points]
    return np.array(rows, dtype=np.int64)


def _correlations(
    one: Floats, other: Floats, codes: NDArray[np.int64], others: NDArray[np.int64], kernel: Kernel
) -> Floats:
    squares = np.zeros((len(one), len(other)))
    for column in range(one.shape[1]):
        squares += (one[:, None, column] - other[None, :, column]) ** 2
    product: Floats = np.exp(-0.5 * squares / kernel.scale**2)
    for column, kept in enumerate(kernel.likeness):
        product *= np.where(codes[:, None, column] == others[None, :, column], 1.0, kept)
    return product
