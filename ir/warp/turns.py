"""Turns: which groups hand a unit to each other, in the order in which the schedule uses it."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.facts import SharedUnit
from treadle.ir.warp.order import Cut, Timed, frames
from treadle.ir.warp.program import Turn


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """A turn and its runs in cyclic order: (group, first operation, last operation) of consecutive issues."""

    turn: Turn
    runs: tuple[tuple[int, str, str], ...]


def plan_turns(
    warps: WarpLoop, made: WarpSchedule, shared: tuple[SharedUnit, ...], timed: list[list[Timed]]
) -> tuple[tuple[TurnPlan, ...], tuple[int, ...], Cut | None]:
    """Return a turn for each unit of `shared` that several groups issue to, the groups in them, the cut they share.

    The steps of all these groups are cut at one place and in equal number, so that every turn goes round once a step.
    Of the places where a product of them starts, the one with the fewest stages, then holders, is taken.
    """
    every = {wish.unit: _uses(warps, made, wish) for wish in shared}
    uses = {unit: found for unit, found in every.items() if len({group for _, group, _ in found}) > 1}
    members = tuple(sorted({group for found in uses.values() for _, group, _ in found}))
    if not members:
        return (), (), None
    ii = made.schedule.ii_cycles
    choices: list[tuple[int, int, int, int]] = []
    mine = [item for group in members for item in timed[group]]
    for cut in sorted({slot for found in uses.values() for slot, _, _ in found}):
        first, last = frames(mine, cut, ii)
        holders = sum(len(_runs(found, cut, ii)) for found in uses.values())
        late = sum((item.cycle - cut) // ii - first for item in mine)
        choices.append((last - first, holders, late, cut))
    cut = min(choices)[3]
    plans: list[TurnPlan] = []
    for unit, found in uses.items():
        runs = _runs(found, cut, ii)
        plans.append(TurnPlan(Turn(f"{unit}_turn", unit, tuple(group for group, _, _ in runs)), tuple(runs)))
    return tuple(plans), members, (cut, *frames(mine, cut, ii))


def _uses(warps: WarpLoop, made: WarpSchedule, shared: SharedUnit) -> list[tuple[int, int, str]]:
    """Return (slot, group, operation) of everything issued to a unit that takes turns there."""
    return sorted(
        (made.schedule.slot(operation.name), made.groups[operation.name], operation.name)
        for operation in warps.loop.operations
        if operation.unit == shared.unit
        and operation.name in made.groups
        and operation.occupancy_cycles >= max(1, shared.least_cycles)
        and (not shared.groups or made.groups[operation.name] in shared.groups)
    )


def _runs(uses: list[tuple[int, int, str]], cut: int, ii: int) -> list[tuple[int, str, str]]:
    """Return the runs of one group after the other, from the cut on."""
    runs: list[tuple[int, str, str]] = []
    for _, group, name in sorted(uses, key=lambda use: (use[0] - cut) % ii):
        if runs and runs[-1][0] == group:
            runs[-1] = (group, runs[-1][1], name)
        else:
            runs.append((group, name, name))
    return runs
