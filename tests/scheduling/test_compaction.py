"""Schedules are packed without search: never worse, always legal, and a stretched schedule comes back."""

from __future__ import annotations

import pytest

from tests.warp_programs.cases import CASES, case
from treadle.ir.tile.warps import check_warps
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.compaction import compacted
from treadle.solvers.pipeline.points import Point, warp_schedule


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize(("name", "machine"), CASES)
def test_a_stretched_schedule_is_packed_again(name: str, machine: str, factor: int) -> None:
    solved = case(name, machine)
    warps, made = solved.warps, solved.made
    network, ii = network_of(warps.loop), made.schedule.ii_cycles
    starts = tuple(factor * made.schedule.start_cycles[operation.name] for operation in warps.loop.operations)
    stretched = Point(starts, made.groups)
    assert check_warps(warps, warp_schedule(warps, network, factor * ii, stretched)) == []
    interval, point = compacted(warps, network, factor * ii, stretched, 1)
    assert interval <= factor * ii
    assert check_warps(warps, warp_schedule(warps, network, interval, point)) == []
    assert interval <= 1.2 * ii
    assert compacted(warps, network, factor * ii, stretched, factor * ii) == (factor * ii, stretched)


def test_the_least_interval_is_not_passed() -> None:
    solved = case("gemm", "h100")
    network, ii = network_of(solved.warps.loop), solved.made.schedule.ii_cycles
    starts = tuple(solved.made.schedule.start_cycles[o.name] for o in solved.warps.loop.operations)
    assert compacted(solved.warps, network, ii, Point(starts, solved.made.groups), 1)[0] == ii
