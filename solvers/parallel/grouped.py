"""Which of the fastest plans is best for a batch of mixed lengths: each with its sequences grouped on its ranks."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.costmodels.training_group_costs import grouped_step_us, grouping_problem
from treadle.costmodels.training_setting import Setting
from treadle.ir.training.plan import Alternative, GroupedPlan
from treadle.solvers.parallel.solve import Found, Search, ranking
from treadle.solvers.sequence_groups.solve import quick


@dataclass(frozen=True, slots=True)
class Grouped:
    """A plan found, and the same with its sequences grouped."""

    found: Found
    plan: GroupedPlan


def grouped_plans(setting: Setting, state: Search, most: int) -> list[Grouped]:
    """Return the `most` fastest plans with their sequences grouped: the best first, the others as the search ranks
    them."""
    plans = [_grouped(setting, item) for item in ranking(state)[:most]]
    best = min(plans, key=lambda item: item.plan.step_time_us)
    return [best, *(item for item in plans if item is not best)]


def _grouped(setting: Setting, found: Found) -> Grouped:
    stages, degrees = found.replay.stages, found.degrees
    body = quick(grouping_problem(setting, degrees, found.layout, stages, setting.spec.lengths))
    step = grouped_step_us(body, degrees, found.replay)
    return Grouped(found, GroupedPlan(degrees, found.layout, body.rounds, step))


def grouped_alternatives(plans: list[Grouped]) -> tuple[Alternative, ...]:
    """Return the plans after the first, and what each loses with its sequences grouped."""
    best = plans[0].plan.step_time_us
    return tuple(
        Alternative(
            found.degrees,
            found.layout,
            found.replay.step_us,
            found.replay.peak_bytes,
            f"+{plan.step_time_us / best - 1:.2%} with its sequences grouped ({plan.step_time_us / 1e6:.4f} s)",
        )
        for found, plan in ((item.found, item.plan) for item in plans[1:])
    )
