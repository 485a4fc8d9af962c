"""Orders of a unit without slack, and how tightly each of them ties all starts together.

Where the operations of one instance fill the interval, they follow each other without a gap: a cyclic order of them is
a slot for each. A loop without the operations of roles (copies, whose unit and rings are theirs) falls into parts that
may be moved by whole intervals against each other, so one operation of every part may be held in the first interval.
Together that leaves every other operation a short window: what takes a search minutes without takes it milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial

from treadle.ir.tile.assignments import least_depth, longest
from treadle.ir.tile.constraints import Arc, arcs, free_bytes
from treadle.ir.tile.cycles import components
from treadle.ir.tile.loop import Capacity, Loop, Ring
from treadle.ir.tile.register_peaks import Reach
from treadle.ir.tile.warps import Crossing, WarpLoop

MOST_ORDERS = 24
"""Orders that are gone through: five operations on a unit have so many."""

Windows = tuple[tuple[int, int], ...]
"""First and last start of every operation."""


@dataclass(frozen=True, slots=True)
class Order:
    """A cyclic order of the operations of a full unit, by the slots they start at; empty where no unit is full."""

    slots: tuple[tuple[str, int], ...] = ()

    @property
    def by_name(self) -> dict[str, int]:
        """Slot of every operation of the unit."""
        return dict(self.slots)


def orders(warps: WarpLoop, ii: int) -> tuple[Order, ...]:
    """Return every cyclic order of the full unit with most operations, or one empty order where there is none.

    Units that operations of roles share are left out: copies may run long ahead, so their order says nothing.
    """
    loop, roles = warps.loop, {issue.operation for issue in warps.issues if issue.role}
    best: list[str] = []
    cycles = {operation.name: operation.occupancy_cycles for operation in loop.operations}
    for unit in loop.units:
        users = [o.name for o in loop.operations if o.unit == unit.name and o.occupancy_cycles]
        full = unit.count == 1 and sum(cycles[name] for name in users) == ii and roles.isdisjoint(users)
        if full and len(users) > len(best) and factorial(len(users) - 1) <= MOST_ORDERS:
            best = users
    if len(best) < 2:
        return (Order(),)
    return tuple(_order((best[0], *rest), cycles) for rest in permutations(best[1:]))


def _order(names: tuple[str, ...], cycles: dict[str, int]) -> Order:
    slots: list[tuple[str, int]] = []
    slot = 0
    for name in names:
        slots.append((name, slot))
        slot += cycles[name]
    return Order(tuple(slots))


def core(warps: WarpLoop, ii: int, most_bytes: int | None = None) -> WarpLoop:
    """Return the loop without the operations of roles that hold no registers, as `whole` has it.

    Every schedule of the loop is one of this when it is restricted to what is left. The loop itself is returned where
    nothing would be left, nothing has a role, groups share the register file evenly, those of roles included, or what
    is left would not fall into parts: then nothing is gained for the rings, memory and stages that are not looked at.
    """
    role = {issue.operation for issue in warps.issues if issue.role}
    holding = {v.producer for v in warps.values} | {r.operation for v in warps.values for r in v.readers}
    kept = {operation.name for operation in warps.loop.operations} - (role - holding)
    if not warps.limits.reallocation or not any(issue.operation in kept for issue in warps.issues):
        return whole(warps, ii, most_bytes)
    smaller = _restricted(warps, kept)
    return whole(smaller if _parted(smaller) else warps, ii, most_bytes)


def is_whole(warps: WarpLoop, reduced: WarpLoop) -> bool:
    """Whether a core has all operations, none of which can be moved without the others, so that nothing is left out."""
    return len(reduced.loop.operations) == len(warps.loop.operations) and not _parted(reduced)


def _parted(warps: WarpLoop) -> bool:
    return len(parts(warps.loop, arcs(warps.loop))) > 1


def _restricted(warps: WarpLoop, kept: set[str]) -> WarpLoop:
    loop = warps.loop
    positions = [p for p, d in enumerate(loop.dependences) if d.source in kept and d.target in kept]
    moved = {old: new for new, old in enumerate(positions)}
    rings = [
        replace(ring, readers=readers)
        for ring in loop.rings
        if ring.producer in kept and (readers := tuple(r for r in ring.readers if r.operation in kept))
    ]
    smaller = replace(
        loop,
        operations=tuple(operation for operation in loop.operations if operation.name in kept),
        dependences=tuple(loop.dependences[position] for position in positions),
        rings=tuple(rings),
        capacities=_beside(loop, {ring.name for ring in rings}),
    )
    crossings = (replace(c, dependence=moved[c.dependence]) for c in warps.crossings if c.dependence in moved)
    issues = tuple(issue for issue in warps.issues if issue.operation in kept)
    gone = set(warps.roles) - {issue.role for issue in issues}
    limits = replace(
        warps.limits,
        most_groups=warps.limits.most_groups - len(gone),
        registers_of_file=warps.limits.registers_of_file - len(gone) * warps.limits.role_registers,
    )
    return WarpLoop(smaller, issues, tuple(crossings), warps.values, limits)


def _beside(loop: Loop, kept: set[str]) -> tuple[Capacity, ...]:
    """Return the memories that one slot of every other ring leaves."""
    gone = [ring for ring in loop.rings if ring.name not in kept]
    return tuple(
        replace(c, fixed_bytes=c.fixed_bytes + sum(ring.slot_bytes for ring in gone if ring.memory == c.memory))
        for c in loop.capacities
    )


def whole(warps: WarpLoop, ii: int, most_bytes: int | None = None) -> WarpLoop:
    """Return the loop, every ring limited to what its memory leaves beside the fewest slots of all others by paths.

    Dependences between roles have the delay of their crossing. With `most_bytes` between groups in an iteration, what
    takes more than that is not allowed to cross.
    """
    warps = _decided(warps, most_bytes)
    loop = warps.loop
    reach = Reach(warps, list(arcs(loop)), ii)
    least = {ring.name: least_depth(ring, reach, ii) for ring in loop.rings}
    rings: list[Ring] = []
    for ring in loop.rings:
        others = sum(r.slot_bytes * least[r.name] for r in loop.rings if r.memory == ring.memory and r is not ring)
        room = (free_bytes(loop, ring.memory) - others) // ring.slot_bytes if ring.slot_bytes else ring.max_depth
        rings.append(replace(ring, max_depth=max(1, min(ring.max_depth, room))))
    return replace(warps, loop=replace(loop, rings=tuple(rings)))


def _decided(warps: WarpLoop, most_bytes: int | None) -> WarpLoop:
    """Return the loop with what is known of crossings: between roles they are paid, too many bytes stay together.

    What a group announces itself is not: when, its issues say. Nor is what takes slots in memory, which count from when
    the value is ready.
    """
    role = {issue.operation: issue.role for issue in warps.issues}
    dependences = list(warps.loop.dependences)
    crossings: list[Crossing] = []
    for crossing in warps.crossings:
        ends = dependences[crossing.dependence]
        across = role[ends.source] != role[ends.target]
        handed = bool(crossing.bytes and warps.limits.handoff_memory)
        if across and not crossing.announced and not handed:
            paid = replace(ends, delay_cycles=ends.delay_cycles + crossing.delay_cycles)
            dependences[crossing.dependence] = paid
            crossings.append(replace(crossing, delay_cycles=0))
        elif not across and most_bytes is not None and crossing.bytes > most_bytes:
            crossings.append(replace(crossing, allowed=False))
        else:
            crossings.append(crossing)
    return replace(warps, loop=replace(warps.loop, dependences=tuple(dependences)), crossings=tuple(crossings))


def windows(
    warps: WarpLoop,
    ii: int,
    order: Order,
    most_cycles: int | None = None,
    *,
    moved: bool = True,
    stays: Sequence[Arc] = (),
) -> Windows | None:
    """Return the first and last start of every operation under an order; None where paths alone refute it.

    Args:
        warps: the loop or its core, groups free: crossings may cost their delay or not.
        ii: initiation interval; satisfies every recurrence.
        order: of the full unit, or the empty one.
        most_cycles: length of an iteration that is not exceeded; None for any in the stages there may be.
        moved: whether parts may be moved by whole intervals against each other, as where the length does not matter.
        stays: what registers say of starts at `ii` (`stays.stay_arcs`).
    """
    loop = warps.loop
    every = (*arcs(loop), *stays)
    slots = {loop.index[name]: slot for name, slot in order.slots}
    span = warps.limits.most_stages * ii - 1
    found = _anchored(warps, every, slots, ii, span, moved=moved)
    count = len(found)
    if most_cycles is not None:
        every = (*every, *_iteration(loop, most_cycles))
        found.append([found[0][0] - 2 * span, found[0][1] + 2 * span])
    if not _tightened(found, every, slots, ii):
        return None
    _bound_ends(warps, found, every, ii)
    return tuple((first, last) for first, last in found[:count]) if _tightened(found, every, slots, ii) else None


def _iteration(loop: Loop, most_cycles: int) -> list[Arc]:
    """Return what ties all operations to the first moment of an iteration: not before it, and done in time."""
    first = len(loop.operations)
    begin = [Arc(first, vertex, 0, 0, {}) for vertex in range(first)]
    return [*begin, *(Arc(v, first, o.latency_cycles - most_cycles, 0, {}) for v, o in enumerate(loop.operations))]


def _anchored(
    warps: WarpLoop, every: tuple[Arc, ...], slots: dict[int, int], ii: int, span: int, *, moved: bool
) -> list[list[int]]:
    """Hold one operation of every part: at its slot of the order, the first part at 0, others in the first interval."""
    loop = warps.loop
    found = [[0, 0] for _ in loop.operations]
    heads = longest(len(found), list(every), ii) or [0] * len(found)
    turned = bool(slots)
    for part in parts(loop, every) if moved else [list(range(len(loop.operations)))]:
        anchor = min([vertex for vertex in part if vertex in slots] or part, key=heads.__getitem__)
        slot = slots.get(anchor)
        held = [slot, slot] if slot is not None else [0, ii - 1 if turned else 0]
        for vertex in part:
            found[vertex] = held if vertex == anchor else [held[0] - span, held[1] + span]
        turned = True
    return found


def parts(loop: Loop, every: tuple[Arc, ...]) -> list[list[int]]:
    """Return the operations that arcs connect, whatever their direction."""
    both = [(a.source, a.target) for a in every] + [(a.target, a.source) for a in every]
    return sorted(sorted(part) for part in components(len(loop.operations), both))


def _tightened(found: list[list[int]], every: tuple[Arc, ...], slots: dict[int, int], ii: int) -> bool:
    """Make windows agree along arcs and with slots; False when one is empty."""
    changed = True
    while changed:
        changed = False
        for vertex, slot in slots.items():
            first, last = found[vertex]
            rounded = [first + (slot - first) % ii, last - (last - slot) % ii]
            changed = changed or rounded != found[vertex]
            found[vertex] = rounded
        for arc in every:
            weight = arc.delay_cycles - ii * arc.distance
            source, target = found[arc.source], found[arc.target]
            if source[0] + weight > target[0]:
                target[0] = source[0] + weight
                changed = True
            if target[1] - weight < source[1]:
                source[1] = target[1] - weight
                changed = True
        if any(first > last for first, last in found):
            return False
    return True


def _bound_ends(warps: WarpLoop, found: list[list[int]], every: tuple[Arc, ...], ii: int) -> None:
    """Let what only ends the iteration start within an interval of the first moment that its operands allow.

    An operation that nothing tracked waits for, no value in registers and no ring, may be moved to earlier iterations
    by whole intervals for as long as its operands are there.
    """
    loop = warps.loop
    held = {v.producer for v in warps.values}
    held |= {name for ring in loop.rings for name in (ring.producer, *(reader.operation for reader in ring.readers))}
    extra: dict[int, int] = {}
    for crossing in warps.crossings:
        if crossing.allowed:
            extra[crossing.dependence] = max(extra.get(crossing.dependence, 0), crossing.delay_cycles)
    for members in reversed(components(len(found), [(arc.source, arc.target) for arc in every])):
        vertex = members[0]
        into = [arc for arc in every if arc.target == vertex and arc.source != vertex]
        if len(members) > 1 or vertex == len(loop.operations) or loop.operations[vertex].name in held:
            continue
        if not any(arc.delay_cycles >= ii * arc.distance for arc in into):
            continue
        latest = max(
            found[arc.source][1]
            + arc.delay_cycles
            + extra.get(arc.reference.get("dependence", -1), 0)
            - ii * arc.distance
            for arc in into
        )
        found[vertex][1] = min(found[vertex][1], latest + ii - 1)
