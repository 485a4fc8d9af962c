"""A group announces results in order with all else it issues: what that forbids, and that schedules obey it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.warp_oracle import random_warps
from tests.scheduling.warp_loops import two_tiles
from treadle.ir.tile.loop import Dependence, Loop, Operation, Unit
from treadle.ir.tile.schedule import Schedule, length_of
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import (
    Crossing,
    Issue,
    WarpLimits,
    WarpLoop,
    WarpSchedule,
    announced_cycle,
    check_warps,
    register_peaks,
)
from treadle.solvers.pipeline.errors import NoWarpSchedule, RegistersExceeded
from treadle.solvers.pipeline.solve import schedule


def handed_over(*, announced: bool) -> WarpLoop:
    """A store of 5 cycles, issued in one, that another group reads; its own group then works for 8 cycles."""
    loop = Loop(
        "handed_over",
        (Unit("port", 1), Unit("alu", 1), Unit("tensor", 1)),
        (Operation("store", "port", 1, 5), Operation("sum", "alu", 8, 8), Operation("product", "tensor", 10, 10)),
        (Dependence("store", "product", 5), Dependence("sum", "store", 0, 1)),
    )
    issues = (Issue("store", 1), Issue("sum", 8), Issue("product", 10))
    crossings = (Crossing(0, 2, 0, 1, announced=announced), Crossing(1, 0, 0, 1, allowed=False))
    return WarpLoop(loop, issues, crossings, (), WarpLimits(2, 32, 64, fixed_registers=1, most_stages=3))


def placed(warps: WarpLoop, starts: dict[str, int], ii: int = 10) -> WarpSchedule:
    groups = {"store": 0, "sum": 0, "product": 1}
    made = Schedule(warps.loop.name, ii, starts, length_of(warps.loop, starts), {})
    return WarpSchedule(made, groups, tuple(register_peaks(warps, made, groups).values()))


def test_a_result_is_announced_when_its_group_is_through() -> None:
    """The store is done at 5; from 1 to 9 the group sums, so the other group knows of it at 9 + 2."""
    hardware, group = handed_over(announced=False), handed_over(announced=True)
    early, late = {"store": 0, "sum": 1, "product": 7}, {"store": 0, "sum": 1, "product": 11}
    assert check_warps(hardware, placed(hardware, early)) == []
    (found,) = check_warps(group, placed(group, early))
    assert (found.code, found.expected, found.found) == ("TRD416", ">= 11", "7")
    assert check_warps(group, placed(group, late)) == []
    assert check_warps(group, placed(group, {**late, "product": 10})) != []


@pytest.mark.parametrize(("cycle", "announced"), [(0, 0), (1, 1), (2, 9), (8, 9), (9, 9), (12, 19), (-7, -1)])
def test_announcements_are_outside_of_issues_in_every_iteration(cycle: int, announced: int) -> None:
    warps = handed_over(announced=True)
    made = placed(warps, {"store": 0, "sum": 1, "product": 11})
    assert announced_cycle(warps, made.schedule, made.groups, 0, cycle) == announced


def test_schedules_obey_announcements_and_only_get_longer() -> None:
    lengths: list[int] = []
    for announced in (False, True):
        warps = handed_over(announced=announced)
        solution = schedule(warps)
        assert check_warps(warps, solution.schedule) == []
        assert recheck_warps(warps, solution.schedule, solution.certificate).findings == ()
        lengths.append(solution.schedule.schedule.length_cycles)
    assert lengths[0] <= lengths[1]


def test_the_same_loop_with_announcements_is_never_better() -> None:
    """Levels of random loops without announcements are bounds on those with them."""
    compared = 0
    for seed in range(24):
        warps = random_warps(random.Random(seed))
        if len(warps.loop.operations) > 4:
            continue
        ranks: list[list[float] | None] = []
        for announced in (False, True):
            crossings = tuple(replace(crossing, announced=announced) for crossing in warps.crossings)
            try:
                solution = schedule(replace(warps, crossings=crossings))
            except (NoWarpSchedule, RegistersExceeded):
                ranks.append(None)
                continue
            assert check_warps(replace(warps, crossings=crossings), solution.schedule) == []
            ranks.append([level.value for level in solution.certificate.levels])
        free, ordered = ranks
        if ordered is not None:
            assert free is not None
            assert free <= ordered
            compared += 1
    assert compared > 3


def test_hardware_signals_are_the_default() -> None:
    assert not any(crossing.announced for crossing in two_tiles().crossings)
