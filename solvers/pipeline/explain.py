"""Says what binds a loop over warp groups, and what one change would do, by solving the changed loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from treadle.ir.certificate import ProofKind, Status
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.tile.assignments import classes
from treadle.ir.tile.constraints import arc_of
from treadle.ir.tile.explanation import Alternative, Binding, Explanation, Limit
from treadle.ir.tile.kernel import WarpPlan
from treadle.ir.tile.schedule import length_of
from treadle.ir.tile.warps import WarpLoop, WarpSchedule, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.bounds import recurrence_bound
from treadle.solvers.modulo.explain import bindings_of, memory_uses, twice_as_fast, unit_uses
from treadle.solvers.modulo.interval import serial_interval
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.bounds import interval_bound
from treadle.solvers.pipeline.budget import QUESTIONS
from treadle.solvers.pipeline.drafts import schedule_at
from treadle.solvers.pipeline.errors import NoWarpSchedule
from treadle.solvers.pipeline.solve import Options, refuse_impossible, schedule
from treadle.solvers.pipeline.walks import paced_bound

MOST_RINGS = 2
SAME = "the same schedule; no better one was found"


def explain_groups(
    plan: WarpPlan,
    limits: Limits | None = None,
    others: Mapping[str, WarpLoop] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Explanation:
    """Return what binds the interval, how full everything is, and the schedule after single changes.

    Args:
        plan: the loop over warp groups with its schedule and certificate.
        limits: for each changed loop (one deterministic second by default).
        others: further loops to price, by what they change (other tilings).
        tell: hears which change is being priced.
    """
    warps, made = plan.warps, plan.schedule.schedule
    recurrence = recurrence_bound(network_of(warps.loop))
    cycle = recurrence.evidence["cycle"] if recurrence else []
    whole = limits or Limits(deterministic_s=1.0)
    chosen = replace(whole, deterministic_s=(whole.deterministic_s or 1.0) / QUESTIONS)
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
        alternatives=tuple(_priced(plan, loop, words, chosen, tell) for words, loop in changed.items()),
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
    full = [use.unit for use in unit_uses(warps.loop, plan.schedule.schedule) if use.slack_cycles == 0]
    if len(full) > 1:
        faster = warps.loop
        for unit in full:
            faster = twice_as_fast(faster, unit)
        yield " and ".join(f"`{unit}`" for unit in full) + " twice as fast", replace(warps, loop=faster)


def _priced(plan: WarpPlan, warps: WarpLoop, words: str, limits: Limits, tell: Callable[[str], None]) -> Alternative:
    """Schedule a changed loop; where the plan's own schedule is legal in it, nothing worse is worth looking for."""
    tell(f"{plan.warps.loop.name}: {words}")
    before = plan.schedule.schedule.ii_cycles
    own, bound = _kept(plan.schedule, warps), None
    try:
        bound = _bound(warps)
        if own is not None and bound >= before:
            return Alternative(words, before, True, before, "the same schedule")
        made = schedule_at(warps, bound, limits)
        if made is not None:
            return Alternative(words, bound, True, before, _detail(made))
        solved = schedule(warps, Options(limits, ("ii",)))
    except TreadleError as error:
        if error.exit_code is not ExitCode.UNMET:
            raise
        if own is not None:
            return Alternative(words, before, False, before, SAME, bound)
        return Alternative(words, None, not isinstance(error, NoWarpSchedule), before, f"{error.code}: {error}")
    level = solved.certificate["ii"]
    least = bound if level.bound is None else int(level.bound)
    if own is not None and level.value >= before:
        return Alternative(words, before, False, before, SAME, least)
    proven = level.status is Status.OPTIMAL
    detail = _detail(solved.schedule)
    return Alternative(words, int(level.value), proven, before, detail, None if proven else least)


def _kept(made: WarpSchedule, warps: WarpLoop) -> WarpSchedule | None:
    """Return a schedule as one of a changed loop, if it is legal there."""
    plain = made.schedule
    if {operation.name for operation in warps.loop.operations} != set(plain.start_cycles):
        return None
    length = length_of(warps.loop, plain.start_cycles)
    kept = replace(made, schedule=replace(plain, length_cycles=length))
    return None if check_warps(warps, kept) else kept


def _bound(warps: WarpLoop) -> int:
    """Return the least interval that bounds without search leave; raises as `schedule` where none is possible."""
    refuse_impossible(warps)
    network = network_of(warps.loop)
    plain = interval_bound(warps, network)
    return paced_bound(warps, plain, 2 * max(plain.value, serial_interval(network)))[0].value


def _detail(made: WarpSchedule) -> str:
    return f"{made.group_count} groups, at most {max(made.registers)} registers"
