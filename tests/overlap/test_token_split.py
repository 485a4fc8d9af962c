"""Wave-aware splits of a batch against trying every split."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.ir.errors import InvalidValue
from treadle.ir.operator.waves import Tiling
from treadle.solvers.overlap.token_split import brute_force_split, token_split

TILINGS = st.builds(
    Tiling,
    tile_rows=st.sampled_from([1, 3, 16, 64, 128]),
    sm_count=st.integers(1, 150),
    column_tiles=st.lists(st.integers(1, 60), min_size=1, max_size=4).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(TILINGS, st.integers(1, 1200))
def test_split_equals_brute_force(tiling: Tiling, tokens: int) -> None:
    found = token_split(tiling, tokens)
    assert found == brute_force_split(tiling, tokens)
    assert 0 <= found.first <= tokens // 2
    assert found.waves == tiling.waves(tokens) == tiling.waves(found.first) + tiling.waves(tokens - found.first)


def test_a_batch_that_fills_whole_waves_is_halved() -> None:
    assert token_split(Tiling(128, 4, (4,)), 1024).first == 512


def test_a_batch_of_one_wave_stays_whole() -> None:
    assert token_split(Tiling(128, 132, (8,)), 1024).first == 0


def test_bad_tilings_and_batches() -> None:
    with pytest.raises(InvalidValue, match="at least one"):
        Tiling(128, 0, (4,))
    with pytest.raises(InvalidValue, match="at least one"):
        Tiling(128, 132, ())
    with pytest.raises(InvalidValue, match="0 tokens"):
        token_split(Tiling(128, 132, (4,)), 0)
