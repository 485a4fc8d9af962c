"""Schedules with one thing wrong are rejected, each of them."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.warp_programs.cases import CASES, case
from tests.warp_programs.damaged_schedules import damaged_schedules
from treadle.ir.tile.warps import check_warps


@pytest.mark.parametrize(("name", "machine"), CASES)
def test_damaged_schedules_are_rejected(name: str, machine: str) -> None:
    solved = case(name, machine)
    assert check_warps(solved.warps, solved.made) == []
    kinds: Counter[str] = Counter()
    for kind, wrong in damaged_schedules(solved.warps, solved.made, 6):
        kinds[kind] += 1
        assert check_warps(solved.warps, wrong), kind
    assert sum(kinds.values()) >= 20
    assert len(kinds) >= 6
