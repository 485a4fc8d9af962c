"""Finds the window of a link whose copies take longer than the solver's model gave them."""

from __future__ import annotations

import numpy as np

from treadle.ir.layout.space_program import Link, Program
from treadle.solvers.memory_spaces.model import Floats, Solution, Window


def late_window(program: Program, solution: Solution) -> Window | None:
    """Return the window with the most excess work over the solution's times; None if all copies are in time."""
    clock = np.concatenate(([0.0], np.cumsum(solution.times_ns)))
    works: dict[Link, list[tuple[int, int, float]]] = {}
    for one in np.flatnonzero(solution.chosen > 0.5):
        for copy in program.choices[one].copies:
            works.setdefault(copy.link, []).append((copy.release, copy.deadline, float(copy.duration_ns)))
    worst: tuple[float, Window] | None = None
    for link, work in works.items():
        excess, low, high = _fullest(work, clock)
        if excess > 0.5 and (worst is None or excess > worst[0]):
            worst = (excess, (link, low, high))
    return None if worst is None else worst[1]


def _fullest(work: list[tuple[int, int, float]], clock: Floats) -> tuple[float, int, int]:
    """Return (excess, release, deadline) of the pair between which most is missing."""
    lows, highs = sorted({r for r, _, _ in work}), sorted({d for _, d, _ in work})
    amounts = np.zeros((len(lows), len(highs)))
    low_at, high_at = {v: i for i, v in enumerate(lows)}, {v: i for i, v in enumerate(highs)}
    for release, deadline, duration in work:
        amounts[low_at[release], high_at[deadline]] += duration
    demand = np.cumsum(np.cumsum(amounts[::-1], axis=0)[::-1], axis=1)
    there = clock[np.array(highs) + 1][None, :] - clock[np.array(lows)][:, None]
    excess = np.where(there > 0, demand - there, -np.inf)
    row, column = np.unravel_index(int(np.argmax(excess)), excess.shape)
    return float(excess[row, column]), lows[int(row)], highs[int(column)]
