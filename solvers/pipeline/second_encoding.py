"""A second opinion where no proof log comes in time: the same claim in another encoding, which has to agree.

The first encoding puts groups, stages, slots and registers into one model (`model.py`). This one is what proof logs are
about (`ir.tile.warp_refutation`): every assignment to groups that counting leaves, under every order of the full unit,
is a problem of times in windows, whose registers are counted in iterations. The two share the loop and nothing else: a
mistake in one of them is not one in the other. It refutes at most; a claim that it cannot confirm says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from ortools.sat.python import cp_model

from treadle.ir.certificate import Level, ProofKind, Status
from treadle.ir.proof_log.problem import Linear, Problem
from treadle.ir.tile.assignments import WalkTooLong
from treadle.ir.tile.warp_logs import MOST_QUESTIONS
from treadle.ir.tile.warp_refutation import Question, questions, refuted_by_orders
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.backend import Limits, Outcome, solve

QUESTION_S = 0.2
"""Deterministic seconds for one question."""
WHOLE_S = 2.0
"""Deterministic seconds for all questions of a level."""
LEAST_S = 0.005
"""Least charge for a question, which also takes time to build."""


def with_second_opinions(warps: WarpLoop, ii: int, levels: Sequence[Level]) -> list[Level]:
    """Return the levels, those that the solver alone calls optimal with what the second encoding says (``second``)."""
    told: list[Level] = []
    for position, level in enumerate(levels):
        by_solver = level.proof is ProofKind.SOLVER and level.status is Status.OPTIMAL
        decided = {before.name: int(before.value) for before in levels[:position] if before.name != "ii"}
        told.append(_with_opinion(warps, ii, decided, level) if by_solver else level)
    return told


def _with_opinion(warps: WarpLoop, ii: int, decided: dict[str, int], level: Level) -> Level:
    claims = [(ii, {**decided, level.name: int(level.value) - 1})]
    if level.name == "ii":
        claims = [(interval, dict[str, int]()) for interval in level.evidence["refuted"]]
    asked = 0
    for interval, most in claims:
        count = refuted_again(warps, interval, most)
        if count is None:
            return _replaced(level, {"agrees": False})
        asked += count
    return _replaced(level, {"agrees": True, "questions": asked})


def _replaced(level: Level, second: dict[str, Any]) -> Level:
    return replace(level, evidence={**level.evidence, "second": second})


def refuted_again(warps: WarpLoop, ii: int, most: dict[str, int]) -> int | None:
    """Return how many questions it took to refute that a schedule at `ii` keeps within `most`; None where it failed."""
    try:
        asked = iter(()) if refuted_by_orders(warps, ii, most) else questions(warps, ii, most)
        every = list(islice(asked, MOST_QUESTIONS + 1))
    except WalkTooLong:
        return None
    if len(every) > MOST_QUESTIONS:
        return None
    left_s = WHOLE_S
    for question in every:
        spent_s = _refuted(question, min(QUESTION_S, left_s))
        if spent_s is None:
            return None
        left_s -= spent_s
    return len(every)


def _refuted(question: Question, limit_s: float) -> float | None:
    """Return the seconds it took to refute a question, with exact stays where least ones do not do; None if neither."""
    spent_s = 0.0
    for exact in (False, True):
        problem = question.problem(exact=exact)
        if problem is None:
            return spent_s
        if limit_s - spent_s <= 0:
            return None
        outcome = _ask(problem, limit_s - spent_s)
        spent_s += max(LEAST_S, outcome.report.deterministic_time)
        if outcome.status is Status.INFEASIBLE:
            return spent_s
    return None


def _ask(problem: Problem, limit_s: float) -> Outcome:
    model = cp_model.CpModel()
    variables = [model.new_int_var(first, last, f"v{at}") for at, (first, last) in enumerate(problem.bounds)]
    for constraint in problem.constraints:
        if isinstance(constraint, Linear):
            total = sum(term.scale * variables[term.variable] + term.offset for term in constraint.terms)
            model.add(total <= constraint.most)
            continue
        intervals = [
            model.new_fixed_size_interval_var(variables[start.variable] + start.offset, duration, "")
            for start, duration in zip(constraint.starts, constraint.durations, strict=True)
        ]
        model.add_cumulative(intervals, list(constraint.demands), constraint.capacity)
    return solve(model, Limits(deterministic_s=limit_s))
