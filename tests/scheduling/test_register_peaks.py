"""Bounds on registers without times: never above what trying everything finds, and what they refute of backward."""

from __future__ import annotations

import pytest

from tests.scheduling.test_short import SHAPE
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.frontends import programs
from treadle.ir.tile.assignments import assigned_arcs, least
from treadle.ir.tile.exhaustive_warps import best_rank
from treadle.ir.tile.loop import Dependence, Loop, Operation, Reader, Unit
from treadle.ir.tile.register_peaks import least_peaks
from treadle.ir.tile.warps import Crossing, Issue, RegisterValue, WarpLimits, WarpLoop

II = 10


def beside_a_store(hold_cycles: int, issue_cycles: int) -> WarpLoop:
    """One group makes and stores a value of 8 registers, and works for some cycles on another one of 8."""
    rest = II - 2 - issue_cycles
    cycles = {"made": 1, "stored": rest, "read": 1, "work": issue_cycles}
    operations = tuple(Operation(name, "alu", count, count) for name, count in cycles.items())
    dependences = (Dependence("made", "stored", 1), Dependence("read", "work", 1))
    values = (
        RegisterValue("made", "made", 8, (Reader("stored", hold_cycles),)),
        RegisterValue("read", "read", 8, (Reader("work", 0),)),
    )
    issues = tuple(Issue(name, count) for name, count in cycles.items())
    loop = Loop("store", (Unit("alu", 1),), operations, dependences)
    return WarpLoop(loop, issues, tuple(Crossing(p) for p in (0, 1)), values, WarpLimits(1, 64, 64, most_stages=2))


@pytest.mark.parametrize(("hold_cycles", "issue_cycles"), [(3, 5), (4, 5), (5, 3), (6, 3), (7, 1), (8, 1)])
def test_a_value_that_stays_long_is_there_when_others_start(hold_cycles: int, issue_cycles: int) -> None:
    warps = beside_a_store(hold_cycles, issue_cycles)
    best = best_rank(warps, II)
    assert best is not None
    assert best[0] == II
    groups = dict.fromkeys(warps.loop.index, 0)
    bound = least_peaks(warps, groups, assigned_arcs(warps, groups), II)[0]
    assert bound <= best[4]
    assert bound == (16 if 1 + hold_cycles + issue_cycles >= II else 8)


def test_backward_on_blackwell_stores_dq_from_a_group_of_its_own() -> None:
    tiles = {"block_m": 64, "block_n": 128, "sub_tiles": 1}
    warps = lower_warps(programs.build("attention_bwd", SHAPE, tiles), load_machine("b200"))
    ii = 1918  # the store's 1,664 cycles of the copy engine, and the loads'
    assert least(warps, ii, {"traffic_bytes": 0}, "barriers", 99) == 7
    assert least(warps, ii, {"traffic_bytes": 0, "barriers": 7}, "groups", 99) == 3
