"""A kernel's loops over warp groups: who runs what, in which cycles, how good that is, what it takes simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from treadle.codegen.group_timeline import by_groups, group_names
from treadle.codegen.report.sections import filled
from treadle.codegen.report.words import CHECKED
from treadle.codegen.svg_timeline import timeline_svg
from treadle.ir.tile.kernel import KernelPlan, ScheduledLoop, WarpPlan


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A warp group in one loop: its name, registers per thread, and the operations it issues."""

    loop: str
    name: str
    registers: int
    operations: tuple[str, ...]


def block(kernel: KernelPlan, prefix: str) -> Markup:
    """Return the part of a kernel's block about its warp groups; a sentence why there are none, or nothing."""
    if kernel.groups is None:
        told = Markup("<p class='note'>No warp groups: {}.</p>")
        return told.format(kernel.groupless) if kernel.groupless else Markup("")
    return Markup(
        filled(
            "kernel_groups.html.j2",
            timeline=Markup(timeline_svg(by_groups(kernel), f"{prefix}groups-")),
            ii_cycles=kernel.groups.schedule.schedule.ii_cycles,
            rows=group_rows(kernel.groups, kernel.siblings),
            levels=[(level, CHECKED[level.proof]) for level in kernel.groups.certificate.levels],
            simulated=kernel.simulated,
        )
    )


def group_rows(plan: WarpPlan, siblings: Sequence[ScheduledLoop] = ()) -> list[GroupRow]:
    """Return the groups of the main loop, then those of further loops by the names they have there."""
    names = dict(enumerate(group_names(plan)))
    made = plan.schedule
    rows = [
        GroupRow("", names[group], made.registers[group], _operations(made.groups, group))
        for group in range(made.group_count)
    ]
    return rows + [row for sibling in siblings for row in _sibling_rows(sibling, names)]


def _sibling_rows(sibling: ScheduledLoop, names: dict[int, str]) -> list[GroupRow]:
    if sibling.groups is None:
        return []
    made = sibling.groups.schedule
    return [
        GroupRow(
            sibling.loop.name,
            names.get(home, f"group {home}"),
            made.registers[group],
            _operations(made.groups, group),
        )
        for group, home in enumerate(sibling.homes)
    ]


def _operations(groups: dict[str, int], group: int) -> tuple[str, ...]:
    return tuple(name for name, home in groups.items() if home == group)
