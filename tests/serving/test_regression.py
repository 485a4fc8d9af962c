"""The regression of engine latencies: recovers what it has seen, follows laws, refuses nonsense."""

from __future__ import annotations

import numpy as np
import pytest

from treadle.costmodels.engine_regression import Kernel, Point, fit
from treadle.ir.errors import InvalidValue

POINTS = [Point((word,), (float(a), float(b))) for word in "xy" for a in (1, 2, 4, 8, 16) for b in (1, 4, 16)]


def law(point: Point) -> float:
    factor = 3.0 if point.categories == ("x",) else 5.0
    return float(factor * point.sizes[0] ** 0.7 / point.sizes[1] ** 0.2)


def test_a_power_law_with_category_factors_is_recovered_between_points() -> None:
    model = fit(POINTS, [law(point) for point in POINTS], Kernel((0.3,), noise=1e-6))
    unseen = [Point(("x",), (3.0, 2.0)), Point(("y",), (12.0, 8.0))]
    assert model.predict(unseen) == pytest.approx([law(point) for point in unseen], rel=0.02)
    assert np.isfinite(model.predict([Point(("z",), (3.0, 2.0))])).all()


def test_nonsense_is_refused() -> None:
    with pytest.raises(InvalidValue):
        fit([], [], Kernel(()))
    with pytest.raises(InvalidValue):
        fit(POINTS[:1], [-1.0], Kernel((0.3,)))
    with pytest.raises(InvalidValue, match="categories"):
        fit(POINTS[:1], [1.0], Kernel((0.3, 0.3)))
    with pytest.raises(InvalidValue, match="positive"):
        Point(("x",), (0.0,))
