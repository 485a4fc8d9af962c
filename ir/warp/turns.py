"""Turns: which groups hand a unit to each other, in the order in which the schedule uses it."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.order import Cut, Timed, frames
from treadle.ir.warp.program import Turn


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """A turn and its runs in cyclic order: (group, first operation, last operation) of consecutive issues."""

    turn: Turn
    runs: tuple[tuple[int, str, str], ...]


def plan_turns(warps: WarpLoop, made: WarpSchedule, facts: Facts) -> tuple[TurnPlan, ...]:
    """Return a turn for each unit of `facts.turn_units` that several groups issue to."""
    schedule = made.schedule
    plans: list[TurnPlan] = []
    for unit in facts.turn_units:
        uses = sorted(
            (schedule.slot(operation.name), operation.name)
            for operation in warps.loop.operations
            if operation.unit == unit and operation.name in made.groups and operation.occupancy_cycles
        )
        order = [(made.groups[name], name) for _, name in uses]
        if len({group for group, _ in order}) < 2:
            continue
        while order[0][0] == order[-1][0]:
            order = [*order[1:], order[0]]
        runs: list[tuple[int, str, str]] = []
        for group, name in order:
            if runs and runs[-1][0] == group:
                runs[-1] = (group, runs[-1][1], name)
            else:
                runs.append((group, name, name))
        plans.append(TurnPlan(Turn(f"{unit}_turn", unit, tuple(group for group, _, _ in runs)), tuple(runs)))
    return tuple(plans)


def common_cut(plan: TurnPlan, members: list[list[Timed]], starts: dict[str, int], ii: int) -> tuple[TurnPlan, Cut]:
    """Return the plan begun at the run whose start cuts the members' steps into the fewest stages, and that cut."""
    choices: list[tuple[int, int, int, Cut]] = []
    for position, (_, first_operation, _) in enumerate(plan.runs):
        cut = starts[first_operation] % ii
        spans = [frames(timed, cut, ii) for timed in members]
        first, last = min(span[0] for span in spans), max(span[1] for span in spans)
        late = sum((item.cycle - cut) // ii - first for timed in members for item in timed if not item.every_step)
        choices.append((last - first, late, position, (cut, first, last)))
    _, _, begin, chosen = min(choices)
    runs = (*plan.runs[begin:], *plan.runs[:begin])
    return TurnPlan(Turn(plan.turn.name, plan.turn.unit, tuple(group for group, _, _ in runs)), runs), chosen
