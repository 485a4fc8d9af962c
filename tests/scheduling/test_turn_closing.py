"""Closing in on intervals by turns: what is learned refutes nothing that has a schedule, ranges leave no gap."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest

from benchmarks.warp_cases import program_for
from benchmarks.warp_oracle import random_warps
from tests.scheduling.warp_loops import ranked
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.ir.certificate import Level, ProofKind
from treadle.ir.tile.assignments import assignments
from treadle.ir.tile.claims import Refused
from treadle.ir.tile.turn_basis import Basis, Demand
from treadle.ir.tile.turn_search import Effort, Search
from treadle.ir.tile.turn_terms import Terms
from treadle.ir.tile.turns import first_found
from treadle.ir.tile.warp_claims import check_interval, recheck_warps
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.closing import closed_in
from treadle.solvers.pipeline.search import searched
from treadle.solvers.pipeline.solve import Options, Solution, schedule


@pytest.mark.parametrize("seed", range(12))
def test_what_is_learned_loses_no_assignment(seed: int) -> None:
    """Some assignment, each asked about on its own, has starts exactly where the search that learns finds one."""
    warps = random_warps(random.Random(seed))
    most = warps.limits.registers_per_group
    for ii in range(1, 9):
        demand = Demand(ii, ii, most)
        alone = any(
            isinstance(Search(Terms(Basis.of(warps, demand), needs.groups), Effort(), {}).run(), tuple)
            for needs in assignments(warps, ii, {})
        )
        assert alone == (first_found(warps, ii, ii, {}, Effort()) is not None)


@pytest.mark.parametrize("seed", range(6))
def test_ranges_and_the_schedule_above_them_meet_at_the_least_interval(seed: int) -> None:
    warps, rank = ranked(random.Random(100 + seed))
    search = searched(warps, network_of(warps.loop), 1, Budget.of(Limits(deterministic_s=1.0)), walkable=True)
    closed = closed_in(search, 1, 24, 0, lambda _: None)
    assert closed.found is not None
    assert closed.found.ii == rank[0]
    ends = [1, *(high + 1 for _, high in closed.ranges)]
    assert [low for low, _ in closed.ranges] == ends[:-1]
    assert ends[-1] == rank[0]


@cache
def _means() -> tuple[WarpLoop, Solution]:
    machine = load_machine("h100")
    warps = lower_warps(program_for("k-means assignment", machine), machine)
    return warps, schedule(warps, Options(Limits(deterministic_s=0.5)))


def test_an_interval_above_all_bounds_is_proven_by_turns() -> None:
    """Where bounds without search say 1,024 cycles, and walks over groups some hundreds more, turns meet."""
    warps, solved = _means()
    level = solved.certificate.levels[0]
    assert (level.value, level.bound, level.proof) == (1778, 1778, ProofKind.ENUMERATION)
    assert level.evidence["turns"]
    assert not recheck_warps(warps, solved.schedule, solved.certificate).findings


def _claims(level: Level) -> list[dict[str, Any]]:
    """Return evidence that says more than the search does: a bound beyond, a range left out, one too far."""
    refuted, ranges = level.evidence["refuted"], level.evidence["turns"]
    beyond = [*refuted, int(level.value)]
    return [
        {**level.evidence, "refuted": beyond},
        {**level.evidence, "refuted": beyond, "turns": [*ranges, (int(level.value), int(level.value))]},
        {**level.evidence, "refuted": beyond, "turns": [(ranges[0][0], int(level.value))]},
        {**level.evidence, "refuted": refuted[1:]},
        {**level.evidence, "turns": ranges[:-1]},
        {**level.evidence, "turns": []},
    ]


@pytest.mark.parametrize("position", range(6))
def test_damaged_ranges_are_refused(position: int) -> None:
    warps, solved = _means()
    first = solved.certificate.levels[0]
    evidence = _claims(first)[position]
    more = int(len(evidence["refuted"]) > len(first.evidence["refuted"]))
    check_interval(warps, int(first.bound or 0), first.proof, first.evidence)
    with pytest.raises(Refused):
        check_interval(warps, int(first.bound or 0) + more, first.proof, evidence)
