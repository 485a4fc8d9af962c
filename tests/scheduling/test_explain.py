"""What binds a loop, and what single changes would do."""

from __future__ import annotations

import pytest

from tests.scheduling.loops import accumulate, packed, staged
from treadle.ir.tile.explanation import Explanation, Limit
from treadle.ir.tile.loop import Loop, Operation, Reader, Ring, Unit
from treadle.solvers.modulo.explain import explain
from treadle.solvers.modulo.solve import schedule


def explained(loop: Loop) -> Explanation:
    solution = schedule(loop)
    return explain(loop, solution.schedule, solution.certificate)


def after(explanation: Explanation) -> dict[str, int | None]:
    return {alternative.change: alternative.ii_cycles for alternative in explanation.alternatives}


def test_recurrence_is_named_and_priced() -> None:
    explanation = explained(accumulate())
    (binding,) = explanation.bindings
    assert binding.limit is Limit.RECURRENCE
    assert binding.sentence == "`sum` -> `sum` takes 4 cycles over one iteration: 4 each"
    assert explanation.recurrence == ("sum",)
    assert after(explanation)["`sum` -> `sum` one cycle faster"] == 3
    assert after(explanation)["one more `adder`"] == 4


def test_all_that_bind_are_named() -> None:
    explanation = explained(packed())
    assert [binding.limit for binding in explanation.bindings] == [Limit.UNIT, Limit.RECURRENCE]
    assert explanation.units[0].share == 1.0
    assert explanation.units[0].slack_cycles == 0
    assert after(explanation) == {
        "one more `lane`": 5,
        "`lane` twice as fast": 3,
        "`step1` -> `step2` one cycle faster": 5,
    }


def test_a_ring_slot_is_priced() -> None:
    explanation = explained(staged(4))
    (binding,) = explanation.bindings
    assert binding.limit is Limit.PACKING
    assert "bounds allow 10 cycles" in binding.sentence
    assert after(explanation)["one more slot for `tile`"] == 10
    gain = next(a.gain for a in explanation.alternatives if a.change == "one more slot for `tile`")
    assert gain == pytest.approx(1 / 6)
    (memory,) = explanation.memories
    assert (memory.used_bytes, memory.capacity_bytes, memory.rings) == (400, 1000, (("tile", 4, 400),))


def test_memory_binds() -> None:
    loop = staged(capacity_bytes=600)
    other = Ring("other", "shared", 100, "load", (Reader("second", 5),), 9)
    both = Loop(loop.name, loop.units, loop.operations, loop.dependences, (*loop.rings, other), loop.capacities)
    (binding,) = explained(both).bindings
    assert (binding.limit, binding.name) == (Limit.MEMORY, "shared")


def test_nothing_binds_below_one_cycle() -> None:
    explanation = explained(Loop("free", (Unit("any", None),), (Operation("one", "any", 1, 1),), ()))
    (binding,) = explanation.bindings
    assert binding.limit is Limit.NOTHING
    assert explanation.alternatives == ()
