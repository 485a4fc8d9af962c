"""Degree, gradient partition and priority of an expert layer: choices with a bound below the best are simulated."""

from __future__ import annotations

from treadle.costmodels.moe_pipeline import (
    PIECES,
    MoePipeline,
    MoeSchedule,
    MoeShape,
    bound_ns,
    tile_pipeline,
    time_ns,
)
from treadle.costmodels.overlap_presets import DEGREES, TILE_GROUPS, TILE_SHARES_MILLI
from treadle.ir.machine import Machine


def best_pipeline(pipeline: MoePipeline, degrees: tuple[int, ...] = DEGREES) -> tuple[MoeSchedule, int]:
    """Return the best schedule over degrees, partitions and priorities, and how many were simulated."""
    pieces = range(PIECES + 1) if pipeline.gradient else range(PIECES, PIECES + 1)
    choices = sorted((bound_ns(pipeline, degree, count), degree, count) for degree in degrees for count in pieces)
    best: MoeSchedule | None = None
    simulated = 0
    for bound, degree, count in choices:
        if best is not None and bound >= best.time_ns:
            break
        for late_first in (False, True):
            simulated += 1
            time = time_ns(pipeline, degree, count, late_first)
            if best is None or time < best.time_ns:
                best = MoeSchedule(degree, count, late_first, time)
    assert best is not None
    return best, simulated


def best_tiles(shape: MoeShape, machine: Machine) -> tuple[int, MoeSchedule, int]:
    """Return the share of SMs (thousandths) that moves data, the schedule, and how many were simulated."""
    pipelines = [(share, tile_pipeline(shape, machine, share)) for share in TILE_SHARES_MILLI]
    choices = sorted(
        (bound_ns(pipeline, groups, PIECES), share, groups) for share, pipeline in pipelines for groups in TILE_GROUPS
    )
    by_share = dict(pipelines)
    best: tuple[int, MoeSchedule] | None = None
    simulated = 0
    for bound, share, groups in choices:
        if best is not None and bound >= best[1].time_ns:
            break
        for late_first in (False, True):
            simulated += 1
            time = time_ns(by_share[share], groups, PIECES, late_first)
            if best is None or time < best[1].time_ns:
                best = share, MoeSchedule(groups, PIECES, late_first, time)
    assert best is not None
    return *best, simulated
