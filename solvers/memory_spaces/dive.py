"""Whole choices by diving: the relaxation is solved, what it takes almost wholly is taken, and it is solved again."""

from __future__ import annotations

import numpy as np

from treadle.ir.certificate import Status
from treadle.ir.layout.errors import NoPlacementFound
from treadle.ir.layout.space_program import Program
from treadle.solvers.backend import Limits
from treadle.solvers.memory_spaces.model import Floats, StepModel

ALMOST = 0.7
"""Choices of at least this value are taken together."""

SHARE = 8
"""When there are none, one in so many of those in use is taken, the largest first."""

WHOLE = 30
"""Choices that may be left for the integer program at the end."""


def dive(program: Program, kept: set[int], nodes: int) -> Floats:
    """Return whole choices within all capacities (by cells).

    Raises:
        NoPlacementFound: the dive ended where nothing fits.
    """
    taken: set[int] = set()
    left = set(kept)
    while True:
        model = StepModel(program, safe=True, kept=left, taken=taken)
        solution = model.solve(Limits(), "glop")
        if solution.outcome.status is not Status.OPTIMAL:
            break
        loose = [one for one in np.flatnonzero(solution.chosen > 1e-6) if int(one) not in taken]
        if all(solution.chosen[one] > 1 - 1e-6 for one in loose):
            return np.round(solution.chosen)
        if len(loose) <= WHOLE:
            model = StepModel(program, safe=True, whole=True, kept={*taken, *map(int, loose)}, taken=taken)
            whole = model.solve(Limits(nodes=nodes), "scip")
            if whole.outcome.solved:
                return np.round(whole.chosen)
        order = sorted(loose, key=lambda one: -solution.chosen[one])
        high = [one for one in order if solution.chosen[one] >= ALMOST] or order[: max(1, len(order) // SHARE)]
        taken |= {int(one) for one in high}
        left -= _ruled_out(program, taken) - taken
    raise NoPlacementFound(
        capacity=program.problem.main.capacity_bytes, unit="bytes", effort="a dive", best="none was found"
    )


def _ruled_out(program: Program, taken: set[int]) -> set[int]:
    """Return the choices that exclude one that is taken: other ways through its gap, other homes of its buffer."""
    gone: set[int] = set()
    for homes, gaps in program.by_buffer.values():
        for options in gaps.values():
            if not taken.isdisjoint(options):
                gone |= {*options, *homes}
        if not taken.isdisjoint(homes):
            gone |= {*homes, *(one for options in gaps.values() for one in options)}
    return gone
