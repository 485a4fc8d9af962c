"""Regret of pools under disturbed engine times."""

from __future__ import annotations

import pytest

from tests.serving.test_pools import PLAN
from treadle.costmodels.serving_regret import rate_of, regret_of


def test_no_error_no_regret_and_more_error_no_less() -> None:
    none, some, more = (regret_of(PLAN, error) for error in (0.0, 0.1, 0.4))
    assert none is not None
    assert some is not None
    assert more is not None
    assert none.worst == pytest.approx(0.0, abs=1e-9)
    assert 0 <= some.median <= some.worst < 0.2
    assert more.worst >= some.worst


def test_rate_of_counts_is_the_plans_rate() -> None:
    assert rate_of(PLAN.problem, PLAN.pools.counts) == pytest.approx(float(PLAN.rate_per_s))
