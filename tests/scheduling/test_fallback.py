"""Schedules at longer intervals, where the search at the bound finds none: legal, closed in on, and honest."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.warp_oracle import random_warps
from tests.scheduling.warp_loops import two_tiles
from treadle.ir.certificate import Certificate, Status
from treadle.ir.diagnostics import TreadleError
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import WarpLoop, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.interval import serial_interval
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline import solve as pipeline
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.closing import Found
from treadle.solvers.pipeline.fallback import any_interval
from treadle.solvers.pipeline.points import warp_schedule
from treadle.solvers.pipeline.search import Answer, Search, searched, whole_schedule
from treadle.solvers.pipeline.solve import Solution

LEAST = 19
"""The interval of `two_tiles`, which its recurrence forbids to be shorter."""


def _found(warps: WarpLoop, low: int, limits: Limits, told: list[str] | None = None) -> Found | None:
    """`low` satisfies every recurrence."""
    network = network_of(warps.loop)
    first = searched(warps, network, low, Budget.of(limits), walkable=True)
    tell = (told if told is not None else []).append
    return any_interval(first, low, serial_interval(network) * 2, tell)


def test_a_schedule_is_found_and_closed_in_on() -> None:
    warps = two_tiles()
    told: list[str] = []
    found = _found(warps, LEAST, Limits(deterministic_s=0.5), told)
    assert found is not None
    # Packed as tightly as its orders allow, it is at the bound itself.
    assert found.ii == LEAST
    assert told[0] == "interval 25: any schedule"
    made = warp_schedule(warps, network_of(warps.loop), found.ii, found.point)
    assert check_warps(warps, made) == []


def test_closing_in_asks_below_what_was_found_until_nothing_is_left() -> None:
    told: list[str] = []
    found = _found(two_tiles(most_groups=2), LEAST, Limits(deterministic_s=0.5), told)
    assert found is not None
    # One group besides the load issues 22 cycles.
    assert found.ii == 22
    asked = [line.partition(",")[0] for line in told if "below" in line]
    assert asked == ["interval 20: below 22", "interval 21: below 22"]


def test_without_time_a_schedule_with_little_traffic_is_found() -> None:
    warps = two_tiles()
    found = _found(warps, LEAST, Limits(deterministic_s=0.0, wall_s=0.0))
    assert found is not None
    made = warp_schedule(warps, network_of(warps.loop), found.ii, found.point)
    assert not check_warps(warps, made)
    assert made.group_count == 2


def test_nothing_is_found_where_registers_never_do() -> None:
    warps = two_tiles()
    narrow = replace(warps, limits=replace(warps.limits, registers_per_group=12))
    assert _found(narrow, LEAST, Limits(deterministic_s=0.2)) is None


def test_random_loops_get_legal_schedules_no_shorter_than_the_best() -> None:
    draw = random.Random(11)
    tried = 0
    while tried < 12:
        warps = random_warps(draw)
        try:
            best = pipeline.schedule(warps).schedule.schedule.ii_cycles
        except TreadleError:
            continue
        tried += 1
        found = _found(warps, max(1, best - 1), Limits(deterministic_s=0.5))
        if found is None:
            continue
        assert found.ii >= best
        assert check_warps(warps, warp_schedule(warps, network_of(warps.loop), found.ii, found.point)) == []


def test_the_interval_of_a_fallback_is_not_called_optimal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the search at the bound answers nothing, the schedule is longer or as long, and its bound what it was."""
    unknown = Answer(None, None, None, Status.UNKNOWN, None)

    def nothing(_search: Search, _options: pipeline.Options) -> None:
        return None

    def left_open(_search: Search) -> Answer:
        return unknown

    monkeypatch.setattr(pipeline, "cheapest", nothing)
    monkeypatch.setattr(pipeline, "_any", left_open)
    warps = two_tiles(most_groups=2)
    solution = pipeline.schedule(warps, pipeline.Options(Limits(deterministic_s=0.5)))
    certificate: Certificate = solution.certificate
    assert check_warps(warps, solution.schedule) == []
    assert recheck_warps(warps, solution.schedule, certificate).findings == ()
    level = certificate["ii"]
    assert level.value >= (level.bound or 0) >= 22
    assert (level.status is Status.OPTIMAL) == (level.value == level.bound)


def _solved(draws: random.Random) -> tuple[WarpLoop, Solution]:
    while True:
        warps = random_warps(draws)
        try:
            return warps, pipeline.schedule(warps, pipeline.Options(Limits(deterministic_s=0.2)))
        except TreadleError:
            continue


@pytest.mark.parametrize("seed", range(6))
def test_a_whole_loop_over_given_groups_has_a_schedule_where_the_least_interval_has(seed: int) -> None:
    warps, made = _solved(random.Random(seed))
    ii, groups, network = made.schedule.schedule.ii_cycles, made.schedule.groups, network_of(warps.loop)
    search = searched(warps, network, ii, Budget.of(Limits(deterministic_s=0.5)), walkable=True)
    point = whole_schedule(search, groups, 1.0).point
    assert point is not None
    assert point.groups == groups
    assert not check_warps(warps, warp_schedule(warps, network, ii, point))
    assert made.certificate.levels[0].status is Status.OPTIMAL
