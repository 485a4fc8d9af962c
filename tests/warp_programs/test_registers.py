"""Registers of a schedule against those of its warp program, above all where values come from other groups."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.warp_oracle import random_warps
from treadle.ir.diagnostics import TreadleError
from treadle.ir.tile.assignments import assigned_arcs
from treadle.ir.tile.loop import Dependence, Loop, Operation, Reader, Unit
from treadle.ir.tile.register_peaks import least_peaks
from treadle.ir.tile.schedule import Schedule, length_of
from treadle.ir.tile.warps import Crossing, Issue, RegisterValue, WarpLimits, WarpLoop, WarpSchedule, register_peaks
from treadle.ir.warp.facts import facts_of_loop
from treadle.ir.warp.lower import lower_schedule
from treadle.ir.warp.registers import registers_in_order
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.solve import Options, schedule

HANDOFF_CYCLES = 3
ORDER = ("ii", "registers", "traffic_bytes", "barriers", "groups", "length")
"""Few registers first: then values are handed to other groups."""


def _schedules(count: int, seed: int) -> Iterator[tuple[WarpLoop, WarpSchedule]]:
    """Random loops whose operations take issue slots and whose values are written before they count as handed over."""
    draw = random.Random(seed)
    while count:
        warps = random_warps(draw)
        loads = {issue.operation for issue in warps.issues if issue.role}
        values = (v for v in warps.values if loads.isdisjoint(r.operation for r in v.readers))
        warps = replace(
            warps,
            issues=tuple(replace(issue, issue_cycles=max(1, issue.issue_cycles)) for issue in warps.issues),
            values=tuple(
                replace(v, handoff_cycles=warps.loop.operation(v.producer).latency_cycles + HANDOFF_CYCLES)
                for v in values
            ),
            limits=replace(warps.limits, registers_per_group=30, registers_of_file=70),
        )
        try:
            made = schedule(warps, Options(Limits(deterministic_s=0.2), ORDER)).schedule
        except TreadleError:
            continue
        count -= 1
        yield warps, made


def test_a_program_needs_no_more_registers_than_its_schedule_says() -> None:
    handed = same = 0
    for warps, made in _schedules(30, seed=1):
        found = registers_in_order(lower_schedule(warps, made, facts_of_loop(warps)), warps)
        bounds = least_peaks(warps, made.groups, assigned_arcs(warps, made.groups), made.schedule.ii_cycles)
        for group in range(len(warps.roles), made.group_count):
            assert bounds[group] <= made.registers[group]
            assert found[group] <= made.registers[group], (warps, made)
            same += found[group] == made.registers[group]
        handed += any(made.groups[r.operation] != made.groups[v.producer] for v in warps.values for r in v.readers)
    assert handed >= 5
    assert same >= 25


def _product_of_two(hold_cycles: int) -> tuple[WarpLoop, Schedule, dict[str, int]]:
    """Two values of 8 registers from two groups, multiplied into the place of one of them, which is then stored."""
    names = ("left", "right", "product", "store")
    operations = tuple(Operation(name, "alu" if name != "right" else "other", 4, 4) for name in names)
    ends = (("left", "product"), ("right", "product"), ("product", "store"))
    loop = Loop("two", (Unit("alu", 1), Unit("other", 1)), operations, tuple(Dependence(a, b, 4) for a, b in ends))
    values = tuple(
        RegisterValue(name, name, 8, (Reader(reader, hold_cycles if reader == "product" else 4),), 6)
        for name, reader in ends
    )
    issues = tuple(Issue(name, 4) for name in names)
    warps = WarpLoop(loop, issues, tuple(Crossing(p, 2, 8) for p in range(3)), values, WarpLimits(2, 32, 64))
    starts = {"left": 0, "right": 0, "product": 6, "store": 10}
    groups = {"left": 0, "right": 1, "product": 0, "store": 0}
    return warps, Schedule("two", 14, starts, length_of(loop, starts), {}), groups


@pytest.mark.parametrize(("hold_cycles", "expected"), [(0, 16), (4, 24)])
def test_an_operand_of_another_group_is_there_before_its_reader_takes_it_over(hold_cycles: int, expected: int) -> None:
    warps, made, groups = _product_of_two(hold_cycles)
    peaks = register_peaks(warps, made, groups)
    assert peaks == {0: expected, 1: 8}
    assert least_peaks(warps, groups, assigned_arcs(warps, groups), 14) == peaks
    whole = WarpSchedule(made, groups, tuple(peaks.values()))
    found = registers_in_order(lower_schedule(warps, whole, facts_of_loop(warps)), warps)
    assert found == (expected, 8)
