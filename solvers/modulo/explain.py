"""Says what binds a scheduled loop and what one change would do, by solving the changed loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from treadle.ir.certificate import Certificate, ProofKind
from treadle.ir.tile.constraints import arc_of
from treadle.ir.tile.explanation import Alternative, Binding, Explanation, Limit, MemoryUse, UnitUse
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.schedule import Schedule
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.bounds import recurrence_bound
from treadle.solvers.modulo.errors import MemoryExceeded, RingTooShallow
from treadle.solvers.modulo.interval import Effort, least_interval
from treadle.solvers.modulo.network import network_of

MOST_UNITS = 4
"""Units whose change is priced: the busiest."""
MOST_RINGS = 4


def explain(loop: Loop, schedule: Schedule, certificate: Certificate, limits: Limits | None = None) -> Explanation:
    """Return what binds the interval, the use of everything, and the interval after single changes.

    Args:
        loop: the loop.
        schedule: its schedule.
        certificate: the certificate of the schedule (kinds of proof say what binds).
        limits: for each changed loop (one deterministic second by default).
    """
    units = tuple(sorted(unit_uses(loop, schedule), key=lambda use: -use.share))
    recurrence = recurrence_bound(network_of(loop))
    cycle = recurrence.evidence["cycle"] if recurrence else []
    effort = Effort(limits or Limits(deterministic_s=1.0), restarts=4)
    return Explanation(
        loop=loop.name,
        ii_cycles=schedule.ii_cycles,
        length_cycles=schedule.length_cycles,
        bindings=tuple(bindings_of(loop, schedule, certificate, units, cycle)),
        units=units,
        memories=tuple(memory_uses(loop, schedule)),
        recurrence_ii_cycles=recurrence.value if recurrence else 1,
        recurrence=tuple(loop.operations[arc_of(loop, reference).source].name for reference in cycle),
        alternatives=tuple(
            _priced(changed, words, schedule.ii_cycles, effort) for words, changed in _changes(loop, units, cycle)
        ),
    )


def unit_uses(loop: Loop, schedule: Schedule) -> Iterator[UnitUse]:
    """Yield the use of every limited unit over one interval."""
    for unit in loop.units:
        busy = sum(operation.occupancy_cycles for operation in loop.operations if operation.unit == unit.name)
        if unit.count is not None and busy:
            yield UnitUse(unit.name, busy, schedule.ii_cycles * unit.count)


def memory_uses(loop: Loop, schedule: Schedule) -> Iterator[MemoryUse]:
    """Yield the use of every memory."""
    for capacity in loop.capacities:
        rings = tuple(
            (ring.name, schedule.ring_depths[ring.name], ring.slot_bytes * schedule.ring_depths[ring.name])
            for ring in loop.rings
            if ring.memory == capacity.memory
        )
        used = capacity.fixed_bytes + sum(size for _, _, size in rings)
        yield MemoryUse(capacity.memory, used, capacity.capacity_bytes, rings)


def bindings_of(
    loop: Loop, schedule: Schedule, certificate: Certificate, units: tuple[UnitUse, ...], cycle: list[object]
) -> Iterator[Binding]:
    """Everything whose bound equals the interval; packing when nothing alone does."""
    ii = schedule.ii_cycles
    level = certificate["ii"]
    found = 0
    for use in units:
        instances = use.available_cycles // ii
        if -(-use.busy_cycles // instances) == ii:
            found += 1
            yield Binding(
                Limit.UNIT, use.unit, f"`{use.unit}` is busy {use.busy_cycles} of {use.available_cycles} cycles"
            )
    if cycle:
        arcs = [arc_of(loop, reference) for reference in cycle]
        delay, distance = sum(arc.delay_cycles for arc in arcs), sum(arc.distance for arc in arcs)
        if -(-delay // distance) == ii:
            found += 1
            names = [loop.operations[arc.source].name for arc in arcs]
            path = " -> ".join(f"`{name}`" for name in [*names, names[0]])
            yield Binding(
                Limit.RECURRENCE, names[0], f"{path} takes {delay} cycles over {_iterations(distance)}: {ii} each"
            )
    if level.proof is ProofKind.CAPACITY:
        found += 1
        memory = level.evidence["memory"]
        yield Binding(Limit.MEMORY, memory, f"one cycle less needs more ring slots than `{memory}` holds")
    if not found and ii > 1:
        basis = level.evidence.get("basis", {}).get("value", level.bound)
        yield Binding(
            Limit.PACKING,
            "",
            f"bounds allow {basis} cycles, but no placement of the recurrences' operations fits {ii - 1}",
        )
    elif not found:
        yield Binding(Limit.NOTHING, "", "one cycle is the least there is")


def _iterations(distance: int) -> str:
    return "one iteration" if distance == 1 else f"{distance} iterations"


def _changes(loop: Loop, units: tuple[UnitUse, ...], cycle: list[object]) -> Iterator[tuple[str, Loop]]:
    """Single changes in words, with the loop each one makes."""
    for use in units[:MOST_UNITS]:
        yield (
            f"one more `{use.unit}`",
            replace(
                loop,
                units=tuple(
                    replace(unit, count=unit.count + 1) if unit.name == use.unit and unit.count else unit
                    for unit in loop.units
                ),
            ),
        )
        if any(op.occupancy_cycles > 1 for op in loop.operations if op.unit == use.unit):
            yield f"`{use.unit}` twice as fast", twice_as_fast(loop, use.unit)
    full = [use.unit for use in units if use.slack_cycles == 0]
    if len(full) > 1:
        faster = loop
        for name in full:
            faster = twice_as_fast(faster, name)
        yield " and ".join(f"`{name}`" for name in full) + " twice as fast", faster
    carried = [position for position in _positions(cycle) if loop.dependences[position].delay_cycles > 0]
    if carried:
        slowest = max(carried, key=lambda position: loop.dependences[position].delay_cycles)
        dependence = loop.dependences[slowest]
        shorter = replace(dependence, delay_cycles=dependence.delay_cycles - 1)
        dependences = (*loop.dependences[:slowest], shorter, *loop.dependences[slowest + 1 :])
        yield (
            f"`{dependence.source}` -> `{dependence.target}` one cycle faster",
            replace(loop, dependences=dependences),
        )
    for ring in sorted(loop.rings, key=lambda ring: -ring.slot_bytes)[:MOST_RINGS]:
        deeper = tuple(replace(r, max_depth=r.max_depth + 1) if r.name == ring.name else r for r in loop.rings)
        roomier = tuple(
            replace(c, capacity_bytes=c.capacity_bytes + ring.slot_bytes) if c.memory == ring.memory else c
            for c in loop.capacities
        )
        yield f"one more slot for `{ring.name}`", replace(loop, rings=deeper, capacities=roomier)


def _positions(cycle: list[object]) -> list[int]:
    return [reference["dependence"] for reference in cycle if isinstance(reference, dict) and "dependence" in reference]


def twice_as_fast(loop: Loop, unit: str) -> Loop:
    """Halve occupancies on the unit; results come earlier by as much, where an operation's delay covers it."""
    saved = {op.name: op.occupancy_cycles // 2 if op.unit == unit else 0 for op in loop.operations}
    return replace(
        loop,
        operations=tuple(
            replace(
                op,
                occupancy_cycles=op.occupancy_cycles - saved[op.name],
                latency_cycles=max(0, op.latency_cycles - saved[op.name]),
            )
            for op in loop.operations
        ),
        dependences=tuple(
            replace(d, delay_cycles=max(min(d.delay_cycles, 0), d.delay_cycles - saved[d.source]))
            for d in loop.dependences
        ),
        rings=tuple(
            replace(
                ring,
                readers=tuple(replace(r, hold_cycles=max(0, r.hold_cycles - saved[r.operation])) for r in ring.readers),
            )
            for ring in loop.rings
        ),
    )


def _priced(loop: Loop, words: str, ii: int, effort: Effort) -> Alternative:
    try:
        interval = least_interval(network_of(loop), effort, lambda _: None)
    except (MemoryExceeded, RingTooShallow):
        return Alternative(words, None, True, ii)
    return Alternative(words, interval.ii, interval.ii == interval.bound.value, ii)
