"""Levels of a warp schedule whose bound rests on proof logs: one for each assignment to groups that counting leaves.

Evidence: ``interval``; ``most``, the levels decided before with their values; ``refuted``, the value below the bound;
``exact``, whether values stay for as long as they really do; ``logs``, one packed proof for each of
`warp_refutation.questions`, in their order.
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
from treadle.ir.tile.warp_refutation import questions
from treadle.ir.tile.warps import WarpLoop, WarpSchedule


def by_logs(name: str) -> Callable[..., None]:
    """Return the derivation of a level's bound from its proof logs; raises Refused."""

    def derive(
        warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
    ) -> None:
        interval = made.schedule.ii_cycles
        decided = {level.name: int(level.value) for level in before if level.name != "ii"}
        expect("interval of the schedule", interval, evidence["interval"])
        expect("levels decided before", decided, evidence["most"])
        expect("value below the bound", bound - 1, evidence["refuted"])
        try:
            problems = questions(warps, interval, decided, name, int(bound), exact=evidence["exact"] is True)
        except WalkTooLong:
            raise Refused("TRD413", "the assignments are too many to go through") from None
        expect("assignments that need a log", len(problems), len(evidence["logs"]))
        if not problems:
            raise Refused("TRD414", "counting alone refutes less; no proof log is needed")
        for problem, log in zip(problems, evidence["logs"], strict=True):
            try:
                replay(problem, unpacked(log))
            except (UnreadableProof, WrongStep) as error:
                raise Refused("TRD413", str(error)) from None

    return derive
