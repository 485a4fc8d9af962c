"""Asynchronous operations in flight: counted by the check, kept to by solver, bound and simulator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.frontends import programs
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.loop import Dependence, Loop, Operation, Unit
from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import FlightLimit, Issue, WarpLimits, WarpLoop, WarpSchedule, check_warps, stacked
from treadle.solvers.pipeline.solve import schedule

OPERATIONS = (Operation("a", "core", 2, 10), Operation("b", "core", 2, 10))


def loop_with(*limits: FlightLimit, groups: int = 1) -> WarpLoop:
    """Return two asynchronous products of 10 cycles each on a unit that takes 2."""
    loop = Loop("pair", (Unit("core", 1),), OPERATIONS, (Dependence("a", "b", 2),))
    issues = tuple(Issue(operation.name, 1) for operation in OPERATIONS)
    return WarpLoop(loop, issues, (), (), WarpLimits(groups, 64, 128, flights=limits))


def made(ii: int, **starts: int) -> WarpSchedule:
    length = max(starts.values()) + 10
    return WarpSchedule(Schedule("pair", ii, starts, length, {}), dict.fromkeys(starts, 0), (0,))


def test_spans_stack_modulo_the_interval() -> None:
    assert stacked(4, [(0, 10, 1)]) == 3
    assert stacked(4, [(0, 8, 1), (3, 2, 1)]) == 3
    assert stacked(10, [(8, 4, 2), (1, 1, 1)]) == 3


def test_too_many_in_flight_are_found() -> None:
    limit = FlightLimit("batches", (("a", 1), ("b", 1)), 2)
    assert not check_warps(loop_with(limit), made(10, a=0, b=2))
    codes = [found.code for found in check_warps(loop_with(limit), made(9, a=0, b=2))]
    assert codes == ["TRD600"]


@pytest.mark.parametrize(("most", "interval"), [(1, 20), (2, 10), (3, 7), (5, 4)])
def test_the_interval_leaves_room_for_flights(most: int, interval: int) -> None:
    """Two flights of 10 cycles: the interval is 20 over what may be in flight, and no less than the unit's 4."""
    warps = loop_with(FlightLimit("batches", (("a", 1), ("b", 1)), most))
    solved = schedule(warps)
    assert solved.schedule.schedule.ii_cycles == interval
    assert solved.certificate.levels[0].bound == interval
    assert not check_warps(warps, solved.schedule)
    assert not recheck_warps(warps, solved.schedule, solved.certificate).findings


def test_groups_have_a_count_each_unless_they_share_one() -> None:
    own = FlightLimit("batches", (("a", 1), ("b", 1)), 1)
    apart = schedule(loop_with(own, groups=2)).schedule
    assert (apart.schedule.ii_cycles, apart.group_count) == (10, 2)
    shared = replace(own, per_group=False)
    assert schedule(loop_with(shared, groups=2)).schedule.schedule.ii_cycles == 20


def test_one_that_counts_for_more_than_all_is_refused() -> None:
    with pytest.raises(InvalidValue, match="counts for 3 of 2"):
        loop_with(FlightLimit("batches", (("a", 3),), 2))


@pytest.mark.parametrize(("machine", "names"), [("h100", ["batches of products"]), ("mi300x", ["loads of a wave"]),
                                                ("b200", []), ("a100", [])])  # fmt: skip
def test_machines_say_what_may_be_in_flight(machine: str, names: list[str]) -> None:
    program = programs.build("gemm", {"m": 512, "n": 512, "k": 512}, {"block_m": 64, "block_n": 64, "block_k": 32})
    limits = lower_warps(program, load_machine(machine)).limits.flights
    assert [limit.name for limit in limits] == names
    assert all(share <= limit.most for limit in limits for _, share in limit.operations)
