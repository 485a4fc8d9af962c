"""Runs pumpkin-solver in a process of its own: version 0.5 can abort the process it is in.

`python -m treadle.solvers.refutation.worker FOLDER SECONDS` reads pickled problems from stdin and refutes them in
order, each within the seconds given; the proof of the one at position 3 is `FOLDER/3.drcp`, and `FOLDER/3.done` says
that it is whole. It ends at the first problem without a proof. Only this package's parent process writes that pickle.
"""

from __future__ import annotations

import pickle
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from treadle.ir.proof_log.problem import Constraint, Cumulative, Problem, Term

REFUTED = 0
OPEN = 3
"""Exit statuses: every problem has a proof; a solution was found, or the time was up."""


def main() -> int:
    """Refute problems until one is left open."""
    problems: list[Problem] = pickle.load(sys.stdin.buffer)
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    for position, problem in enumerate(problems):
        if not _refuted(problem, folder / f"{position}.drcp", seconds):
            return OPEN
        (folder / f"{position}.done").touch()
    return REFUTED


def _refuted(problem: Problem, path: Path, seconds: float) -> bool:
    pumpkin = import_module("pumpkin_solver")  # without annotations in 0.5
    constraints = import_module("pumpkin_solver.constraints")
    model = pumpkin.Model(proof=str(path))
    variables = [model.new_integer_variable(*bounds, name=f"x{i}") for i, bounds in enumerate(problem.bounds)]
    for constraint in problem.constraints:
        model.add_constraint(_stated(constraints, model.new_constraint_tag(), variables, constraint))
    return type(model.satisfy(timeout=seconds)).__name__ == "Unsatisfiable"


def _stated(constraints: Any, tag: Any, variables: list[Any], constraint: Constraint) -> Any:
    def view(term: Term) -> Any:
        scaled = variables[term.variable] if term.scale == 1 else variables[term.variable].scaled(term.scale)
        return scaled.offset(term.offset) if term.offset else scaled

    if isinstance(constraint, Cumulative):
        starts = [view(start) for start in constraint.starts]
        return constraints.Cumulative(
            starts, list(constraint.durations), list(constraint.demands), constraint.capacity, tag
        )
    return constraints.LessThanOrEquals([view(term) for term in constraint.terms], constraint.most, tag)


if __name__ == "__main__":
    sys.exit(main())
