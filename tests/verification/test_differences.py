"""Findings that compare what a plan holds with what was derived again say where the two first differ."""

from __future__ import annotations

from dataclasses import replace

from tests.scheduling.warp_loops import two_tiles
from treadle.verification.differences import first_difference


def test_first_place_and_both_values() -> None:
    warps = two_tiles()
    crossings = (warps.crossings[0], replace(warps.crossings[1], delay_cycles=77), *warps.crossings[2:])
    first = first_difference(warps, replace(warps, crossings=crossings))
    assert first.place == "crossings[1].delay_cycles"
    assert (first.expected, first.found) == (str(warps.crossings[1].delay_cycles), "77")


def test_what_is_left_out_and_what_is_long() -> None:
    first = first_difference({"a": [1, 2], "b": 1}, {"a": [1], "b": 2})
    assert (first.place, first.expected, first.found) == ("a[1]", "2", "left out")
    unlike = first_difference("x" * 100, 1)
    assert unlike.place == "all of it"
    assert len(unlike.expected) < 70
