"""The length over one assignment at a time, and exchanges of equal sub-tiles: against search that tries everything."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.warp_oracle import random_warps
from tests.scheduling.test_short import backward, search_of
from tests.scheduling.warp_loops import ranked
from treadle.ir.tile.exhaustive_warps import TooLarge, best_rank
from treadle.ir.tile.loop import Dependence, Loop, Operation, Ring
from treadle.ir.tile.warps import Crossing, FlightLimit, RegisterValue, WarpLoop, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.held import distinct, shortest_held
from treadle.solvers.pipeline.points import value_at, warp_schedule
from treadle.solvers.pipeline.search import Target, searched
from treadle.solvers.pipeline.solve import OBJECTIVE
from treadle.solvers.pipeline.symmetry import mirror
from treadle.solvers.pipeline.walks import survivors


def doubled(warps: WarpLoop) -> WarpLoop:
    """Two sub-tiles that both do what a loop does, on the same units."""
    loop = warps.loop

    def both(name: str) -> tuple[str, str]:
        return f"{name}_0", f"{name}_1"

    operations = tuple(replace(op, name=name) for op in loop.operations for name in both(op.name))
    dependences = tuple(
        replace(d, source=source, target=target)
        for d in loop.dependences
        for source, target in zip(both(d.source), both(d.target), strict=True)
    )
    crossings = tuple(replace(c, dependence=2 * c.dependence + tile) for c in warps.crossings for tile in (0, 1))
    issues = tuple(replace(i, operation=name, role="") for i in warps.issues for name in both(i.operation))
    values = tuple(
        RegisterValue(
            both(v.name)[tile],
            both(v.producer)[tile],
            v.registers,
            tuple(replace(r, operation=both(r.operation)[tile]) for r in v.readers),
            v.handoff_cycles,
        )
        for v in warps.values
        for tile in (0, 1)
    )
    flights = tuple(
        replace(f, operations=tuple((name, share) for op, share in f.operations for name in both(op)))
        for f in warps.limits.flights
    )
    limits = replace(warps.limits, flights=flights)
    return WarpLoop(Loop("doubled", loop.units, operations, dependences), issues, crossings, values, limits)


def ranked_double(draws: random.Random) -> tuple[WarpLoop, tuple[int, ...]]:
    """Return a random loop of two equal sub-tiles that has a schedule, and its best levels by trying everything."""
    while True:
        warps = random_warps(draws)
        if len(warps.loop.operations) > 3:
            continue
        warps = doubled(warps)
        try:
            rank = best_rank(warps, 14, most_tries=60_000)
        except TooLarge:
            continue
        if rank is not None:
            return warps, tuple(rank)


def agrees(warps: WarpLoop, rank: tuple[int, ...]) -> None:
    """The length is found and nothing below it is left, over the levels before it as they are."""
    ii, *levels, length = rank
    fixed: dict[str, int] = dict(zip(OBJECTIVE[1:5], levels, strict=True))
    search = searched(warps, network_of(warps.loop), ii, Budget.of(Limits(deterministic_s=1.0)), walkable=True)
    found = shortest_held(search, Target("length", fixed, 0, length + 4), 0.3)
    assert found is not None
    assert (found.value, found.bound) == (length, length)
    assert found.point is not None
    assert check_warps(warps, warp_schedule(warps, search.network, ii, found.point)) == []
    for name, value in fixed.items():
        assert value_at(warps, search.network, ii, name, found.point) <= value
    again = shortest_held(search, Target("length", fixed, 0, length), 0.3)
    assert again is not None
    assert (again.point, again.bound) == (None, length)


@pytest.mark.parametrize("seed", range(12))
def test_the_length_is_that_of_trying_everything(seed: int) -> None:
    agrees(*ranked(random.Random(seed)))


@pytest.mark.parametrize("seed", range(12))
def test_the_length_of_equal_sub_tiles_is_that_of_trying_everything(seed: int) -> None:
    warps, rank = ranked_double(random.Random(seed))
    assert mirror(warps)
    agrees(warps, rank)


def test_backward_on_hopper_has_three_distinct_assignments() -> None:
    warps = backward()
    fixed = {"traffic_bytes": 0, "barriers": 14, "groups": 3, "registers": 232}
    every = survivors(warps, 2560, fixed)
    assert every is not None
    assert len(every) == 4
    held = distinct(warps, every)
    assert [one.ordered for one in held] == [("scores_0", "scores_1"), ("scores_0", "scores_1"), None]
    assert held[2].groups["dq_0"] == held[2].groups["dq_1"]  # the others split `dq`, and are their own mirrors


def test_backward_on_hopper_has_no_iteration_of_4_200_cycles() -> None:
    search = search_of(backward())
    fixed = {"traffic_bytes": 0, "barriers": 14, "groups": 3, "registers": 232}
    found = shortest_held(search, Target("length", fixed, 3497, 4201), 0.3)
    assert found is not None
    assert (found.point, found.bound) == (None, 4201)


@pytest.mark.parametrize("what", ["time", "dependence", "crossing", "issue", "value", "ring", "flight"])
def test_there_is_no_mirror_where_sub_tiles_differ_in_anything(what: str) -> None:
    warps = backward()
    assert mirror(warps)
    assert mirror(changed(warps, what)) == {}


def changed(warps: WarpLoop, what: str) -> WarpLoop:
    """One sub-tile differs from the other in one thing."""
    loop = warps.loop
    match what:
        case "time":
            operations = tuple(longer(op) if op.name == "weights_0" else op for op in loop.operations)
            return replace(warps, loop=replace(loop, operations=operations))
        case "dependence":
            return replace(warps, loop=replace(loop, dependences=(*loop.dependences, Dependence("dv_0", "dk_0", 1))))
        case "crossing":
            at = next(p for p, c in enumerate(warps.crossings) if "weights_0" in source_of(warps, c))
            dearer = replace(warps.crossings[at], barriers=2)
            return replace(warps, crossings=(*warps.crossings[:at], dearer, *warps.crossings[at + 1 :]))
        case "issue":
            issues = tuple(replace(i, issue_cycles=9) if i.operation == "dv_1" else i for i in warps.issues)
            return replace(warps, issues=issues)
        case "value":
            values = tuple(replace(v, registers=v.registers + 1) if v.name == "dk_0" else v for v in warps.values)
            return replace(warps, values=values)
        case "ring":
            rings = tuple(larger(ring) if ring.name == "load_lse_1" else ring for ring in loop.rings)
            return replace(warps, loop=replace(loop, rings=rings))
        case _:
            flights = (FlightLimit("one", (("dv_0", 1),), 1),)
            return replace(warps, limits=replace(warps.limits, flights=flights))


def longer(operation: Operation) -> Operation:
    return replace(operation, latency_cycles=operation.latency_cycles + 1)


def larger(ring: Ring) -> Ring:
    return replace(ring, slot_bytes=2 * ring.slot_bytes)


def source_of(warps: WarpLoop, crossing: Crossing) -> str:
    return warps.loop.dependences[crossing.dependence].source
