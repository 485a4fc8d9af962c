"""Review of a step over memory spaces: legality, the replayed time, and the bound of the stored multipliers."""

from __future__ import annotations

from pathlib import Path

from treadle.costmodels.space_replay import replay
from treadle.ir.codec import decode, file_locator
from treadle.ir.layout.space_modes import offered
from treadle.ir.layout.space_plan import SpacesPlan, check
from treadle.ir.layout.space_program import Multipliers, Program, bound_ns
from treadle.ir.plan import Plan
from treadle.verification.core import Review
from treadle.verification.layout import Claim, reviewed


def review(plan: Plan, folder: Path | None) -> Review:
    """Review moves, homes, reruns and offsets; the bound is recomputed in whole numbers."""
    body: SpacesPlan = plan.body

    def claims() -> list[Claim]:
        step = float(replay(body).step_ns)
        evidence = plan.certificates[0]["step time"].evidence
        multipliers = decode(Multipliers, evidence.get("multipliers"), file_locator("certificate"))
        program = Program(offered(body.problem))
        try:
            proven = max(bound_ns(program, multipliers), bound_ns(program, Multipliers()))
        except (ValueError, IndexError) as error:
            raise KeyError(f"multipliers of no row: {error}") from error
        return [("step time", step, float(min(proven, int(step))))]

    return reviewed(plan, check(body), claims)
