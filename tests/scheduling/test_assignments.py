"""Walks over assignments to groups: what they claim holds, and a short oracle agrees with the solver."""

from __future__ import annotations

import random

import pytest

from benchmarks.warp_oracle import MOST_II, compare, random_warps
from tests.scheduling.warp_loops import two_tiles
from treadle.ir.tile import assignments as walks
from treadle.ir.tile.assignments import WalkTooLong, assignments, least, least_interval
from treadle.ir.tile.exhaustive_warps import TooLarge, best_rank


def test_random_loops_equal_exhaustive_search() -> None:
    draw = random.Random(7)
    compared = 0
    while compared < 12:
        warps = random_warps(draw)
        try:
            expected = best_rank(warps, MOST_II, 30_000)
        except TooLarge:
            continue
        row = compare(warps, expected)
        assert not row["differs"], row
        assert not row["findings"], row
        compared += 1


def test_the_cheapest_assignment_of_two_tiles() -> None:
    warps = two_tiles()
    assert least(warps, 19, {}, "traffic_bytes", 1000) == 0
    assert least(warps, 19, {"traffic_bytes": 0}, "groups", 100) == 3
    assert [needs.levels["registers"] for needs in assignments(warps, 19, {"traffic_bytes": 0, "groups": 3})] == [20]
    assert least(warps, 19, {"traffic_bytes": 0}, "groups", 3) == 3


def test_issue_and_recurrences_set_the_pace() -> None:
    # Two groups besides the load issue 11 cycles each; the recurrence of 19 cycles is longer.
    assert least_interval(two_tiles(), 1, 100) == 19
    assert least_interval(two_tiles(most_groups=2), 1, 100) == 22


def test_a_walk_that_is_too_long_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "MOST_NODES", 3)
    with pytest.raises(WalkTooLong):
        least(two_tiles(), 19, {}, "traffic_bytes", 1000)
