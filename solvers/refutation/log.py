"""Asks pumpkin-solver to refute a problem and to write down how; what comes back is replayed before it is believed."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from treadle.ir.proof_log.packed import LARGEST_CHARACTERS, packed
from treadle.ir.proof_log.problem import Cumulative, Problem, Term
from treadle.ir.proof_log.replay import replay
from treadle.solvers.interruption import requested
from treadle.solvers.refutation.trim import trimmed


def logged(problem: Problem, wall_s: float) -> str | None:
    """Return a packed DRCP proof that the problem has no solution, or None if none is found and checked in time.

    None also where pumpkin-solver is not installed, or the proof is too long for a certificate: whoever asks keeps the
    certificate of kind `solver`.
    """
    if requested():
        return None
    try:
        pumpkin = import_module("pumpkin_solver")  # without annotations in 0.5
        constraints = import_module("pumpkin_solver.constraints")
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "proof.drcp")
        model = pumpkin.Model(proof=str(path))
        variables = [model.new_integer_variable(*bounds, name=f"x{i}") for i, bounds in enumerate(problem.bounds)]
        for constraint in problem.constraints:
            model.add_constraint(_stated(constraints, model.new_constraint_tag(), variables, constraint))
        answer = model.satisfy(timeout=wall_s)
        if type(answer).__name__ != "Unsatisfiable":
            return None
        del model
        text = trimmed(path.read_text())
    line = packed(text)
    if len(line) > LARGEST_CHARACTERS:
        return None
    replay(problem, text)
    return line


def _stated(constraints: Any, tag: Any, variables: list[Any], constraint: Any) -> Any:
    def view(term: Term) -> Any:
        scaled = variables[term.variable] if term.scale == 1 else variables[term.variable].scaled(term.scale)
        return scaled.offset(term.offset) if term.offset else scaled

    if isinstance(constraint, Cumulative):
        starts = [view(start) for start in constraint.starts]
        return constraints.Cumulative(
            starts, list(constraint.durations), list(constraint.demands), constraint.capacity, tag
        )
    return constraints.LessThanOrEquals([view(term) for term in constraint.terms], constraint.most, tag)
