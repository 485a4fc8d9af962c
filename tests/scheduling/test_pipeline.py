"""The joint scheduler: legality by mutation, every level against exhaustive search, known shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given, settings

from tests.scheduling.loops import accumulate
from tests.scheduling.warp_loops import small_warps, two_tiles
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.loop import Loop, Operation, Unit
from treadle.ir.tile.register_bound import register_bound
from treadle.ir.tile.schedule import Schedule, length_of
from treadle.ir.tile.warp_claims import recheck_warps, value_of
from treadle.ir.tile.warps import (
    Crossing,
    Issue,
    WarpLimits,
    WarpLoop,
    WarpSchedule,
    check_warps,
    register_peaks,
)
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.errors import NoWarpSchedule, RegistersExceeded
from treadle.solvers.pipeline.solve import OBJECTIVE, Options, Solution, schedule


def solved(warps: WarpLoop) -> Solution:
    solution = schedule(warps)
    assert check_warps(warps, solution.schedule) == []
    assert recheck_warps(warps, solution.schedule, solution.certificate).findings == ()
    return solution


def all_schedules(warps: WarpLoop, ii: int) -> Iterator[WarpSchedule]:
    """Every warp schedule of a tiny loop at one interval with starts inside the stages there may be."""
    loop, limits = warps.loop, warps.limits
    names = [operation.name for operation in loop.operations]
    role_of = {issue.operation: issue.role for issue in warps.issues}
    for groups in product(range(limits.most_groups), repeat=len(names)):
        assigned = dict(zip(names, groups, strict=True))
        if set(groups) != set(range(max(groups) + 1)):
            continue
        roles = {group for name, group in assigned.items() if role_of[name]}
        if any(not role_of[name] and group in roles for name, group in assigned.items()):
            continue
        for starts in product(range(limits.most_stages * ii), repeat=len(names)):
            if min(starts):
                continue
            named = dict(zip(names, starts, strict=True))
            made = Schedule(loop.name, ii, named, length_of(loop, named), {})
            peaks = register_peaks(warps, made, assigned)
            registers = tuple(limits.role_registers if g in roles else peaks[g] for g in sorted(peaks))
            candidate = WarpSchedule(made, assigned, registers)
            if not check_warps(warps, candidate):
                yield candidate


def rank(warps: WarpLoop, made: WarpSchedule) -> list[int]:
    return [value_of(warps, made, name) for name in OBJECTIVE]


@settings(max_examples=20, deadline=None)
@given(small_warps())
def test_equals_exhaustive_search(warps: WarpLoop) -> None:
    count = len(warps.loop.operations)
    try:
        solution = solved(warps)
    except (NoWarpSchedule, RegistersExceeded):
        assert not any(True for ii in range(1, 4) if (2 * ii) ** count < 300 for _ in all_schedules(warps, ii))
        return
    ii = solution.schedule.schedule.ii_cycles
    assume((warps.limits.most_stages * ii) ** count * warps.limits.most_groups**count <= 4_000)
    for shorter in range(1, ii):
        assert next(all_schedules(warps, shorter), None) is None
    best = min(rank(warps, made) for made in all_schedules(warps, ii))
    assert rank(warps, solution.schedule) == best
    assert solution.certificate.status is Status.OPTIMAL


def test_two_tiles_take_two_groups_when_issue_says_so() -> None:
    solution = solved(two_tiles())
    values = {level.name: level.value for level in solution.certificate.levels}
    # A group issues 11 cycles per tile: the recurrence of 19 cycles leaves no room for both tiles in one.
    assert values == {"ii": 19, "traffic_bytes": 0, "barriers": 2, "groups": 3, "registers": 20, "length": 42}
    assert solution.certificate["groups"].proof is ProofKind.RESOURCE
    groups = solution.schedule.groups
    assert groups["mma_a"] == groups["soft_a"] != groups["mma_b"] == groups["soft_b"]


def test_one_group_is_enough_at_a_longer_interval() -> None:
    values = {level.name: level.value for level in solved(two_tiles(most_groups=2)).certificate.levels}
    assert (values["ii"], values["groups"]) == (22, 2)


def test_too_few_registers() -> None:
    with pytest.raises(RegistersExceeded) as caught:
        schedule(two_tiles(registers_per_group=12), Options())
    assert "`mma_a` need 16 registers per thread together, and a group has 8" in str(caught.value)
    assert "2.00x" in caught.value.next_step


def test_roles_keep_their_groups() -> None:
    warps = two_tiles()
    with pytest.raises(InvalidValue, match="roles differ"):
        replace(warps, crossings=tuple(replace(c, allowed=False) for c in warps.crossings))
    with pytest.raises(InvalidValue, match="more than 1 warp groups"):
        replace(warps, limits=replace(warps.limits, most_groups=1))


def test_no_schedule_within_the_limit() -> None:
    loop = Loop("tiny", (Unit("alu", 1),), (Operation("one", "alu", 1, 1),), ())
    warps = WarpLoop(loop, (Issue("one", 1),), (), (), WarpLimits(1, 8, 8))
    assert solved(warps).schedule.group_count == 1
    with pytest.raises(NoWarpSchedule) as caught:
        schedule(warps, Options(Limits(deterministic_s=0.0, wall_s=0.0)))
    assert "at most 1 warp groups" in str(caught.value)


def test_register_bound_needs_overlap() -> None:
    warps = two_tiles()
    bound, values = register_bound(warps, 19, 0)
    assert (bound, values) == (20, ("mma_a",))
    alone, _ = register_bound(warps, 19, None)
    assert alone <= bound


def mutants(warps: WarpLoop, made: WarpSchedule) -> Iterator[tuple[str, WarpSchedule]]:
    schedule_ = made.schedule
    for name, group in made.groups.items():
        for other in range(-1, made.group_count + 1):
            if other != group:
                yield f"{name} in {other}", replace(made, groups={**made.groups, name: other})
    for position in range(made.group_count):
        for step in (-1, 1):
            changed = tuple(r + step * (p == position) for p, r in enumerate(made.registers))
            yield f"registers {position} {step}", replace(made, registers=changed)
    yield "one group fewer", replace(made, registers=made.registers[:-1])
    for name in schedule_.start_cycles:
        for step in (-1, -7):
            starts = {**schedule_.start_cycles, name: schedule_.start_cycles[name] + step}
            yield f"{name} {step}", replace(made, schedule=replace(schedule_, start_cycles=starts))


def test_mutated_schedules_are_rejected() -> None:
    warps = two_tiles()
    solution = solved(warps)
    tried = 0
    for what, mutant in mutants(warps, solution.schedule):
        findings = [*check_warps(warps, mutant), *_claims(warps, mutant, solution.certificate)]
        assert findings, what
        tried += 1
    assert tried >= 25


def _claims(warps: WarpLoop, made: WarpSchedule, certificate: Certificate) -> tuple[object, ...]:
    try:
        return recheck_warps(warps, made, certificate).findings
    except KeyError:
        return ("no such operation or group",)


def test_mutated_certificates_are_rejected() -> None:
    warps = two_tiles()
    solution = solved(warps)
    levels = solution.certificate.levels
    tried = 0
    for position, level in enumerate(levels):
        assert level.bound is not None
        changes: list[dict[str, Any]] = [
            {"value": level.value + 1, "bound": level.bound + 1},
            {"value": level.value + 1, "status": Status.FEASIBLE},
            {"bound": level.bound - 1, "status": Status.FEASIBLE},
            {"status": Status.FEASIBLE},
            {"unit": "furlongs"},
            {"evidence": {}},
            {"proof": ProofKind.LP_DUAL},
            *({"evidence": {**level.evidence, key: value + 1}} for key, value in _numbers(level)),
        ]
        for change in changes:
            mutated: Level = replace(level, **change)
            certificate = replace(solution.certificate, levels=(*levels[:position], mutated, *levels[position + 1 :]))
            assert recheck_warps(warps, solution.schedule, certificate).findings, (level.name, change)
            tried += 1
    assert tried >= 40


def _numbers(level: Level) -> list[tuple[str, int]]:
    told = {k: v for k, v in level.evidence.items() if isinstance(v, int) and not isinstance(v, bool)}
    return [(k, v) for k, v in told.items() if k not in ("seed", "workers")]


def test_findings_of_each_kind() -> None:
    warps = two_tiles()
    made = solved(warps).schedule
    together = replace(made, groups={**made.groups, "mma_b": 1, "soft_b": 1, "mma_a": 1, "soft_a": 1})
    assert {f.code for f in check_warps(warps, together)} == {"TRD415"}
    two = replace(together, registers=made.registers[:2])
    assert "TRD417" in {f.code for f in check_warps(warps, two)}
    loads = replace(made, groups={**made.groups, "mma_b": 0})
    assert {"TRD419", "TRD416"} <= {f.code for f in check_warps(warps, loads)}
    shallow = replace(warps, limits=replace(warps.limits, most_stages=1))
    assert {f.code for f in check_warps(shallow, made)} == {"TRD408"}
    narrow = replace(warps, limits=replace(warps.limits, registers_per_group=19))
    assert {f.code for f in check_warps(narrow, made)} == {"TRD418"}
    alike = replace(warps, limits=replace(warps.limits, reallocation=False, registers_of_file=59))
    assert {f.code for f in check_warps(alike, made)} == {"TRD418"}
    inner = tuple(replace(c, allowed=c.bytes == 0) for c in warps.crossings)
    stays = replace(warps, crossings=inner)
    apart = replace(made, groups={**made.groups, "mma_a": 2, "mma_b": 1})
    assert "TRD416" in {f.code for f in check_warps(stays, apart)}


@pytest.mark.parametrize(
    ("issues", "crossings"),
    [
        ((Issue("none", 1),), ()),
        ((Issue("load", 1), Issue("load", 1)), ()),
        ((Issue("load", 1),), (Crossing(99),)),
        ((Issue("load", 1),), (Crossing(0),)),
    ],
)
def test_names_and_positions_resolve(issues: tuple[Issue, ...], crossings: tuple[Crossing, ...]) -> None:
    with pytest.raises(InvalidValue):
        WarpLoop(accumulate(), issues, crossings, (), WarpLimits(2, 8, 16))
