"""The checker of certificates: every number changed in turn must be found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.scheduling.loops import accumulate, packed, staged
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.claims import recheck
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.schedule import Schedule, check
from treadle.solvers.modulo.solve import schedule


def by_memory() -> Loop:
    loop = staged(capacity_bytes=600)
    other = Ring("other", "shared", 100, "load", (Reader("second", 5),), 9)
    return Loop(loop.name, loop.units, loop.operations, loop.dependences, (*loop.rings, other), loop.capacities)


def searched() -> Loop:
    """Interval by enumeration, length and ring bytes on the solver's word."""
    names = "abcdefg"
    return Loop(
        "searched",
        (Unit("alu", 1), Unit("other", 1)),
        tuple(Operation(name, "alu" if name in "abcd" else "other", 2 if name in "ace" else 1, 3) for name in names),
        (
            *(Dependence(a, b, 3) for a, b in ("ab", "bc", "cd", "ae", "ef", "fg", "ag")),
            Dependence("c", "a", 1, 1),
        ),
        (Ring("kept", "shared", 8, "a", (Reader("g", 2), Reader("f", 4)), 6),),
        (Capacity("shared", 100),),
    )


LOOPS = [accumulate(), packed(), staged(5), staged(4), staged(2), by_memory(), searched()]


def kinds() -> set[tuple[str, ProofKind]]:
    return {(level.name, level.proof) for loop in LOOPS for level in schedule(loop).certificate.levels}


def numbers(data: Any) -> Iterator[tuple[list[str | int], int]]:
    """Every integer in JSON data, with its path."""
    if isinstance(data, bool):
        return
    if isinstance(data, int):
        yield [], data
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        for path, number in numbers(value):
            yield [key, *path], number


def put(data: Any, path: list[str | int], value: object) -> Any:
    if not path:
        return value
    head, *rest = path
    if isinstance(data, dict):
        return {**data, head: put(data[head], rest, value)}
    return [put(item, rest, value) if position == head else item for position, item in enumerate(data)]


def with_level(certificate: Certificate, position: int, level: Level) -> Certificate:
    levels = certificate.levels
    return replace(certificate, levels=(*levels[:position], level, *levels[position + 1 :]))


def found(loop: Loop, made: Schedule, certificate: Certificate) -> set[str]:
    return {finding.code for finding in (*check(loop, made), *recheck(loop, made, certificate).findings)}


def test_every_kind_but_a_trivial_one_is_exercised() -> None:
    assert {
        ("ii", ProofKind.RESOURCE),
        ("ii", ProofKind.RECURRENCE),
        ("ii", ProofKind.CAPACITY),
        ("ii", ProofKind.ENUMERATION),
        ("length", ProofKind.RECURRENCE),
        ("ring_bytes", ProofKind.RECURRENCE),
    } <= kinds()


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: f"{loop.name}{len(loop.rings)}")
def test_every_changed_number_of_the_evidence_is_found(loop: Loop) -> None:
    solution = schedule(loop)
    assert found(loop, solution.schedule, solution.certificate) == set()
    tried = 0
    for position, level in enumerate(solution.certificate.levels):
        for path, number in numbers(level.evidence):
            if path[-1] in ("seed", "workers"):
                continue  # says how the solver was run; nothing can be derived from it
            if path[-1] == "nodes":
                continue  # a larger search is as good; too small a one is tested on its own
            for changed in (number + 1, number - 1, -number - 7, 10**6):
                mutated = replace(level, evidence=put(level.evidence, path, changed))
                certificate = with_level(solution.certificate, position, mutated)
                codes = found(loop, solution.schedule, certificate)
                assert codes & {"TRD413", "TRD414"}, (level.name, path, number, changed)
                tried += 1
    assert tried or all(not level.evidence for level in solution.certificate.levels)


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: f"{loop.name}{len(loop.rings)}")
def test_every_changed_value_bound_status_and_kind_is_found(loop: Loop) -> None:
    solution = schedule(loop)
    for position, level in enumerate(solution.certificate.levels):
        assert level.bound is not None
        changes: list[dict[str, Any]] = [
            {"value": level.value + 1, "bound": level.bound + 1},
            {"value": level.value + 1, "status": Status.FEASIBLE},
            {"bound": level.bound - 1, "status": Status.FEASIBLE},
            {"status": Status.FEASIBLE},
            {"status": Status.UNKNOWN},
            {"maximize": True},
            {"name": "width"},
            {"unit": "seconds"},
            {"evidence": {}},
            *({"proof": kind} for kind in ProofKind if kind not in (level.proof, ProofKind.NONE)),
        ]
        if level.proof is ProofKind.COUNT:
            changes.remove({"evidence": {}})
        for change in changes:
            if level.proof is ProofKind.ENUMERATION and change.get("proof") is ProofKind.SOLVER:
                continue  # claims less than was shown; needs a solver's name, which the evidence lacks
            try:
                mutated = replace(level, **change)
            except InvalidValue:
                continue  # not even a level
            codes = found(loop, solution.schedule, with_level(solution.certificate, position, mutated))
            assert codes & {"TRD410", "TRD411", "TRD412", "TRD413", "TRD414"}, (level.name, change)


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: f"{loop.name}{len(loop.rings)}")
def test_every_changed_number_of_the_schedule_is_found(loop: Loop) -> None:
    solution = schedule(loop)
    made = solution.schedule
    mutants = [
        replace(made, ii_cycles=made.ii_cycles - 1),
        replace(made, ii_cycles=made.ii_cycles + 1),
        replace(made, length_cycles=made.length_cycles + 1),
        *(replace(made, ring_depths={**made.ring_depths, name: d + 1}) for name, d in made.ring_depths.items()),
        *(replace(made, ring_depths={**made.ring_depths, name: d - 1}) for name, d in made.ring_depths.items()),
        *(replace(made, start_cycles={**made.start_cycles, name: -1}) for name in made.start_cycles),
    ]
    for mutant in mutants:
        assert found(loop, mutant, solution.certificate), mutant


def test_levels_of_another_problem_are_found() -> None:
    solution = schedule(accumulate())
    other = replace(solution.certificate, problem="modulo/other")
    assert found(accumulate(), solution.schedule, other) == {"TRD410"}
    shuffled = replace(solution.certificate, levels=solution.certificate.levels[::-1])
    assert found(accumulate(), solution.schedule, shuffled) == {"TRD410"}
    none = replace(solution.certificate, levels=())
    assert found(accumulate(), solution.schedule, none) == {"TRD410"}


def test_too_small_a_search_refutes_nothing() -> None:
    loop = staged(4)
    solution = schedule(loop)
    level = solution.certificate["ii"]
    assert level.proof is ProofKind.ENUMERATION
    for nodes in (0, -5, 10**9):
        mutated = replace(level, evidence={**level.evidence, "nodes": nodes})
        assert found(loop, solution.schedule, with_level(solution.certificate, 0, mutated)) == {"TRD414"}


def test_a_worse_legal_schedule_does_not_pass_as_optimal() -> None:
    loop = accumulate()
    solution = schedule(loop)
    later = {name: start + (name == "store") for name, start in solution.schedule.start_cycles.items()}
    worse = replace(solution.schedule, start_cycles=later, length_cycles=solution.schedule.length_cycles + 1)
    assert check(loop, worse) == []
    assert found(loop, worse, solution.certificate) == {"TRD411"}
    level = solution.certificate["length"]
    lie = replace(level, value=level.value + 1, bound=level.value + 1)
    assert found(loop, worse, with_level(solution.certificate, 1, lie)) == {"TRD413"}


@pytest.mark.parametrize(
    "cycle",
    [
        [],
        [{"dependence": 0}],
        [{"dependence": 99}],
        [{"ring": "none", "reader": 0}],
        [{"dependence": "2"}],
        ["sum"],
        None,
    ],
)
def test_broken_cycles_are_found(cycle: object) -> None:
    solution = schedule(accumulate())
    mutated = replace(solution.certificate["ii"], evidence={"cycle": cycle})
    codes = found(accumulate(), solution.schedule, with_level(solution.certificate, 0, mutated))
    assert codes & {"TRD413", "TRD414"}


def test_counts_of_what_was_rederived() -> None:
    solution = schedule(accumulate())
    review = recheck(accumulate(), solution.schedule, solution.certificate)
    assert (review.rederived, review.on_solver_word) == (4, 0)
