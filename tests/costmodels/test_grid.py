import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.costmodels.grid import Grid
from treadle.ir.errors import InvalidValue

AXES = ((1.0, 2.0, 8.0), (16.0, 32.0, 100.0, 128.0))
POINTS = [(x, y) for x in AXES[0] for y in AXES[1]]


def power_law(x: float, y: float) -> float:
    """Linear in logarithms, so multilinear interpolation has no error."""
    return float(1.7 * x**0.3 * y**-0.4)


FULL = Grid.of(POINTS, [power_law(*point) for point in POINTS])


def test_measured_points_come_back() -> None:
    for point in POINTS:
        assert FULL.ratio(point) == pytest.approx(power_law(*point), rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.floats(1, 8), st.floats(16, 128))
def test_power_laws_are_exact_inside(x: float, y: float) -> None:
    assert FULL.ratio((x, y)) == pytest.approx(power_law(x, y), rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 1000), st.floats(0.1, 10**5))
def test_outside_the_edge_counts(x: float, y: float) -> None:
    edge = (min(max(x, 1.0), 8.0), min(max(y, 16.0), 128.0))
    assert FULL.ratio((x, y)) == pytest.approx(FULL.ratio(edge), rel=1e-9)


@pytest.mark.parametrize("hole", POINTS)
def test_holes_are_filled_from_their_axes(hole: tuple[float, float]) -> None:
    kept = [point for point in POINTS if point != hole]
    grid = Grid.of(kept, [power_law(*point) for point in kept])
    inside = hole[0] == 2.0 or hole[1] in (32.0, 100.0)
    assert grid.ratio(hole) == pytest.approx(power_law(*hole), rel=1e-9 if inside else 0.5)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_interpolation_stays_between_the_values(data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.sampled_from(POINTS), min_size=1, unique=True))
    values = data.draw(st.lists(st.floats(0.1, 10), min_size=len(kept), max_size=len(kept)))
    point = (data.draw(st.floats(0.5, 20)), data.draw(st.floats(8, 300)))
    found = Grid.of(kept, values).ratio(point)
    assert min(values) * (1 - 1e-9) <= found <= max(values) * (1 + 1e-9)


def test_the_fastest_of_several_measurements_counts() -> None:
    assert Grid.of([(1, 1), (1, 1)], [3.0, 2.0]).ratio((1, 1)) == pytest.approx(2.0)


def test_a_single_point_answers_everything() -> None:
    assert Grid.of([(4, 4)], [1.5]).ratio((100, 0.1)) == pytest.approx(1.5)


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(InvalidValue):
        Grid.of(np.empty((0, 2)), [])


def test_far_corners_fall_back_to_the_nearest_point() -> None:
    grid = Grid.of([(1, 1, 1), (2, 2, 2), (4, 4, 4)], [1.0, 2.0, 4.0])
    assert grid.ratio((2, 2, 2)) == pytest.approx(2.0)
    assert math.isfinite(grid.ratio((1.4, 2.9, 3.9)))
