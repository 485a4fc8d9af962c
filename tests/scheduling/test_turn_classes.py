"""Assignments of some operations only: they ask for less than any assignment of all that agrees with them."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import cache

import pytest

from benchmarks.warp_cases import program_for
from benchmarks.warp_oracle import random_warps
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.ir.tile.assignments import assignments, classes
from treadle.ir.tile.turn_basis import Basis, Demand
from treadle.ir.tile.turn_search import Effort, Search, SearchTooLong
from treadle.ir.tile.turn_terms import Terms
from treadle.ir.tile.turns import first_found
from treadle.ir.tile.warps import WarpLoop

ROWS = (
    ("attention 128x128 in 1", "b200", 1_692),
    ("k-means assignment", "mi300x", 1_886),
    ("gemm w4a16", "a100", 2_312),
)
"""Several loads with a role, a file that binds; groups that all have as many registers; the least intervals."""


@cache
def _scheduled(name: str, machine: str, ii: int) -> tuple[WarpLoop, dict[str, int], tuple[int, ...]]:
    given = load_machine(machine)
    warps = lower_warps(program_for(name, given), given)
    found = first_found(warps, ii, ii, {}, Effort())
    assert found is not None
    return warps, found.groups, found.starts


def _some(warps: WarpLoop, groups: dict[str, int], drawn: random.Random) -> dict[str, int]:
    """Return the groups of some classes, all others in none."""
    share = drawn.random()
    return {
        name: groups[name] if placed else -number
        for number, names in enumerate(classes(warps), start=1)
        for placed in [drawn.random() < share]
        for name in names
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} on {row[1]}")
def test_a_schedule_is_one_of_every_assignment_of_fewer_operations(row: tuple[str, str, int]) -> None:
    warps, groups, starts = _scheduled(*row)
    demand = Demand(row[2], row[2], warps.limits.registers_per_group)
    drawn = random.Random(1)
    for _ in range(60):
        terms = Terms(Basis.of(warps, demand), _some(warps, groups, drawn))
        assert Search(terms, Effort(1), {}, starts).run() == starts


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} on {row[1]}")
def test_no_range_around_its_interval_is_refuted_for_fewer_operations(row: tuple[str, str, int]) -> None:
    warps, groups, starts = _scheduled(*row)
    drawn = random.Random(2)
    for _ in range(30):
        low, high = row[2] - drawn.randint(0, 90), row[2] + drawn.randint(0, 90)
        demand = Demand(low, high, warps.limits.registers_per_group)
        with suppress(SearchTooLong):
            terms = Terms(Basis.of(warps, demand), _some(warps, groups, drawn))
            assert isinstance(Search(terms, Effort(100), {}, starts).run(), tuple)


@pytest.mark.parametrize("seed", range(12))
def test_every_assignment_with_a_schedule_has_one_with_fewer_operations(seed: int) -> None:
    """Whatever the search refutes with some operations, no assignment of all refutes less."""
    warps = random_warps(random.Random(seed))
    drawn = random.Random(seed)
    for ii in range(2, 8):
        demand = Demand(ii, ii, warps.limits.registers_per_group)
        for needs in assignments(warps, ii, {}):
            starts = Search(Terms(Basis.of(warps, demand), needs.groups), Effort(), {}).run()
            if isinstance(starts, tuple):
                terms = Terms(Basis.of(warps, demand), _some(warps, needs.groups, drawn))
                assert Search(terms, Effort(1), {}, starts).run() == starts


def test_starts_that_break_something_are_not_taken_over() -> None:
    """Starts of a schedule, one operation moved, are given back only where they are a schedule still."""
    warps, groups, starts = _scheduled(*ROWS[0])
    demand = Demand(ROWS[0][2], ROWS[0][2], warps.limits.registers_per_group)
    terms = Terms(Basis.of(warps, demand), groups)
    taken = 0
    for at in range(len(starts)):
        moved = tuple(start + 97 * (at == other) for other, start in enumerate(starts))
        with suppress(SearchTooLong):
            found = Search(terms, Effort(40), {}, moved).run()
            assert isinstance(found, tuple)
            taken += found == moved
    assert taken < len(starts)
