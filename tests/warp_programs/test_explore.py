"""Searching all interleavings agrees with the order of events, on sound programs and on damaged ones."""

from __future__ import annotations

import pytest

from tests.scheduling.warp_loops import two_tiles
from tests.warp_programs.cases import case, needed_slots
from tests.warp_programs.mutations import mutants
from treadle.ir.warp.check import check_warp_program
from treadle.ir.warp.explore import TooManyStates, explore
from treadle.ir.warp.facts import facts_of_loop
from treadle.ir.warp.lower import lower_schedule
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline import solve as pipeline


@pytest.mark.parametrize(("machine", "trips"), [("h100", 0), ("h100", 1), ("h100", 3), ("b200", 2), ("b200", 3)])
def test_gemm_has_no_bad_interleaving(machine: str, trips: int) -> None:
    assert explore(case("gemm", machine).lowered, trips) == []


@pytest.mark.parametrize("trips", [0, 1, 2])
def test_two_tiles_have_no_bad_interleaving(trips: int) -> None:
    warps = two_tiles()
    made = pipeline.schedule(warps, pipeline.Options(Limits(deterministic_s=1.0))).schedule
    assert explore(lower_schedule(warps, made, facts_of_loop(warps)), trips) == []


def test_whatever_the_search_finds_the_order_of_events_finds() -> None:
    solved = case("gemm", "h100")
    found = 0
    for kind, damaged in mutants(solved.lowered, needed_slots(solved.warps, solved.made), 2):
        try:
            bad = any(explore(damaged, trips, 4000) for trips in (1, 2, 4))
        except (TooManyStates, KeyError):
            continue
        if bad:
            found += 1
            assert check_warp_program(damaged), kind
    assert found >= 8


def test_a_search_is_stopped() -> None:
    with pytest.raises(TooManyStates, match="more than 10 states"):
        explore(case("gemm", "h100").lowered, 4, 10)
