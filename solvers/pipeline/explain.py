"""Says what binds a loop over warp groups, and what one change would do, by solving the changed loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from treadle.ir.certificate import ProofKind, Status
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.tile.assignments import classes
from treadle.ir.tile.constraints import arc_of
from treadle.ir.tile.explanation import Alternative, Binding, Explanation, Limit
from treadle.ir.tile.kernel import WarpPlan
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.bounds import recurrence_bound
from treadle.solvers.modulo.explain import bindings_of, memory_uses, twice_as_fast, unit_uses
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.errors import NoWarpSchedule
from treadle.solvers.pipeline.solve import Options, schedule

PRICED = ("ii", "groups", "registers")
"""Levels of a changed loop that are solved for."""
MOST_RINGS = 2


def explain_groups(
    plan: WarpPlan, limits: Limits | None = None, others: Mapping[str, WarpLoop] | None = None
) -> Explanation:
    """Return what binds the interval, how full everything is, and the schedule after single changes.

    Args:
        plan: the loop over warp groups with its schedule and certificate.
        limits: per question about a changed loop (a quarter of a deterministic second by default).
        others: further loops to price, by what they change (other tilings).
    """
    warps, made = plan.warps, plan.schedule.schedule
    recurrence = recurrence_bound(network_of(warps.loop))
    cycle = recurrence.evidence["cycle"] if recurrence else []
    chosen = limits or Limits(deterministic_s=0.25)
    changed = {**(others or {}), **dict(_changes(plan))}
    return Explanation(
        loop=warps.loop.name,
        ii_cycles=made.ii_cycles,
        length_cycles=made.length_cycles,
        bindings=tuple(_bindings(plan)),
        units=tuple(sorted(unit_uses(warps.loop, made), key=lambda use: -use.share)),
        memories=tuple(memory_uses(warps.loop, made)),
        recurrence_ii_cycles=recurrence.value if recurrence else 1,
        recurrence=tuple(warps.loop.operations[arc_of(warps.loop, reference).source].name for reference in cycle),
        alternatives=tuple(_priced(loop, words, made.ii_cycles, chosen) for words, loop in changed.items()),
    )


def _bindings(plan: WarpPlan) -> Iterator[Binding]:
    """What holds the interval up; where no unit or recurrence does, what its proof says."""
    warps, made = plan.warps, plan.schedule.schedule
    level = plan.certificate["ii"]
    recurrence = recurrence_bound(network_of(warps.loop))
    cycle = recurrence.evidence["cycle"] if recurrence else []
    uses = tuple(unit_uses(warps.loop, made))
    plain = [b for b in bindings_of(warps.loop, made, plan.certificate, uses, cycle) if b.limit is not Limit.PACKING]
    yield from plain
    if plain:
        return
    if level.proof is ProofKind.RESOURCE:
        cycles = level.evidence.get("issue_cycles", level.evidence.get("longest_issue_cycles"))
        yield Binding(Limit.ISSUE, "issue", f"the warp groups issue {cycles} cycles for every iteration")
    elif level.proof is ProofKind.ENUMERATION:
        count = len(classes(warps))
        yield Binding(
            Limit.ISSUE,
            "groups",
            f"no way to put the {count} sets of operations that stay together in at most {warps.limits.most_groups} "
            f"groups leaves them the cycles to issue, the registers and the handoffs of {made.ii_cycles - 1} cycles",
        )
    else:
        what = "is not known to be the least" if level.status is not Status.OPTIMAL else "is the least by search"
        yield Binding(Limit.PACKING, "", f"bounds allow {level.bound} cycles; the interval {what}")


def _changes(plan: WarpPlan) -> Iterator[tuple[str, WarpLoop]]:
    warps, limits = plan.warps, plan.warps.limits
    if plan.schedule.group_count > len(warps.roles) + 1:
        fewer = plan.schedule.group_count - 1
        yield f"one group fewer ({fewer})", replace(warps, limits=replace(limits, most_groups=fewer))
    halved = replace(
        limits, registers_per_group=limits.registers_per_group // 2, registers_of_file=limits.registers_of_file // 2
    )
    yield f"half the registers ({halved.registers_per_group} a group)", replace(warps, limits=halved)
    for ring in sorted(warps.loop.rings, key=lambda ring: -ring.slot_bytes)[:MOST_RINGS]:
        rings = tuple(replace(r, max_depth=r.max_depth + 1) if r.name == ring.name else r for r in warps.loop.rings)
        roomier = tuple(
            replace(c, capacity_bytes=c.capacity_bytes + ring.slot_bytes) if c.memory == ring.memory else c
            for c in warps.loop.capacities
        )
        loop = replace(warps.loop, rings=rings, capacities=roomier)
        yield f"one more slot for `{ring.name}`", replace(warps, loop=loop)
    for unit in ("mufu", "tensor_core"):
        if any(op.unit == unit and op.occupancy_cycles > 1 for op in warps.loop.operations):
            yield f"`{unit}` twice as fast", replace(warps, loop=twice_as_fast(warps.loop, unit))


def _priced(warps: WarpLoop, words: str, ii: int, limits: Limits) -> Alternative:
    try:
        solved = schedule(warps, Options(limits, PRICED))
    except TreadleError as error:
        if error.exit_code is not ExitCode.UNMET:
            raise
        return Alternative(words, None, not isinstance(error, NoWarpSchedule), ii, f"{error.code}: {error}")
    level = solved.certificate["ii"]
    made = solved.schedule
    least = "" if solved.certificate["registers"].status is Status.OPTIMAL else "at most "
    detail = f"{made.group_count} groups, {least}{max(made.registers)} registers"
    return Alternative(words, int(level.value), level.status is Status.OPTIMAL, ii, detail)
