"""What groups hand over takes memory beside the rings: the checker, walks, both searches and the refusal count it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.scheduling.warp_loops import small_warps, two_tiles
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.frontends import programs
from treadle.ir.certificate import Status
from treadle.ir.tile.assignments import assignments
from treadle.ir.tile.conflict import smallest_conflict
from treadle.ir.tile.exhaustive_warps import TooLarge, best_rank
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Unit
from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.warp_claims import recheck_warps, value_of
from treadle.ir.tile.warps import (
    Crossing,
    Issue,
    WarpLimits,
    WarpLoop,
    WarpSchedule,
    check_warps,
    handoff_bytes,
    handoff_slots,
)
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.errors import MemoryExceeded
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.errors import GroupsExceeded, NoWarpSchedule, RegistersExceeded
from treadle.solvers.pipeline.frugal import frugal_schedule
from treadle.solvers.pipeline.points import warp_schedule
from treadle.solvers.pipeline.search import searched
from treadle.solvers.pipeline.solve import OBJECTIVE, Options, refuse_impossible, schedule


def with_memory(warps: WarpLoop, capacity_bytes: int, release_cycles: int = 0) -> WarpLoop:
    loop = replace(warps.loop, capacities=(Capacity("shared", capacity_bytes),))
    limits = replace(warps.limits, handoff_memory="shared", release_cycles=release_cycles)
    return replace(warps, loop=loop, limits=limits)


def handed_by_a_role() -> WarpLoop:
    """A copy whose result takes a slot until it is read: the delay of the crossing is no part of when it is ready."""
    operations = (Operation("o0", "a", 1, 1), Operation("o1", "a", 1, 1))
    loop = Loop("role", (Unit("a", 1),), operations, (Dependence("o0", "o1", 1),))
    limits = WarpLimits(2, 3, 12, fixed_registers=1, role_registers=1, most_stages=2)
    return WarpLoop(loop, (Issue("o0", 0, "load"), Issue("o1", 0)), (Crossing(0, 1, 4, 1),), (), limits)


@settings(max_examples=20, deadline=None)
@given(small_warps(), st.sampled_from([0, 4, 8]), st.sampled_from([0, 1, 3]))
@example(handed_by_a_role(), 4, 1)
def test_equals_exhaustive_search(warps: WarpLoop, capacity_bytes: int, release_cycles: int) -> None:
    crowded = with_memory(warps, capacity_bytes, release_cycles)
    try:
        solution = schedule(crowded, Options(Limits(deterministic_s=0.5)))
    except (NoWarpSchedule, RegistersExceeded):
        try:
            assert best_rank(crowded, 4, 30_000) is None
        except TooLarge:
            assume(False)
        return
    made = solution.schedule
    assert not check_warps(crowded, made)
    assert not recheck_warps(crowded, made, solution.certificate).findings
    assert solution.certificate.status is Status.OPTIMAL
    try:
        best = best_rank(crowded, made.schedule.ii_cycles, 60_000)
    except TooLarge:
        assume(False)
    assert best == tuple(value_of(crowded, made, name) for name in OBJECTIVE)


def test_what_finds_no_room_stays_together() -> None:
    """One group for both tiles takes 22 cycles; a group for each product, 19 and nothing handed over."""
    warps = two_tiles()
    for capacity_bytes, handed in ((40, 0), (40 + 64, 64), (40 + 128, 128)):
        crowded = with_memory(warps, capacity_bytes)
        found = max(handoff_bytes(crowded, n.groups).get("shared", 0) for n in assignments(crowded, 60, {}))
        assert found <= handed


def test_a_checker_that_finds_no_room() -> None:
    warps = with_memory(two_tiles(), 200)
    solution = schedule(warps, Options(Limits(deterministic_s=0.5)))
    groups = {"load": 0, "mma_a": 1, "soft_a": 2, "mma_b": 1, "soft_b": 2}
    made = replace(solution.schedule, groups=groups)
    assert handoff_bytes(warps, groups) == {"shared": 4 * 64}
    assert "TRD608" in {finding.code for finding in check_warps(warps, made)}


def test_the_smallest_conflict_is_named() -> None:
    machine = load_machine("a100")
    shape = {"points": 65536, "centroids": 4096, "dimension": 128}
    warps = lower_warps(programs.build("kmeans_assign", shape, {"block_m": 128, "block_n": 128}), machine)
    with pytest.raises(GroupsExceeded) as caught:
        refuse_impossible(warps)
    assert "`x.to_registers`, `load_c.to_registers`, `dots` need 286 registers per thread" in str(caught.value)
    found = smallest_conflict(warps, 100_000)
    assert found is not None
    assert found.registers > warps.limits.registers_per_group
    fitting = lower_warps(programs.build("kmeans_assign", shape, {"block_m": 128, "block_n": 64}), machine)
    assert smallest_conflict(fitting, 100_000) is None


def test_fixed_tiles_that_fill_a_memory_are_named() -> None:
    warps = two_tiles()
    full = replace(warps, loop=replace(warps.loop, capacities=(Capacity("shared", 40, 60),)))
    with pytest.raises(MemoryExceeded, match="tiles that no iteration changes need at least 60 bytes together, and 40"):
        schedule(full, Options())


def test_little_traffic_gives_a_first_schedule() -> None:
    """Un-sub-tiled attention on B200 has more assignments than can be gone through."""
    machine = load_machine("b200")
    sizes = {"block_m": 128, "block_n": 128, "sub_tiles": 1}
    shape = {"heads": 8, "kv_heads": 8, "seq": 1024, "qk_head_dim": 128}
    warps = lower_warps(programs.build("attention_fwd", shape, sizes), machine)
    network = network_of(warps.loop)
    search = searched(warps, network, 2_500, Budget.of(Limits(deterministic_s=0.5)), walkable=False)
    point = frugal_schedule(search)
    assert point is not None
    assert not check_warps(warps, warp_schedule(warps, network, 2_500, point))


def _late_reader(capacity_bytes: int) -> tuple[WarpLoop, WarpSchedule]:
    """Two groups at 10 cycles; the value is ready after 3 and read 17 after its source starts, when 4 more are gone."""
    loop = Loop(
        "late",
        (Unit("a", 1), Unit("b", 1)),
        (Operation("source", "a", 3, 3), Operation("reader", "b", 2, 2)),
        (Dependence("source", "reader", 3),),
        (),
        (Capacity("shared", capacity_bytes),),
    )
    crossings = (Crossing(0, 5, 8, 1),)
    limits = WarpLimits(2, 40, 80, handoff_memory="shared", release_cycles=4)
    warps = WarpLoop(loop, (Issue("source", 3), Issue("reader", 2)), crossings, (), limits)
    starts = {"source": 0, "reader": 17}
    return warps, WarpSchedule(Schedule("late", 10, starts, 19, {}), {"source": 0, "reader": 1}, (0, 0))


def test_slots_are_those_that_the_pace_needs() -> None:
    """A slot is filled from cycle 3 on and given back at 21: two of them at 10 cycles, one at 18."""
    warps, made = _late_reader(16)
    assert list(handoff_slots(warps, made.schedule, made.groups).values()) == [2]
    assert check_warps(warps, made) == []
    slower = replace(made.schedule, ii_cycles=18)
    assert list(handoff_slots(warps, slower, made.groups).values()) == [1]
    together = {"source": 0, "reader": 0}
    assert handoff_slots(warps, made.schedule, together) == {}
    crowded, _ = _late_reader(15)
    (finding,) = check_warps(crowded, made)
    assert finding.code == "TRD608"
    assert finding.found == "16 bytes (slots: `source` 2)"
    assert finding.expected == "<= 15 bytes"


def test_a_slot_that_cannot_be_there_makes_the_interval_longer() -> None:
    """With one slot the reader's start and the signal back (5 and 4 cycles after the value is ready) bound it."""
    warps, _ = _late_reader(15)
    solution = schedule(warps, Options(Limits(deterministic_s=0.5)))
    assert solution.certificate.status is Status.OPTIMAL
    assert solution.schedule.schedule.ii_cycles == 5, "both in one group: nothing is handed over"
    apart = replace(warps, issues=(Issue("source", 3, "load"), Issue("reader", 2)))
    split = schedule(apart, Options(Limits(deterministic_s=0.5)))
    assert split.schedule.schedule.ii_cycles == split.certificate["ii"].bound == 9
    assert not recheck_warps(apart, split.schedule, split.certificate).findings
    roomy, _ = _late_reader(16)
    pace = schedule(replace(roomy, issues=apart.issues), Options(Limits(deterministic_s=0.5))).schedule
    assert pace.schedule.ii_cycles == 5
