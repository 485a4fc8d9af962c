"""The search over turns: it never refutes what has a schedule, finds what there is, and a checker repeats it."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import pytest

from benchmarks.warp_oracle import random_warps
from tests.scheduling.warp_loops import ranked
from treadle.ir.certificate import ProofKind
from treadle.ir.tile.turn_search import Effort, SearchTooLong
from treadle.ir.tile.turns import first_found
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.errors import NoWarpSchedule, RegistersExceeded
from treadle.solvers.pipeline.solve import Options, Solution, schedule

LEVELS = ("traffic_bytes", "barriers", "groups", "registers", "length")


@pytest.mark.parametrize("seed", range(16))
def test_it_agrees_with_trying_everything(seed: int) -> None:
    """At the best interval there is a schedule with the best levels, and none at any interval below."""
    warps, rank = ranked(random.Random(seed))
    most: dict[str, int] = dict(zip(LEVELS, rank[1:], strict=True))
    assert first_found(warps, rank[0], rank[0], most, Effort()) is not None
    assert rank[0] == 1 or first_found(warps, rank[0] - 1, rank[0] - 1, {}, Effort()) is None


@pytest.mark.parametrize("seed", range(8))
def test_a_range_with_a_schedule_is_never_refuted(seed: int) -> None:
    warps, rank = ranked(random.Random(seed))
    with suppress(SearchTooLong):
        assert first_found(warps, max(1, rank[0] - 2), rank[0] + 3, {}, Effort(1_000)) is not None


@pytest.mark.parametrize("seed", range(8))
def test_no_level_is_refuted_at_its_value(seed: int) -> None:
    warps, rank = ranked(random.Random(seed))
    for position, name in enumerate(LEVELS, start=1):
        before = dict(zip(LEVELS[: position - 1], rank[1:position], strict=True))
        assert first_found(warps, rank[0], rank[0], {**before, name: rank[position]}, Effort()) is not None


def _turned() -> tuple[WarpLoop, Solution, int]:
    """Return a loop one of whose levels rests on a search over turns, and the level's position."""
    for seed in range(60):
        warps = random_warps(random.Random(seed))
        try:
            solved = schedule(warps, Options(Limits(deterministic_s=0.1)))
        except (NoWarpSchedule, RegistersExceeded):
            continue
        for position, level in enumerate(solved.certificate.levels):
            if position and level.evidence.get("turns") is True:
                return warps, solved, position
    raise AssertionError("no level rests on turns")


def test_a_bound_by_turns_is_repeated_and_a_higher_one_refused() -> None:
    warps, solved, position = _turned()
    assert not recheck_warps(warps, solved.schedule, solved.certificate).findings
    levels = list(solved.certificate.levels)
    level = levels[position]
    assert level.proof is ProofKind.ENUMERATION
    assert level.bound is not None
    raised = {**level.evidence, "refuted": int(level.bound)}
    levels[position] = replace(level, bound=level.bound + 1, value=level.value + 1, evidence=raised)
    forged = replace(solved.certificate, levels=tuple(levels))
    assert {found.code for found in recheck_warps(warps, solved.schedule, forged).findings} & {"TRD411", "TRD413"}


def test_effort_ends_a_search() -> None:
    warps, rank = ranked(random.Random(3))
    with pytest.raises(SearchTooLong):
        first_found(warps, rank[0], rank[0], {}, Effort(0))
