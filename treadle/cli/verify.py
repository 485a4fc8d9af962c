"""`treadle verify PLAN`: re-derive every claim of a plan, without a solver."""

from __future__ import annotations

import time

import typer

from treadle.cli.options import JsonFlag, PlanPath
from treadle.cli.output import console, print_json
from treadle.ir.codec import encode
from treadle.ir.diagnostics import ExitCode
from treadle.verification.core import Review, verify


def command(plan: PlanPath, json: JsonFlag = False) -> None:
    """Re-check legality and recompute every figure and bound of PLAN, with no solver in the process.

    Exit status 0: nothing found, warnings apart. 1: findings. 2: not a readable plan.
    """
    started = time.perf_counter()
    review = verify(plan)
    seconds = time.perf_counter() - started
    if json:
        print_json(
            {
                "plan": str(plan),
                "rederived": review.rederived,
                "on_solver_word": review.on_solver_word,
                "findings": encode(review.findings),
                "seconds": round(seconds, 3),
            }
        )
    else:
        _print_review(review, seconds)
    if review.errors:
        raise typer.Exit(ExitCode.UNMET)


def _print_review(review: Review, seconds: float) -> None:
    out = console()
    for finding in review.findings:
        out.print(str(finding), markup=False)
    out.print(
        f"{review.rederived} claims re-derived, {review.on_solver_word} on the solver's word, "
        f"{review.verdict} ({seconds:.2f} s)"
    )
