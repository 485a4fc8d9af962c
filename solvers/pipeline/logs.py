"""Proof logs in place of the solver's word, for levels of a warp schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from treadle.ir.certificate import Level, ProofKind, Status
from treadle.ir.proof_log.packed import LARGEST_CHARACTERS
from treadle.ir.tile.assignments import WalkTooLong
from treadle.ir.tile.turn_search import Effort, SearchTooLong
from treadle.ir.tile.turns import first_found
from treadle.ir.tile.warp_refutation import Question, questions, refuted_by_orders
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.pipeline.turning import LARGEST
from treadle.solvers.refutation.log import logged_all

MOST_LOGS = 16
"""Questions that are refuted one by one; with more of them the level stays on the solver's word."""
LOG_S = 0.5
"""Wall-clock seconds for one log."""


TURN_NODES = 5_000
"""Nodes of a search over turns that is to say the same as the solver."""


@dataclass(frozen=True, slots=True)
class Logs:
    """One proof for each question: packed text, and whether values stay for as long as they really do."""

    lines: list[str]
    exact: list[bool]


def with_logs(warps: WarpLoop, ii: int, levels: list[Level]) -> list[Level]:
    """Return the levels, those that the solver calls optimal with proof logs where these are found in a short time,
    or by turns where a search over them says the same.

    With the groups and the order of the full unit given, what is left is a problem of times in short windows, which is
    refuted for every assignment that counting leaves below the value.
    """
    better: list[Level] = []
    for position, level in enumerate(levels):
        decided = {before.name: int(before.value) for before in levels[:position] if before.name != "ii"}
        by_solver = level.proof is ProofKind.SOLVER and level.status is Status.OPTIMAL
        found = (_of_level(warps, ii, decided, level) or _by_turns(warps, ii, decided, level)) if by_solver else None
        better.append(level if found is None else replace(level, proof=found[0], evidence=found[1]))
    return better


def _of_level(
    warps: WarpLoop, ii: int, decided: dict[str, int], level: Level
) -> tuple[ProofKind, dict[str, Any]] | None:
    """Return a checkable kind with its evidence."""
    if level.name == "ii":
        refuted = level.evidence["refuted"]
        every = [logs_of(warps, interval, {}) for interval in refuted]
        found = [logs for logs in every if logs is not None]
        evidence: dict[str, Any] = {"basis": level.evidence["basis"], "refuted": refuted}
        if len(found) < len(every):
            return None
        if not any(logs.lines for logs in found):
            return ProofKind.ENUMERATION, {**evidence, "orders": True}
        lines, exact = [logs.lines for logs in found], [logs.exact for logs in found]
        return ProofKind.PROOF_LOG, {**evidence, "logs": lines, "exact": exact}
    below = int(level.value) - 1
    logs = logs_of(warps, ii, {**decided, level.name: below})
    if logs is None:
        return None
    evidence = {"interval": ii, "most": decided, "refuted": below}
    if not logs.lines:
        return ProofKind.ENUMERATION, {**evidence, "orders": True}
    return ProofKind.PROOF_LOG, {**evidence, "logs": logs.lines, "exact": logs.exact}


def _by_turns(
    warps: WarpLoop, ii: int, decided: dict[str, int], level: Level
) -> tuple[ProofKind, dict[str, Any]] | None:
    """Return what a search over turns refutes of a level, where few nodes refute all of it."""
    if len(warps.loop.operations) > LARGEST:
        return None
    effort, below = Effort(TURN_NODES), int(level.value) - 1
    try:
        if level.name != "ii":
            if first_found(warps, ii, ii, {**decided, level.name: below}, effort) is not None:
                return None
            return ProofKind.ENUMERATION, {"interval": ii, "most": decided, "refuted": below, "turns": True}
        refuted = level.evidence["refuted"]
        if any(first_found(warps, interval, interval, {}, effort) is not None for interval in refuted):
            return None
    except (WalkTooLong, SearchTooLong):
        return None
    ranges = [(interval, interval) for interval in refuted]
    return ProofKind.ENUMERATION, {"basis": level.evidence["basis"], "refuted": refuted, "turns": ranges}


def logs_of(warps: WarpLoop, ii: int, most: dict[str, int]) -> Logs | None:
    """Return a log for every question of a refutation (there may be none to ask), or None where one has none."""
    try:
        every = [] if refuted_by_orders(warps, ii, most) else list(islice(questions(warps, ii, most), MOST_LOGS + 1))
    except WalkTooLong:
        return None
    return _answered(every) if len(every) <= MOST_LOGS else None


def _answered(every: list[Question]) -> Logs | None:
    """Refute questions in order: stays of values by their least lengths first, exactly where that does not do."""
    logs = Logs([], [])
    exact = False
    while len(logs.lines) < len(every):
        left = every[len(logs.lines) :]
        problems = [question.problem(exact=exact) for question in (left[:1] if exact else left)]
        if problems[0] is None:
            found = [""]
        else:
            found = logged_all([p for p in problems[: _until_none(problems)] if p is not None], LOG_S)
        if not found and exact:
            return None
        logs.lines.extend(found)
        logs.exact.extend([exact] * len(found))
        if sum(map(len, logs.lines)) > LARGEST_CHARACTERS:
            return None
        exact = not found
    return logs


def _until_none(problems: list[Any]) -> int:
    return next((at for at, problem in enumerate(problems) if problem is None), len(problems))
