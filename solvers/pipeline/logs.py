"""Proof logs in place of the solver's word, for levels of a warp schedule."""

from __future__ import annotations

from dataclasses import replace

from treadle.ir.certificate import Level, ProofKind, Status
from treadle.ir.proof_log.packed import LARGEST_CHARACTERS
from treadle.ir.tile.assignments import WalkTooLong
from treadle.ir.tile.warp_refutation import questions
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.refutation.log import logged

MOST_LOGS = 8
"""Assignments that are refuted one by one; with more of them the level stays on the solver's word."""
LOG_S = 0.5
"""Wall-clock seconds for one log."""


def with_logs(warps: WarpLoop, ii: int, levels: list[Level]) -> list[Level]:
    """Return the levels, those that the solver calls optimal with proof logs where these are found in a short time.

    With the groups given, what is left is a problem of times, which is refuted for every assignment that counting
    leaves below the value.
    """
    better: list[Level] = []
    for position, level in enumerate(levels):
        decided = {before.name: int(before.value) for before in levels[:position] if before.name != "ii"}
        by_solver = level.proof is ProofKind.SOLVER and level.status is Status.OPTIMAL and level.name != "ii"
        logged_as = level
        for exact in (False, True) if by_solver else ():
            if logs := _logs(warps, ii, decided, level, exact=exact):
                refuted = int(level.value) - 1
                evidence = {"interval": ii, "most": decided, "refuted": refuted, "exact": exact, "logs": logs}
                logged_as = replace(level, proof=ProofKind.PROOF_LOG, evidence=evidence)
                break
        better.append(logged_as)
    return better


def _logs(warps: WarpLoop, ii: int, decided: dict[str, int], level: Level, *, exact: bool) -> list[str]:
    """Return a log for every question, or nothing."""
    try:
        problems = questions(warps, ii, decided, level.name, int(level.value), exact=exact)
    except WalkTooLong:
        return []
    if len(problems) > MOST_LOGS:
        return []
    logs: list[str] = []
    for problem in problems:
        log = logged(problem, LOG_S)
        if log is None or sum(map(len, logs)) + len(log) > LARGEST_CHARACTERS:
            return []
        logs.append(log)
    return logs
