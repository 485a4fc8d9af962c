"""The modulo scheduler against exhaustive search, its bounds, its errors, and each family of constraints."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from ortools.sat.python import cp_model

from tests.scheduling.loops import accumulate, packed, small_loops, staged
from treadle.ir.certificate import ProofKind, Status
from treadle.ir.tile.claims import recheck
from treadle.ir.tile.exhaustive import exhaustive
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.refute import refuted
from treadle.ir.tile.schedule import check
from treadle.solvers.backend import Limits, solve
from treadle.solvers.modulo import model as families
from treadle.solvers.modulo.errors import MemoryExceeded, RingTooShallow
from treadle.solvers.modulo.interval import decide, horizon
from treadle.solvers.modulo.network import network_of
from treadle.solvers.modulo.place import place
from treadle.solvers.modulo.solve import Options, Solution, schedule


def solved(loop: Loop) -> Solution:
    solution = schedule(loop)
    assert check(loop, solution.schedule) == []
    assert recheck(loop, solution.schedule, solution.certificate).findings == ()
    return solution


def test_recurrence_binds() -> None:
    level = solved(accumulate()).certificate["ii"]
    assert (level.value, level.status, level.proof) == (4, Status.OPTIMAL, ProofKind.RECURRENCE)
    assert level.evidence == {"cycle": [{"dependence": 2}]}


def test_resource_binds() -> None:
    solution = solved(staged(depth=5))
    level = solution.certificate["ii"]
    assert (level.value, level.status, level.proof) == (10, Status.OPTIMAL, ProofKind.RESOURCE)
    # The second product waits 8 cycles for its operand and 7 more for its half of the interval.
    assert solution.certificate["length"].value == 25 + 15 + 8
    # The slot is held from the load's start to the second product's release: 25 + 15 + 5 of 10 cycles each.
    assert solution.schedule.ring_depths == {"tile": 5}
    assert solution.certificate["ring_bytes"].status is Status.OPTIMAL


def test_one_slot_too_few_costs_two_cycles() -> None:
    level = solved(staged(depth=4)).certificate["ii"]
    assert (level.value, level.status, level.proof) == (12, Status.OPTIMAL, ProofKind.ENUMERATION)
    assert level.evidence["refuted"] == [10, 11]


def test_a_search_cut_short_is_continued() -> None:
    loop = staged(depth=4)
    nothing = Options(limits=Limits(deterministic_s=0.0))
    short = schedule(loop, nothing)
    assert short.certificate.status is Status.FEASIBLE
    assert short.certificate["ii"].bound == 10
    assert schedule(loop, nothing, earlier=short) == short
    whole = schedule(loop, earlier=short)
    assert whole == solved(loop)
    assert schedule(loop, nothing, earlier=whole) is whole


def test_shallow_ring_raises_the_interval() -> None:
    level = solved(staged(depth=2)).certificate["ii"]
    assert (level.value, level.proof) == (19, ProofKind.RECURRENCE)


def test_memory_raises_the_interval() -> None:
    level = solved(staged(capacity_bytes=300)).certificate["ii"]
    assert (level.value, level.proof) == (13, ProofKind.RECURRENCE)


def two_rings(capacity_bytes: int) -> Loop:
    loop = staged(capacity_bytes=capacity_bytes)
    other = Ring("other", "shared", 100, "load", (Reader("second", 5),), 9)
    return Loop(loop.name, loop.units, loop.operations, loop.dependences, (*loop.rings, other), loop.capacities)


def test_memory_shared_by_rings_raises_the_interval() -> None:
    level = solved(two_rings(600)).certificate["ii"]
    assert (level.value, level.status, level.proof) == (13, Status.OPTIMAL, ProofKind.CAPACITY)


def test_memory_that_no_interval_fits() -> None:
    with pytest.raises(MemoryExceeded) as caught:
        schedule(two_rings(150))
    assert "`tile` (1 x 100), `other` (1 x 100) need at least 200 bytes together, and 150 are free" in str(caught.value)


def test_ring_read_too_late_for_its_depth() -> None:
    loop = Loop(
        "late",
        (Unit("copy", 1),),
        (Operation("load", "copy", 1, 1), Operation("use", "copy", 1, 1)),
        (Dependence("load", "use", 1),),
        (Ring("tile", "shared", 1, "load", (Reader("use", 1, 2),), 2),),
        (Capacity("shared", 10),),
    )
    with pytest.raises(RingTooShallow) as caught:
        schedule(loop)
    assert "ring `tile`" in str(caught.value)
    assert "at least 3 slots" in caught.value.next_step


def test_interval_above_all_bounds_is_refuted_by_enumeration() -> None:
    # Two recurrences of 3 cycles, each with both operations one apart: on one unit their slots clash at II 3.
    loop = Loop(
        "clash",
        (Unit("alu", 1), Unit("other", None)),
        tuple(Operation(name, "alu", 1, 1) for name in "abc"),
        (
            Dependence("a", "b", 3),
            Dependence("b", "a", 1, 1),
            Dependence("b", "c", 2),
            Dependence("c", "b", 2, 1),
        ),
    )
    solution = solved(loop)
    level = solution.certificate["ii"]
    oracle = exhaustive(loop, 12)
    assert oracle is not None
    assert level.value == oracle.ii_cycles
    assert (level.proof, level.status) in {
        (ProofKind.ENUMERATION, Status.OPTIMAL),
        (ProofKind.RECURRENCE, Status.OPTIMAL),
    }


@settings(max_examples=150, deadline=None)
@given(small_loops())
def test_equals_exhaustive_search(loop: Loop) -> None:
    try:
        solution = solved(loop)
    except (MemoryExceeded, RingTooShallow):
        assert exhaustive(loop, 6) is None
        return
    limited = sum(loop.unit(op.unit).count is not None and op.occupancy_cycles > 0 for op in loop.operations)
    assume(solution.schedule.ii_cycles**limited <= 3000)
    best = exhaustive(loop, solution.schedule.ii_cycles)
    assert best is not None
    found = [best.ii_cycles, best.length_cycles]
    if loop.rings:
        found.append(sum(ring.slot_bytes * best.ring_depths[ring.name] for ring in loop.rings))
    assert [level.value for level in solution.certificate.levels] == found
    assert solution.certificate.status is Status.OPTIMAL


@settings(max_examples=100, deadline=None)
@given(small_loops(rings=False))
def test_heuristic_solver_and_refutation_agree(loop: Loop) -> None:
    network = network_of(loop)
    best = exhaustive(loop, 12)
    assume(best is not None)
    assert best is not None
    for ii in range(1, best.ii_cycles):
        assert not refuted(loop, ii, 500) or best.ii_cycles > ii
    assert not refuted(loop, best.ii_cycles, 10_000)
    outcome, starts = decide(network, best.ii_cycles, Options().limits)
    assert outcome.solved
    assert starts is not None
    by_hand = place(network, best.ii_cycles)
    assert by_hand is None or min(by_hand) == 0


def test_same_input_same_answer() -> None:
    assert schedule(packed()) == schedule(packed())


def test_progress_is_told() -> None:
    told: list[str] = []
    schedule(packed(), Options(restarts=0), told.append)
    assert any("searching" in line for line in told)


def assemble(loop: Loop, ii: int, *adders: Callable[[families.Model], object]) -> Status:
    network = network_of(loop)
    model = families.Model(network, ii)
    families.add_times(model, {vertex: (0, horizon(network, ii)) for vertex in range(network.size)})
    for add in adders:
        add(model)
    return solve(model.cp).status


def arcs_of(model: families.Model) -> None:
    families.add_arcs(model, range(len(model.network.arcs)))


def starts_of(**fixed: int) -> Callable[[families.Model], None]:
    def fix(model: families.Model) -> None:
        for name, start in fixed.items():
            model.cp.add(model.starts[model.network.loop.index[name]] == start)

    return fix


@pytest.mark.parametrize(
    ("loop", "ii", "add", "fine", "broken"),
    [
        (accumulate(), 4, arcs_of, {"load": 0, "scale": 3}, {"load": 0, "scale": 2}),
        (accumulate(), 4, families.add_units, {"load": 0, "store": 9}, {"load": 0, "store": 8}),
        (packed(), 5, families.add_units, {"step0": 0, "step1": 1, "step2": 3}, {"step0": 0, "step1": 1, "step2": 6}),
        (staged(), 10, families.add_units, {"first": 0, "second": 5}, {"first": 0, "second": 4}),
        (staged(), 10, families.add_units, {"first": 8, "second": 13}, {"first": 8, "second": 11}),
        (staged(), 10, families.add_rings, {"load": 0, "second": 35}, {"load": 0, "second": 36}),
        (
            staged(),
            10,
            families.add_one_iteration_units,
            {"first": 0, "second": 5},
            {"first": 0, "second": 4},
        ),
    ],
)
def test_family_accepts_and_refuses(
    loop: Loop,
    ii: int,
    add: Callable[[families.Model], object],
    fine: dict[str, int],
    broken: dict[str, int],
) -> None:
    assert assemble(loop, ii, add, starts_of(**fine)) is Status.OPTIMAL
    assert assemble(loop, ii, add, starts_of(**broken)) is Status.INFEASIBLE


def test_memory_family_accepts_and_refuses() -> None:
    def both(model: families.Model) -> None:
        families.add_rings(model)
        families.add_memories(model)

    loop = two_rings(600)
    assert assemble(loop, 13, arcs_of, both) is Status.OPTIMAL
    assert assemble(loop, 12, arcs_of, both) is Status.INFEASIBLE


def test_length_family_accepts_and_refuses() -> None:
    def at_most(length: int) -> Callable[[families.Model], cp_model.IntVar]:
        return lambda model: families.add_length(model, 0, length)

    assert assemble(accumulate(), 4, arcs_of, at_most(10)) is Status.OPTIMAL
    assert assemble(accumulate(), 4, arcs_of, at_most(9)) is Status.INFEASIBLE


def test_fewer_bytes_that_come_with_a_shorter_iteration_shorten_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the length is left open, the level after it may find a shorter schedule, which the certificate states."""
    from treadle.solvers.modulo import solve as module
    from treadle.solvers.modulo.bounds import Bound
    from treadle.solvers.modulo.length import Reached, length_at
    from treadle.solvers.modulo.network import network_of

    loop = accumulate()
    network = network_of(loop)
    best = module.schedule(loop)
    starts = tuple(best.schedule.start_cycles[operation.name] for operation in loop.operations)
    late = tuple(start + 5 * best.schedule.ii_cycles * (at == len(starts) - 1) for at, start in enumerate(starts))
    value = length_at(network, late)
    opened = Reached(late, value, Bound(1, best.certificate["ii"].proof, {}))

    def left_open(*_: object) -> Reached:
        return opened

    monkeypatch.setattr(module, "least_length", left_open)
    found = module.schedule(loop)
    assert found.certificate["length"].value == found.schedule.length_cycles <= value
