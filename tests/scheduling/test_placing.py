"""Schedules without a search over times: placed one operation after the other, copies late, orders as they ran."""

from __future__ import annotations

import pytest

from tests.warp_programs.cases import CASES, case
from treadle.costmodels.warp_review import observed_starts
from treadle.ir.tile.warps import WarpLoop, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.closing import Found
from treadle.solvers.pipeline.late import with_late_copies
from treadle.solvers.pipeline.observed import as_observed
from treadle.solvers.pipeline.placing import placed_schedule
from treadle.solvers.pipeline.points import Point, value_at, warp_schedule
from treadle.solvers.pipeline.search import Search, searched
from treadle.solvers.pipeline.solve import OBJECTIVE


def _search(warps: WarpLoop, ii: int) -> Search:
    return searched(warps, network_of(warps.loop), ii, Budget.of(Limits(deterministic_s=0.1)), walkable=True)


def _given(name: str, machine: str) -> Point:
    solved = case(name, machine)
    return _point(solved.warps, solved.made.schedule.start_cycles, solved.made.groups)


def _point(warps: WarpLoop, starts: dict[str, int], groups: dict[str, int]) -> Point:
    return Point(tuple(starts[operation.name] for operation in warps.loop.operations), groups)


@pytest.mark.parametrize(("name", "machine"), [known for known in CASES if known != ("pair", "h100")])
def test_what_is_placed_is_legal(name: str, machine: str) -> None:
    warps = case(name, machine).warps
    ii = 3 * case(name, machine).made.schedule.ii_cycles
    search = _search(warps, ii)
    point = placed_schedule(search, {})
    assert point is not None
    assert check_warps(warps, warp_schedule(warps, search.network, ii, point)) == []


def test_what_is_placed_keeps_to_the_levels() -> None:
    warps = case("swiglu", "h200").warps
    search = _search(warps, 1024)
    least = value_at(warps, search.network, 1024, "barriers", _given("swiglu", "h200"))
    point = placed_schedule(search, {"barriers": least})
    assert point is not None
    assert value_at(warps, search.network, 1024, "barriers", point) == least


def test_nothing_is_placed_where_no_assignment_is_left() -> None:
    warps = case("gemm", "h100").warps
    assert placed_schedule(_search(warps, 512), {"barriers": 0}) is None


@pytest.mark.parametrize(("name", "machine"), CASES)
def test_copies_move_later_and_no_level_gets_worse(name: str, machine: str) -> None:
    solved = case(name, machine)
    warps, ii = solved.warps, solved.made.schedule.ii_cycles
    network = network_of(warps.loop)
    given = _point(warps, solved.made.schedule.start_cycles, solved.made.groups)
    moved = with_late_copies(warps, network, ii, given, OBJECTIVE[1:])
    assert check_warps(warps, warp_schedule(warps, network, ii, moved)) == []
    for level in OBJECTIVE[1:]:
        assert value_at(warps, network, ii, level, moved) <= value_at(warps, network, ii, level, given)
    before, after = (warp_schedule(warps, network, ii, point).schedule.ring_depths for point in (given, moved))
    assert all(after[ring] <= before[ring] for ring in before)


@pytest.mark.parametrize(("name", "machine"), [("pair", "h100"), ("gemm", "a100"), ("attention", "b200")])
def test_a_slack_schedule_is_shortened_as_it_runs(name: str, machine: str) -> None:
    solved = case(name, machine)
    warps, facts, ii = solved.warps, solved.facts, solved.made.schedule.ii_cycles
    starts = {operation: 2 * start for operation, start in solved.made.schedule.start_cycles.items()}
    slack = Found(2 * ii, _point(warps, starts, solved.made.groups))
    found = as_observed(_search(warps, ii), slack, ii, lambda made: observed_starts(warps, made, facts))
    assert ii <= found.ii < 1.2 * ii
    assert check_warps(warps, warp_schedule(warps, network_of(warps.loop), found.ii, found.point)) == []
    assert as_observed(_search(warps, ii), slack, ii, lambda made: None) == slack
