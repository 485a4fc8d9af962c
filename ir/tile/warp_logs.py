"""Levels of a warp schedule whose bound rests on proof logs: one for each question that counting leaves.

A question is an assignment to groups under one order of the full unit (`warp_refutation.questions`). Evidence:
``interval``; ``most``, the levels decided before with their values; ``refuted``, the value below the bound; ``logs``,
one packed proof for each question in order; ``exact``, for each whether values stay for as long as they really do. Of
the interval: ``basis`` and ``refuted``, and lists of logs, one for each refuted interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.ir.certificate import Level
from treadle.ir.proof_log.errors import UnreadableProof, WrongStep
from treadle.ir.proof_log.packed import unpacked
from treadle.ir.proof_log.replay import replay
from treadle.ir.tile.assignments import WalkTooLong
from treadle.ir.tile.claims import Refused, expect
from treadle.ir.tile.warp_refutation import questions, refuted_by_counting, refuted_by_orders
from treadle.ir.tile.warps import WarpLoop, WarpSchedule

MOST_QUESTIONS = 400
"""Questions a certificate may answer; with more of them the walk over the assignments is too long to repeat."""


def by_logs(name: str) -> Callable[..., None]:
    """Return the derivation of a level's bound from its proof logs; raises Refused."""

    def derive(
        warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
    ) -> None:
        most = refuted_levels(name, made.schedule.ii_cycles, bound, evidence, before)
        check_logs(warps, made.schedule.ii_cycles, most, evidence["logs"], evidence["exact"])
        if not evidence["logs"]:
            raise Refused("TRD414", "counting alone refutes less; no proof log is needed")

    return derive


def by_orders(
    name: str, warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> None:
    """Re-derive a level's bound from orders of the full unit and assignments to groups alone; raises Refused."""
    most = refuted_levels(name, made.schedule.ii_cycles, bound, evidence, before)
    check_counted(warps, made.schedule.ii_cycles, most)


def refuted_levels(
    name: str, interval: int, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> dict[str, int]:
    """Return the levels, with their values, that no schedule is to keep within; raises Refused."""
    decided = {level.name: int(level.value) for level in before if level.name != "ii"}
    expect("interval of the schedule", interval, evidence["interval"])
    expect("levels decided before", decided, evidence["most"])
    expect("value below the bound", bound - 1, evidence["refuted"])
    return {**decided, name: int(bound) - 1}


def check_counted(warps: WarpLoop, interval: int, most: dict[str, int]) -> None:
    """Refuse a refutation that needs more than orders and assignments."""
    try:
        counted = refuted_by_counting(warps, interval, most)
    except WalkTooLong:
        raise Refused("TRD413", "the assignments are too many to go through") from None
    if not counted:
        raise Refused("TRD413", f"an assignment to groups is left at interval {interval}")


def check_logs(warps: WarpLoop, interval: int, most: dict[str, int], logs: list[str], exact: list[bool]) -> None:
    """Replay the logs of a refutation; nothing is asked where paths leave no order to any assignment."""
    try:
        every = [] if refuted_by_orders(warps, interval, most) else list(questions(warps, interval, most))
    except WalkTooLong:
        raise Refused("TRD413", "the assignments are too many to go through") from None
    problems = [question.problem(exact=flag is True) for question, flag in zip(every, exact, strict=False)]
    expect("questions that need a log", (len(every), len(every)), (len(logs), len(exact)))
    for problem, log in zip(problems, logs, strict=True):
        if problem is None:
            expect("log of what values alone refute", "", log)
            continue
        try:
            replay(problem, unpacked(log))
        except (UnreadableProof, WrongStep) as error:
            raise Refused("TRD413", str(error)) from None
