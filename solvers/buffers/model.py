"""Buffers in CP-SAT: one NoOverlap over byte intervals per largest set of buffers live together."""

from __future__ import annotations

from math import gcd

import numpy as np
from ortools.sat.python import cp_model

from treadle.ir.certificate import Status
from treadle.solvers.backend import Limits, solve
from treadle.solvers.buffers.skyline import Sections


def refute_or_place(sections: Sections, limit: int, limits: Limits) -> tuple[Status, tuple[int, ...] | None]:
    """Decide whether offsets within `limit` bytes exist; returns the status and the offsets when there are some."""
    unit = gcd(limit, *sections.sizes.tolist())
    model = cp_model.CpModel()
    offsets = [
        model.new_int_var(0, (limit - size) // unit, f"offset{index}")
        for index, size in enumerate(sections.sizes.tolist())
    ]
    intervals = [
        model.new_fixed_size_interval_var(offset, int(size) // unit, f"bytes{index}")
        for index, (offset, size) in enumerate(zip(offsets, sections.sizes, strict=True))
    ]
    for members in _largest_live_sets(sections):
        model.add_no_overlap([intervals[index] for index in members])
    outcome = solve(model, limits)
    if not outcome.solved:
        return outcome.status, None
    return outcome.status, tuple(outcome[offset] * unit for offset in offsets)


def _largest_live_sets(sections: Sections) -> list[tuple[int, ...]]:
    """Sets of buffers live together that no other such set contains, in order of time."""
    sets = [frozenset(np.nonzero(row)[0].tolist()) for row in sections.live]
    kept = [one for one in dict.fromkeys(sets) if not any(one < other for other in sets)]
    return [tuple(sorted(one)) for one in kept]
