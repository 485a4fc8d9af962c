"""Levels between a bound and a schedule: turns meet at the least value, in any loop and where groups are decided."""

from __future__ import annotations

import random

import pytest

from benchmarks.warp_cases import program_for
from tests.scheduling.warp_loops import ranked
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.ir.certificate import ProofKind
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import WarpLoop, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.bounds import forced_bound
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.levels import closed_level
from treadle.solvers.pipeline.points import value_at, warp_schedule
from treadle.solvers.pipeline.search import searched
from treadle.solvers.pipeline.solve import OBJECTIVE, Options, schedule

ANY = 10_000


def plain(warps: WarpLoop, name: str) -> Bound:
    """Return what crossings of roles force; nothing of other levels."""
    forced = name in ("traffic_bytes", "barriers")
    return forced_bound(warps, count_bytes=name == "traffic_bytes") if forced else Bound(0, ProofKind.COUNT, {})


@pytest.mark.parametrize("seed", range(10))
def test_bound_and_schedule_meet_at_the_least_value_of_every_level(seed: int) -> None:
    warps, rank = ranked(random.Random(300 + seed))
    network, ii = network_of(warps.loop), rank[0]
    search = searched(warps, network, ii, Budget.of(Limits(deterministic_s=1.0)), walkable=True)
    fixed: dict[str, int] = {}
    for name, least in zip(OBJECTIVE[1:], rank[1:], strict=True):
        bound, point = closed_level(search, name, fixed, plain(warps, name), ANY)
        assert point is not None
        assert check_warps(warps, warp_schedule(warps, network, ii, point)) == []
        assert (value_at(warps, network, ii, name, point), bound.value) == (least, least)
        fixed[name] = least


def test_without_nodes_nothing_is_claimed() -> None:
    warps, rank = ranked(random.Random(300))
    budget = Budget.of(Limits(deterministic_s=1.0))
    budget.nodes = 0
    search = searched(warps, network_of(warps.loop), rank[0], budget, walkable=True)
    given = Bound(0, ProofKind.COUNT, {})
    assert closed_level(search, "length", {}, given, ANY) == (given, None)


def test_where_groups_are_decided_turns_prove_registers_and_length_under_a_full_unit() -> None:
    """Head 256 on Hopper: the tensor core has six orders, and one assignment has the least of all it decides."""
    machine = load_machine("h100")
    warps = lower_warps(program_for("attention pair hd256", machine), machine)
    solved = schedule(warps, Options(Limits(deterministic_s=0.5)))
    levels = {level.name: level for level in solved.certificate.levels}
    assert {name: level.value for name, level in levels.items()} == {
        "ii": 2048,
        "traffic_bytes": 0,
        "barriers": 4,
        "groups": 3,
        "registers": 212,
        "length": 3333,
    }
    assert all(level.value == level.bound for level in levels.values())
    assert levels["registers"].evidence["turns"]
    assert not recheck_warps(warps, solved.schedule, solved.certificate).findings
