"""Damaged warp programs are rejected, each kind of damage by its code."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.warp_programs.cases import CASES, case, needed_slots
from tests.warp_programs.mutations import MUTATIONS, mutants
from treadle.ir.tile.program import Memory
from treadle.ir.warp.check import check_warp_program, trip_counts_of
from treadle.ir.warp.events import ancestors, unroll
from treadle.ir.warp.program import (
    Action,
    Buffer,
    Channel,
    Instruction,
    Queue,
    Source,
    Turn,
    WarpGroup,
    WarpProgram,
)  # fmt: skip

TILE = Buffer("tile", Memory.SHARED, 2, 64)
RING = Channel("tile", "tile", 0, (1,), transaction=True)


def _group(name: str, *steady: Instruction) -> WarpGroup:
    return WarpGroup(name, 4, 24, (), steady, (), ())


def _producer() -> tuple[Instruction, ...]:
    return (
        Instruction(Action.ACQUIRE, "tile"),
        Instruction(Action.PERFORM, "tile", result="tile", asynchronous=True),
        Instruction(Action.PUT, "tile", after="tile"),
    )


def _consumer() -> tuple[Instruction, ...]:
    return (
        Instruction(Action.GET, "tile"),
        Instruction(Action.PERFORM, "use", operands=(Source("tile", buffer="tile"),)),
        Instruction(Action.RELEASE, "tile"),
    )


def _program(producer: tuple[Instruction, ...], consumer: tuple[Instruction, ...]) -> WarpProgram:
    return WarpProgram("ring", (_group("load", *producer), _group("use", *consumer)), (TILE,), (RING,))


def _codes(program: WarpProgram) -> set[str]:
    return {finding.code for finding in check_warp_program(program)}


def test_a_ring_is_legal() -> None:
    assert check_warp_program(_program(_producer(), _consumer())) == []


def test_each_code_has_its_cause() -> None:
    acquire, load, put = _producer()
    get, use, release = _consumer()
    assert _codes(_program((acquire, load, put), (get, use, release, release))) == {"TRD530"}
    assert _codes(_program((acquire, load), (get, use, release))) == {"TRD531"}
    assert _codes(_program((acquire, load, put), (get, use))) == {"TRD530"}
    assert "TRD532" in _codes(_program((acquire, load, put), (get, release, use)))
    assert "TRD533" in _codes(_program((acquire, load, put), (use, get, release)))
    assert "TRD533" in _codes(_program((acquire, load, replace(put, after="")), (get, use, release)))
    waits = replace(_program(_producer(), _consumer()), channels=(replace(RING, consumers=(0,)),))
    assert _codes(waits) == {"TRD530"}


def test_unguarded_slots_are_races_and_phases_can_be_missed() -> None:
    _, load, put = _producer()
    get, use, _ = _consumer()
    one_way = replace(_program((load, put), (get, use)), channels=(replace(RING, one_way=True),))
    assert {"TRD532", "TRD534"} <= _codes(one_way)


def test_groups_that_wait_for_each_other() -> None:
    acquire, load, put = _producer()
    get, use, release = _consumer()
    back = Channel("back", "spare", 1, (0,))
    spare = Buffer("spare", Memory.SHARED, 1, 4)
    answer = (Instruction(Action.ACQUIRE, "back"), Instruction(Action.PUT, "back"))
    ask = (Instruction(Action.GET, "back"), Instruction(Action.RELEASE, "back"))
    fine = _program((acquire, load, put, *ask), (get, use, release, *answer))
    both = replace(fine, buffers=(TILE, spare), channels=(RING, back))
    assert check_warp_program(both) == []
    crossed = _program((*ask, acquire, load, put), (get, use, release, *answer))
    found = check_warp_program(replace(crossed, buffers=(TILE, spare), channels=(RING, back)))
    assert [finding.code for finding in found] == ["TRD531"]
    assert "load: get back" in found[0].message
    assert "use: get tile" in found[0].message


def test_flights_and_drains() -> None:
    product = Instruction(Action.PERFORM, "a", asynchronous=True, queue="products")
    others = tuple(replace(product, subject=name) for name in "bcd")
    wait = Instruction(Action.WAIT, "products", pending=1)
    flying = WarpProgram("p", (_group("g", product, *others, wait),), queues=(Queue("products", 4),))
    assert {finding.code for finding in check_warp_program(flying)} == {"TRD535"}
    draining = replace(flying, queues=(Queue("products", 8, drains=True),))
    assert {finding.code for finding in check_warp_program(draining)} == {"TRD530"}


def test_turns_are_taken_and_passed_equally_often() -> None:
    take, hand = Instruction(Action.TAKE, "t"), Instruction(Action.PASS, "t")
    turn = Turn("t", "tensor_core", (0, 1))
    fair = WarpProgram("p", (_group("a", take, hand), _group("b", take, hand)), turns=(turn,))
    assert check_warp_program(fair) == []
    unfair = replace(fair, groups=(_group("a", take, hand, take, hand), _group("b", take, hand)))
    assert {finding.code for finding in check_warp_program(unfair)} <= {"TRD530", "TRD531"} != set()


@pytest.mark.parametrize(("name", "machine"), CASES)
def test_every_damage_is_found(name: str, machine: str) -> None:
    solved = case(name, machine)
    kinds: Counter[str] = Counter()
    for kind, damaged in mutants(solved.lowered, needed_slots(solved.warps, solved.made), 4):
        assert check_warp_program(damaged, solved.warps, solved.made, solved.facts), kind
        kinds[kind] += 1
    assert sum(kinds.values()) >= (30 if len(solved.lowered.groups) > 1 else 15)
    assert len(kinds) >= len(MUTATIONS) // 3


def test_trip_counts_cover_what_overlaps_and_every_ring_twice() -> None:
    lowered = case("attention", "b200").lowered
    stages = max(group.stages for group in lowered.groups)
    counts = trip_counts_of(lowered)
    assert set(range(stages + 2)) <= set(counts)
    assert any(trips % 2 for trips in counts if trips > stages)


def test_order_of_events_is_none_when_they_wait_for_each_other() -> None:
    assert ancestors([[1], [0]]) is None
    assert ancestors([[], [0], [1]]) == [0, 1, 3]
    assert unroll(_program(_producer(), _consumer()), 3).trips == 3


def test_a_budget_below_what_the_values_need() -> None:
    solved = case("gemm", "h100")
    load, consumer = solved.lowered.groups
    tight = replace(solved.lowered, groups=(load, replace(consumer, registers=consumer.registers - 8)))
    found = check_warp_program(tight, solved.warps)
    assert [(finding.code, finding.found) for finding in found] == [("TRD536", str(consumer.registers))]
