"""Runs pumpkin-solver in a process of its own: version 0.5 can abort the process it is in.

`python -m treadle.solvers.refutation.worker PROOF SECONDS` reads a pickled problem from stdin and writes the proof; the
exit status tells whether there is one. Only this package's parent process writes that pickle.
"""

from __future__ import annotations

import pickle
import sys
from importlib import import_module
from typing import Any

from treadle.ir.proof_log.problem import Constraint, Cumulative, Problem, Term

REFUTED = 0
OPEN = 3
"""Exit statuses: there is a proof; a solution was found, or the time was up."""


def main() -> int:
    """Refute one problem."""
    problem: Problem = pickle.load(sys.stdin.buffer)
    pumpkin = import_module("pumpkin_solver")  # without annotations in 0.5
    constraints = import_module("pumpkin_solver.constraints")
    model = pumpkin.Model(proof=sys.argv[1])
    variables = [model.new_integer_variable(*bounds, name=f"x{i}") for i, bounds in enumerate(problem.bounds)]
    for constraint in problem.constraints:
        model.add_constraint(_stated(constraints, model.new_constraint_tag(), variables, constraint))
    answer = model.satisfy(timeout=float(sys.argv[2]))
    return REFUTED if type(answer).__name__ == "Unsatisfiable" else OPEN


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
