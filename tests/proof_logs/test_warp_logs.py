"""Levels of warp schedules by proof log: what is refuted is impossible, what is possible is never refuted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, reject, settings

from tests.proof_logs.test_replay import accepted, damaged
from tests.scheduling.warp_loops import small_warps, two_tiles
from tests.warp_programs.cases import case
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.diagnostics import TreadleError
from treadle.ir.proof_log.packed import packed, unpacked
from treadle.ir.proof_log.problem import Problem
from treadle.ir.tile.orders import core, whole
from treadle.ir.tile.warp_claims import recheck_warps, value_of
from treadle.ir.tile.warp_refutation import crossed_loop, over_groups, questions, refuted_by_counting
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline import solve as pipeline
from treadle.solvers.pipeline.logs import with_logs
from treadle.solvers.refutation.log import logged

pytest.importorskip("pumpkin_solver")
DECIDED = ("traffic_bytes", "barriers", "groups", "registers")


def _decided(warps: WarpLoop, made: WarpSchedule) -> dict[str, int]:
    return {name: value_of(warps, made, name) for name in DECIDED}


def _certificate(warps: WarpLoop, made: WarpSchedule) -> Certificate:
    """A certificate whose length rests on proof logs, the levels before on nothing."""
    ii, length = made.schedule.ii_cycles, made.schedule.length_cycles
    units = {"ii": "cycles", "traffic_bytes": "bytes", "length": "cycles"}
    values = {"ii": ii, **_decided(warps, made)}
    levels = [Level(n, units.get(n, "1"), v, None, Status.FEASIBLE, ProofKind.NONE) for n, v in values.items()]
    by_solver = Level("length", "cycles", length, length, Status.OPTIMAL, ProofKind.SOLVER, {})
    return Certificate(f"pipeline/{warps.loop.name}", "test", tuple(with_logs(warps, ii, [*levels, by_solver])))


def test_a_length_has_a_log_that_is_replayed() -> None:
    solved = case("attention", "h100")
    certificate = _certificate(solved.warps, solved.made)
    level = certificate["length"]
    assert level.proof is ProofKind.PROOF_LOG
    assert len(level.evidence["logs"][0]) < 20_000
    review = recheck_warps(solved.warps, solved.made, certificate)
    assert review.findings == ()
    assert review.on_solver_word == len(certificate.levels) - 1


def test_the_length_of_the_ping_pong_needs_no_log() -> None:
    """Orders of the tensor core, and the paths that they leave, say all of it."""
    solved = case("pair", "h100")
    certificate = _certificate(solved.warps, solved.made)
    assert certificate["length"].proof is ProofKind.ENUMERATION
    assert recheck_warps(solved.warps, solved.made, certificate).findings == ()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"logs": []}, "TRD413"),
        ({"logs": [packed("c UNSAT\n")]}, "TRD413"),
        ({"logs": ["no base85 \\"]}, "TRD413"),
        ({"interval": 511}, "TRD413"),
        ({"most": {}}, "TRD413"),
        ({"exact": []}, "TRD413"),
    ],
)
def test_other_evidence_is_refused(change: dict[str, object], code: str) -> None:
    solved = case("attention", "h100")
    certificate = _certificate(solved.warps, solved.made)
    level = certificate["length"]
    wrong = replace(level, evidence={**level.evidence, **change})
    review = recheck_warps(solved.warps, solved.made, replace(certificate, levels=(*certificate.levels[:-1], wrong)))
    assert [finding.code for finding in review.findings] == [code]


def _problems(
    warps: WarpLoop, made: WarpSchedule, cycles: int | None, registers: int, *, exact: bool = True
) -> list[Problem]:
    """The problems of a schedule's own assignment at its interval, one for each order of the full unit."""
    ii = made.schedule.ii_cycles
    known = core(warps, ii) if cycles is None else whole(warps, ii)
    every = over_groups(known, made.groups, ii, cycles, registers)
    return [problem for question in every if (problem := question.problem(exact=exact)) is not None]


def test_a_log_refutes_nothing_else() -> None:
    """The log of fewer registers does not refute the schedule's own number, and no damage makes it do so."""
    solved = case("attention", "h100")
    registers, length = max(solved.made.registers), solved.made.schedule.length_cycles
    below = _problems(solved.warps, solved.made, length - 1, registers)
    own = _problems(solved.warps, solved.made, length, registers)
    log = logged(below[0], 2.0)
    assert log is not None
    text = unpacked(log)
    assert accepted(below[0], text)
    assert not any(accepted(problem, text) for problem in own)
    assert not any(accepted(own[0], damaged(text, seed)) for seed in range(300))


@pytest.mark.parametrize(("name", "machine"), [("attention", "h100"), ("attention", "b200"), ("gemm", "b200")])
def test_schedules_that_exist_have_no_refutation(name: str, machine: str) -> None:
    solved = case(name, machine)
    schedule, registers = solved.made.schedule, max(solved.made.registers)
    for cycles in (schedule.length_cycles, None):
        own = _problems(solved.warps, solved.made, cycles, registers)
        assert any(logged(problem, 1.0) is None for problem in own)


@given(warps=small_warps())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_small_schedules_that_exist_have_no_refutation(warps: WarpLoop) -> None:
    try:
        made = pipeline.schedule(warps, pipeline.Options(Limits(deterministic_s=1.0))).schedule
    except TreadleError:
        reject()
    schedule = made.schedule
    levels = {"registers": max(made.registers), "length": schedule.length_cycles}
    for most in ({}, {"registers": levels["registers"]}, levels):
        assert not refuted_by_counting(warps, schedule.ii_cycles, most)
    for cycles, exact in ((schedule.length_cycles, False), (schedule.length_cycles, True), (None, True)):
        own = _problems(warps, made, cycles, max(made.registers), exact=exact)
        assert any(logged(problem, 2.0) is None for problem in own)


def test_questions_leave_out_what_counting_refutes() -> None:
    warps = two_tiles()
    made = pipeline.schedule(warps, pipeline.Options(Limits(deterministic_s=1.0))).schedule
    ii = made.schedule.ii_cycles
    assert list(questions(warps, ii, {"traffic_bytes": -1})) == []
    assert list(questions(warps, ii, {**_decided(warps, made), "length": 0})) == []
    assert list(questions(warps, ii, {**_decided(warps, made), "length": made.schedule.length_cycles})) != []


def test_crossings_are_paid() -> None:
    solved = case("gemm", "h100")
    crossed = crossed_loop(solved.warps, solved.made.groups)
    longer = [
        new.delay_cycles - old.delay_cycles
        for new, old in zip(crossed.dependences, solved.warps.loop.dependences, strict=True)
    ]
    assert sorted(set(longer)) == [0, 92]
