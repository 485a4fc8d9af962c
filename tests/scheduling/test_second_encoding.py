"""The second encoding: it refutes what the first one does, never what has a schedule, and what it says is checked."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.warp_oracle import random_warps
from treadle.ir.certificate import Level, ProofKind, Status
from treadle.ir.tile.warp_claims import recheck_warps, value_of
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.bounds import length_bound
from treadle.solvers.pipeline.errors import NoWarpSchedule, RegistersExceeded
from treadle.solvers.pipeline.second_encoding import refuted_again, with_second_opinions
from treadle.solvers.pipeline.solve import Options, Solution, schedule

REFUSALS = (RegistersExceeded, NoWarpSchedule)


@pytest.mark.parametrize("seed", range(12))
def test_what_has_a_schedule_is_never_refuted(seed: int) -> None:
    warps, solved = _scheduled(seed)
    ii, made = solved.schedule.schedule.ii_cycles, solved.schedule
    for name in ("traffic_bytes", "barriers", "registers", "length"):
        assert refuted_again(warps, ii, {name: value_of(warps, made, name)}) is None


def _scheduled(seed: int) -> tuple[WarpLoop, Solution]:
    """Draw loops from a seed until one has a schedule."""
    draws = random.Random(seed)
    for _ in range(20):
        warps = random_warps(draws)
        try:
            return warps, schedule(warps, Options(Limits(deterministic_s=0.1)))
        except REFUSALS:
            continue
    raise AssertionError("no loop of twenty has a schedule")


def test_levels_are_confirmed_and_say_so() -> None:
    """Levels that are proven otherwise are put on the solver's word; the second encoding confirms nearly all."""
    asked = agreed = 0
    for seed in range(12):
        warps = random_warps(random.Random(seed))
        try:
            solved = schedule(warps, Options(Limits(deterministic_s=0.1)))
        except REFUSALS:
            continue
        levels = [_on_word(level) for level in solved.certificate.levels]
        told = with_second_opinions(warps, solved.schedule.schedule.ii_cycles, levels)
        asked += sum(level.proof is ProofKind.SOLVER for level in told)
        agreed += sum(level.evidence.get("second", {}).get("agrees") is True for level in told)
    assert asked > 12
    assert agreed > 0.9 * asked


def _on_word(level: Level) -> Level:
    if level.name == "ii" or level.status is not Status.OPTIMAL:
        return level
    return replace(level, proof=ProofKind.SOLVER, evidence={})


@pytest.mark.parametrize(
    "second", [{"agrees": True}, {"agrees": "yes", "questions": 1}, {"agrees": True, "questions": -1}]
)
def test_an_opinion_of_another_form_is_found(second: dict[str, object]) -> None:
    """Levels on the solver's word are rare among small loops, so one of them is made."""
    for seed in range(60):
        warps = random_warps(random.Random(seed))
        try:
            solved = schedule(warps, Options(Limits(deterministic_s=0.1)))
        except REFUSALS:
            continue
        certificate = solved.certificate
        level = certificate["length"]
        plain = length_bound(network_of(warps.loop), solved.schedule.schedule.ii_cycles)
        if plain.value >= level.value or level.status is not Status.OPTIMAL:
            continue
        basis = {"value": plain.value, "proof": plain.proof.value, "evidence": plain.evidence}
        evidence = {"basis": basis, "solver": "a", "version": "1", "raw_status": "OPTIMAL"}
        for opinion, codes in (({"agrees": True, "questions": 2}, []), (second, ["TRD414"])):
            told = replace(level, proof=ProofKind.SOLVER, evidence={**evidence, "second": opinion})
            levels = tuple(told if one.name == "length" else one for one in certificate.levels)
            findings = recheck_warps(warps, solved.schedule, replace(certificate, levels=levels)).findings
            assert [finding.code for finding in findings] == codes
        return
    pytest.fail("no loop whose length needs a search")


def test_what_the_register_file_forbids_is_refuted() -> None:
    """Groups that fit one by one, but not together: with registers to spare the first question stays open."""
    refuted = 0
    for seed in range(40):
        warps = random_warps(random.Random(f"file {seed}"))
        if len(warps.loop.operations) > 4 or refuted == 2:
            continue
        try:
            solved = schedule(warps, Options(Limits(deterministic_s=0.1)))
        except REFUSALS:
            continue
        ii, registers = solved.schedule.schedule.ii_cycles, solved.schedule.registers
        tight = replace(warps, limits=replace(warps.limits, registers_of_file=sum(registers) - 1))
        count = refuted_again(tight, ii, {})
        try:
            at = schedule(tight, Options(Limits(deterministic_s=0.1))).schedule.schedule.ii_cycles
        except REFUSALS:
            at = ii + 1
        assert count is None or at > ii
        refuted += count is not None
    assert refuted == 2
