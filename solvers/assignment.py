"""Least-cost assignment (one row to one column) through OR-tools' cost-scaling push-relabel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import linear_sum_assignment

from treadle.solvers.backend import ModelRejected

Integers = NDArray[np.int64]


def least_cost_assignment(costs: Integers, allowed: NDArray[np.bool_]) -> Integers:
    """Return the column of every row so that the costs add up to the least.

    Args:
        costs: (rows, columns), square.
        allowed: which pairs may be chosen; some assignment must be possible.

    Raises:
        ModelRejected: the solver finds none, or the costs leave its range.
    """
    rows, columns = np.nonzero(allowed)
    chosen = costs[rows, columns]
    solver: Any = linear_sum_assignment.SimpleLinearSumAssignment()
    solver.add_arcs_with_cost(rows, columns, chosen - chosen.min())
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise ModelRejected(solver="least-cost assignment", reason=str(status))
    return np.array([solver.right_mate(row) for row in range(len(costs))], dtype=np.int64)
