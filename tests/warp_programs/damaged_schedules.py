"""Schedules over warp groups with one thing wrong, each of them illegal by construction."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from treadle.ir.tile.schedule import lifetime_cycles
from treadle.ir.tile.warps import WarpLoop, WarpSchedule, crosses


def damaged_schedules(
    warps: WarpLoop, made: WarpSchedule, each: int, seed: int = 0
) -> Iterator[tuple[str, WarpSchedule]]:
    """Yield up to `each` damaged schedules of every kind that the loop has a place for, with the kind's name."""
    chance = random.Random(seed)
    for kind, found in (
        ("starts before what it depends on", _early(warps, made)),
        ("starts before its handoff", _early_handoffs(warps, made)),
        ("issues while its group issues", _together(warps, made)),
        ("a ring slot too few", _shallow(warps, made)),
        ("other registers", _registers(made)),
        ("a load in a group of others", _loads(warps, made)),
        ("an operation left out", _missing(made)),
        ("too many stages", _late(warps, made)),
    ):
        damaged = list(found)
        for one in chance.sample(damaged, min(each, len(damaged))):
            yield kind, one


def _with(made: WarpSchedule, **changes: object) -> WarpSchedule:
    return replace(made, schedule=replace(made.schedule, **changes))  # type: ignore[arg-type]  # fields by name


def _moved(made: WarpSchedule, name: str, cycle: int) -> WarpSchedule:
    return _with(made, start_cycles={**made.schedule.start_cycles, name: cycle})


def _early(warps: WarpLoop, made: WarpSchedule) -> Iterator[WarpSchedule]:
    starts, ii = made.schedule.start_cycles, made.schedule.ii_cycles
    for dependence in warps.loop.dependences:
        if dependence.source != dependence.target:
            earliest = starts[dependence.source] + dependence.delay_cycles - ii * dependence.distance
            yield _moved(made, dependence.target, earliest - 1)


def _early_handoffs(warps: WarpLoop, made: WarpSchedule) -> Iterator[WarpSchedule]:
    starts, ii = made.schedule.start_cycles, made.schedule.ii_cycles
    for crossing in warps.crossings:
        if crossing.delay_cycles and crosses(warps, made.groups, crossing):
            ends = warps.loop.dependences[crossing.dependence]
            ready = starts[ends.source] + ends.delay_cycles + crossing.delay_cycles
            yield _moved(made, ends.target, ready - ii * ends.distance - 1)


def _together(warps: WarpLoop, made: WarpSchedule) -> Iterator[WarpSchedule]:
    starts = made.schedule.start_cycles
    issues = [issue for issue in warps.issues if issue.issue_cycles]
    for first in issues:
        for second in issues:
            if first is not second and made.groups[first.operation] == made.groups[second.operation]:
                yield _moved(made, second.operation, starts[first.operation])


def _shallow(warps: WarpLoop, made: WarpSchedule) -> Iterator[WarpSchedule]:
    for ring in warps.loop.rings:
        needed = -(-lifetime_cycles(ring, made.schedule) // made.schedule.ii_cycles)
        yield _with(made, ring_depths={**made.schedule.ring_depths, ring.name: needed - 1})


def _registers(made: WarpSchedule) -> Iterator[WarpSchedule]:
    for group, registers in enumerate(made.registers):
        for other in (registers - 1, registers + 8):
            yield replace(made, registers=(*made.registers[:group], other, *made.registers[group + 1 :]))


def _loads(warps: WarpLoop, made: WarpSchedule) -> Iterator[WarpSchedule]:
    for issue in warps.issues:
        if issue.role:
            others = sorted(set(made.groups.values()) - {made.groups[issue.operation]})
            for group in others:
                yield replace(made, groups={**made.groups, issue.operation: group})


def _missing(made: WarpSchedule) -> Iterator[WarpSchedule]:
    for name in made.groups:
        kept = {other: group for other, group in made.groups.items() if other != name}
        yield replace(made, groups=kept)
        starts = {other: cycle for other, cycle in made.schedule.start_cycles.items() if other != name}
        yield _with(made, start_cycles=starts)


def _late(warps: WarpLoop, made: WarpSchedule) -> Iterator[WarpSchedule]:
    beyond = (warps.limits.most_stages + 1) * made.schedule.ii_cycles
    for name in made.schedule.start_cycles:
        yield _moved(made, name, beyond)
