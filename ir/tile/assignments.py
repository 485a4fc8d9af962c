"""Assignments of operations to warp groups, and what each one needs at an interval whatever the times are.

An assignment puts every *class* of operations that must stay together in one group. Without any times it decides
traffic, barriers and the number of groups, and it bounds issue cycles, recurrences, registers and the length of an
iteration from below. `least` goes through the assignments, cheapest ones included, and returns the least value of a
level among those that no such bound refutes: a bound on the level that a checker repeats without a solver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from treadle.ir.tile.constraints import Arc, arcs, free_bytes
from treadle.ir.tile.cycles import components
from treadle.ir.tile.loop import Ring
from treadle.ir.tile.register_peaks import Reach, least_peak, least_peaks
from treadle.ir.tile.warps import WarpLoop, barriers, exposed_waits, handoff_bytes, traffic_bytes

MOST_NODES = 60_000
"""Partial assignments that one walk may visit: a few seconds. A longer walk claims nothing."""
LARGE_FIRST_NODES = 6_000
"""Those of a walk through the classes of most issue cycles first, which is either short or of no use."""
FIRST_NODES = 1_000
"""Those of the walk before it, in order of first issue."""
MOST_LEAVES = 600
"""Complete assignments whose registers and paths one walk may bound."""

COUNTED = ("traffic_bytes", "barriers", "groups")
"""Levels that a walk adds up on its way."""
DECIDED = (*COUNTED, "exposed_waits")
"""Levels that an assignment decides."""


KEPT_WALKS = 32
"""Intervals and ranges of which paths and registers are kept from one walk to the next."""

Peaks = dict[tuple[int, frozenset[int]], int]
"""Fewest registers of a group: by the number of classes placed when it got its last one, and its classes."""


class WalkTooLong(Exception):
    """The assignments are too many to go through."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an assignment needs at least: levels by name, whatever the times are."""

    levels: dict[str, int]
    groups: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Round:
    """Dependences that reach each other: vertices from 0, and (source, target, weight, classes, delay when crossed)."""

    size: int
    edges: tuple[tuple[int, int, int, int, int, int], ...]


@dataclass(slots=True)
class _Walk:
    """One walk over the assignments: classes in order, cost and issue cycles of the partial assignment."""

    warps: WarpLoop
    ii: int
    most: dict[str, int]
    members: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    roles: list[int | None] = field(default_factory=list[int | None])
    issue: list[int] = field(default_factory=list[int])
    edges: list[list[tuple[int, int, int]]] = field(default_factory=list[list[tuple[int, int, int]]])
    """Per class: earlier class, bytes and barriers of crossings with it."""
    ahead: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Per number of classes placed: bytes and barriers that those to come cost in any group, since roles differ."""
    reach: Reach | None = None
    """Longest paths that hold for every assignment."""
    from_ii: int = 0
    """First interval of a range that ends with `ii`."""
    rounds: list[list[_Round]] = field(default_factory=list["list[_Round]"])
    """Per class: recurrences whose last class it is."""
    refutes: Callable[[dict[str, int]], bool] | None = None
    """Whether anything else refutes the groups of some operations, whatever those of all others are."""
    handoffs: list[tuple[int, dict[int, int]]] = field(default_factory=list[tuple[int, dict[int, int]]])
    """What may be handed over: class of the source, and bytes by the other classes that read it."""
    handoff_room: int = 0
    """Bytes that the fewest slots of all rings leave to handoffs."""
    peaks: Peaks = field(default_factory=dict[tuple[int, frozenset[int]], int])
    """Fewest registers of a group, by how many classes are placed and which of them are in it: nothing else counts."""
    partial: bool = False
    """Whether operations are left out, so that nothing is asked of whole assignments."""
    most_nodes: int = 0
    nodes: int = 0
    leaves: int = 0


def classes(warps: WarpLoop) -> tuple[tuple[str, ...], ...]:
    """Return the operations that must share a group, in order of first issue."""
    leader = {issue.operation: issue.operation for issue in warps.issues}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for crossing in warps.crossings:
        if not crossing.allowed:
            ends = warps.loop.dependences[crossing.dependence]
            leader[find(ends.source)] = find(ends.target)
    found: dict[str, list[str]] = {}
    for name in leader:
        found.setdefault(find(name), []).append(name)
    return tuple(tuple(names) for names in found.values())


def assignments(
    warps: WarpLoop,
    ii: int,
    most: dict[str, int],
    *,
    from_ii: int | None = None,
    refutes: Callable[[dict[str, int]], bool] | None = None,
    most_nodes: int | None = None,
    large_first: bool = False,
) -> Iterator[Needs]:
    """Yield every assignment, up to names of groups, that no bound refutes at `ii` and whose levels keep to `most`.

    With `from_ii`, those that no bound refutes at all intervals from it to `ii` at once. `refutes` is asked about the
    groups of some operations as well. `most_nodes` is less than `MOST_NODES`, for what need not be gone through. With
    `large_first` classes of many issue cycles get their groups first, which is otherwise the second way.

    Raises:
        WalkTooLong: there are too many of them.
    """
    for again, large in enumerate((large_first, not large_first)):
        walk = _started(warps, ii, dict(most), from_ii=from_ii, large_first=large)
        walk.refutes = refutes
        walk.most_nodes = min(MOST_NODES if large_first else walk.most_nodes, most_nodes or MOST_NODES)
        yielded = False
        try:
            for needs in _extend(walk, [], [0] * warps.limits.most_groups, (0, 0)):
                yielded = True
                yield needs
        except WalkTooLong:
            if yielded or again:
                raise
        else:
            return


def least(warps: WarpLoop, ii: int, most: dict[str, int], level: str, below: int) -> int:
    """Return the least value of a level over the assignments that nothing refutes; `below` when none is less.

    Args:
        warps: the loop with warps.
        ii: initiation interval.
        most: values of the levels decided before, which the assignments keep to.
        level: `traffic_bytes`, `barriers`, `groups`, `registers` or `length`.
        below: only assignments with a lesser value are looked for.

    Raises:
        WalkTooLong: there are too many assignments to go through.
    """
    best = below
    for large_first, nodes in _orders_of_walks():
        walk = _started(warps, ii, {**most, level: best - 1}, large_first=large_first)
        walk.most_nodes = nodes
        try:
            for needs in _extend(walk, [], [0] * warps.limits.most_groups, (0, 0)):
                best = min(best, needs.levels[level])
                walk.most[level] = best - 1
        except WalkTooLong:
            if nodes == MOST_NODES and not large_first:
                raise
        else:
            break
    return best


def least_interval(warps: WarpLoop, from_ii: int, to_ii: int) -> int:
    """Return the least interval in the range that issue cycles, recurrences and registers of some assignment allow.

    Issue and recurrences only get easier with a longer interval, so the range is halved; of registers, ranges of
    intervals are refuted together (`register_peaks.least_peak`).

    Raises:
        WalkTooLong: there are too many assignments.
    """
    low, high = from_ii, to_ii
    while low < high:
        middle = (low + high) // 2
        if any_left(warps, middle, paced_only=True):
            high = middle
        else:
            low = middle + 1
    return least_roomy(warps, low, to_ii)


def least_roomy(warps: WarpLoop, low: int, to_ii: int) -> int:
    """Return the first interval that a walk leaves, passing over longer ranges for as long as that works.

    Raises:
        WalkTooLong: there are too many assignments.
    """
    width, growing = 1, True
    while low < to_ii:
        if not any_left(warps, min(low + width - 1, to_ii), low):
            low = min(low + width, to_ii)
            width = 2 * width if growing else width
        elif width == 1:
            return low
        else:
            width, growing = width // 2, False
    return low


def any_left(
    warps: WarpLoop,
    ii: int,
    from_ii: int | None = None,
    *,
    paced_only: bool = False,
    among: frozenset[str] | None = None,
) -> bool:
    """Whether an assignment is left at an interval (or all intervals from `from_ii` to it at once).

    With `paced_only` registers are not looked at. With `among` only classes that have some of these operations get a
    group: where none is left, those alone are the reason.

    Raises:
        WalkTooLong: there are too many assignments.
    """
    for large_first, nodes in _orders_of_walks():
        walk = _started(warps, ii, {}, from_ii=from_ii, large_first=large_first, among=among)
        walk.most_nodes = nodes
        try:
            return any(True for _ in _extend(walk, [], [0] * warps.limits.most_groups, (0, 0), paced_only=paced_only))
        except WalkTooLong:
            if nodes == MOST_NODES and not large_first:
                raise
    return True


def _orders_of_walks() -> tuple[tuple[bool, int], ...]:
    """Return whether a walk puts large classes in groups first, and its nodes: one may do where another is too long."""
    few = ((False, FIRST_NODES), (True, LARGE_FIRST_NODES))
    return *((large, min(nodes, MOST_NODES)) for large, nodes in few), (False, MOST_NODES)


def _started(
    warps: WarpLoop,
    ii: int,
    most: dict[str, int],
    *,
    from_ii: int | None = None,
    large_first: bool = False,
    among: frozenset[str] | None = None,
) -> _Walk:
    """Return a walk at its beginning, through classes in order of first issue or those of most issue cycles first.

    Where large ones do not fit together, nothing is asked about the many groups that small ones may be in.
    """
    walk = _Walk(warps, ii, most, from_ii=ii if from_ii is None else from_ii)
    cycles = {issue.operation: issue.issue_cycles for issue in warps.issues}
    role = {issue.operation: issue.role for issue in warps.issues}
    found = sorted(classes(warps), key=lambda names: role[names[0]] == "")
    if among is not None:
        found = [names for names in found if among.intersection(names)]
        walk.partial = True
    walk.most_nodes = min(LARGE_FIRST_NODES, MOST_NODES) if large_first else MOST_NODES
    if large_first:
        found.sort(key=lambda names: (role[names[0]] == "", -sum(cycles[name] for name in names)))
    home = {name: position for position, names in enumerate(found) for name in names}
    walk.members = list(found)
    walk.roles = [warps.roles.index(role[names[0]]) if role[names[0]] else None for names in found]
    walk.issue = [sum(cycles[name] for name in names) for names in found]
    walk.edges = [[] for _ in found]
    for crossing in warps.crossings:
        ends = warps.loop.dependences[crossing.dependence]
        first, last = sorted((home.get(ends.source, -1), home.get(ends.target, -1)))
        if -1 != first != last:
            walk.edges[last].append((first, crossing.bytes, crossing.barriers))
    walk.ahead = _ahead(walk)
    walk.handoffs = list(_handoffs(warps, ii, home))
    walk.rounds = _rounds(warps, ii, home, len(found))
    if longest(len(warps.loop.operations), list(arcs(warps.loop)), ii) is not None:
        walk.reach = _reach(warps, ii)
        walk.peaks = _peaks(warps, ii, walk.from_ii, large_first) if among is None else {}
        walk.handoff_room = handoff_room(warps, walk.reach, ii)
    return walk


@lru_cache(KEPT_WALKS)
def _reach(warps: WarpLoop, ii: int) -> Reach:
    """Return the longest paths of a loop, the same ones for all walks at an interval."""
    return Reach(warps, list(arcs(warps.loop)), ii)


@lru_cache(KEPT_WALKS)
def _peaks(warps: WarpLoop, ii: int, from_ii: int, large_first: bool) -> Peaks:
    """Return what walks over the same classes in the same order know of registers: nothing at first."""
    del warps, ii, from_ii, large_first
    return {}


def _ahead(walk: _Walk) -> list[tuple[int, int]]:
    """Return what crossings with another role cost, of the last classes, by how many were placed before."""
    found = [(0, 0)]
    for role, edges in zip(reversed(walk.roles), reversed(walk.edges), strict=True):
        forced = [edge for edge in edges if walk.roles[edge[0]] != role]
        found.append((found[-1][0] + sum(edge[1] for edge in forced), found[-1][1] + sum(edge[2] for edge in forced)))
    return found[::-1]


def _handoffs(warps: WarpLoop, ii: int, home: dict[str, int]) -> Iterator[tuple[int, dict[int, int]]]:
    """Yield what may be handed over, with the bytes of the fewest slots at an interval, and so at any shorter one.

    A reader starts no sooner than the value has crossed, which a slot is held for.
    """
    for handoff in warps.handoffs:
        source = home.get(handoff.source, -1)
        sizes: dict[int, int] = {}
        for crossing in warps.crossings:
            ends = warps.loop.dependences[crossing.dependence]
            target = home.get(ends.target, -1)
            if ends.source == handoff.source and target not in (source, -1):
                start = ends.delay_cycles + crossing.delay_cycles - ii * ends.distance
                slots = handoff.slots(start + warps.limits.release_cycles, ii)
                sizes[target] = max(sizes.get(target, 0), handoff.slot_bytes * slots)
        if source >= 0:
            yield source, sizes


def handoff_room(warps: WarpLoop, reach: Reach, ii: int) -> int:
    """Return the bytes that rings leave to handoffs at an interval, and so at any shorter one: paths get no longer."""
    memory = warps.limits.handoff_memory
    rings = [ring for ring in warps.loop.rings if ring.memory == memory]
    return free_bytes(warps.loop, memory) - sum(ring.slot_bytes * least_depth(ring, reach, ii) for ring in rings)


def least_depth(ring: Ring, reach: Reach, ii: int) -> int:
    """Return the fewest slots of a ring by longest paths."""
    need = 1
    for reader in ring.readers:
        path = reach(ring.producer, reader.operation)
        if path is not None:
            need = max(need, -(-(path + reader.hold_cycles + ii * reader.distance) // ii))
    return need


def _rounds(warps: WarpLoop, ii: int, home: dict[str, int], count: int) -> list[list[_Round]]:
    """Return, per class, the recurrences among dependences that are complete when that class has a group."""
    index, delays = warps.loop.index, [0] * len(warps.loop.dependences)
    for crossing in warps.crossings:
        given = warps.loop.dependences[crossing.dependence]
        if given.source in home and given.target in home:
            delays[crossing.dependence] = max(delays[crossing.dependence], crossing.delay_cycles)
    ends = [(index[d.source], index[d.target]) for d in warps.loop.dependences]
    found: list[list[_Round]] = [[] for _ in range(count)]
    for members in components(len(warps.loop.operations), ends):
        place = {vertex: position for position, vertex in enumerate(members)}
        edges = tuple(
            (place[a], place[b], d.delay_cycles - ii * d.distance, home.get(d.source, -1), home.get(d.target, -1), more)
            for (a, b), d, more in zip(ends, warps.loop.dependences, delays, strict=True)
            if a in place and b in place
        )
        homes = {edge[at] for edge in edges for at in (3, 4)}
        if len(homes - {-1}) > 1 and any(edge[5] for edge in edges):
            found[max(homes)].append(_Round(len(members), edges))
    return found


def _keeps_pace(walk: _Walk, chosen: list[int]) -> bool:
    """Whether the recurrences that the class placed last completes fit the interval."""
    for round_ in walk.rounds[len(chosen) - 1]:
        edges = [
            (source, target, weight + (more if more and chosen[first] != chosen[last] else 0))
            for source, target, weight, first, last, more in round_.edges
        ]
        values = [0] * round_.size
        for _ in range(round_.size + 1):
            if not _relaxed(values, edges):
                break
        else:
            return False
    return True


def _relaxed(values: list[int], edges: list[tuple[int, int, int]]) -> bool:
    changed = False
    for source, target, weight in edges:
        if values[source] + weight > values[target]:
            values[target] = values[source] + weight
            changed = True
    return changed


def _extend(
    walk: _Walk, chosen: list[int], issued: list[int], cost: tuple[int, int], *, paced_only: bool = False
) -> Iterator[Needs]:
    """Put the next class in each group it may be in; groups without a role are opened in order."""
    walk.nodes += 1
    if walk.nodes > walk.most_nodes:
        raise WalkTooLong
    position = len(chosen)
    if position == len(walk.members):
        needs = _needs(walk, chosen, cost, paced_only=paced_only)
        if needs is not None:
            yield needs
        return
    roles = len(walk.warps.roles)
    opened = max([roles - 1, *chosen]) + 1
    role = walk.roles[position]
    options = [role] if role is not None else range(roles, min(opened + 1, walk.warps.limits.most_groups))
    for added_bytes, added_barriers, group in sorted((*_added(walk, chosen, group), group) for group in options):
        if issued[group] + walk.issue[position] > walk.ii:
            continue
        more = (cost[0] + added_bytes, cost[1] + added_barriers)
        left = walk.ahead[position + 1]
        if _too_much(walk, (more[0] + left[0], more[1] + left[1]), max(opened, group + 1)):
            continue
        issued[group] += walk.issue[position]
        chosen.append(group)
        paced = _keeps_pace(walk, chosen) and _waits_within(walk, chosen) and _handed_within(walk, chosen)
        fits = paced and (paced_only or role is not None or _room_left(walk, chosen, group))
        if fits:
            yield from _extend(walk, chosen, issued, more, paced_only=paced_only)
        chosen.pop()
        issued[group] -= walk.issue[position]


def _waits_within(walk: _Walk, chosen: list[int]) -> bool:
    """Whether the classes placed so far expose no more waits than there may be."""
    if "exposed_waits" not in walk.most:
        return True
    groups = {name: home for names, home in zip(walk.members, chosen, strict=False) for name in names}
    return exposed_waits(walk.warps, groups) <= walk.most["exposed_waits"]


def _handed_within(walk: _Walk, chosen: list[int]) -> bool:
    """Whether what the classes placed so far hand over has room beside the rings."""
    placed, used = len(chosen), 0
    for source, sizes in walk.handoffs:
        if source < placed:
            crossed = (size for at, size in sizes.items() if at < placed and chosen[at] != chosen[source])
            used += max(crossed, default=0)
    return not used or used <= walk.handoff_room


def _room_left(walk: _Walk, chosen: list[int], group: int) -> bool:
    """Whether the classes put in a group so far fit its registers."""
    if walk.reach is None:
        return False
    groups = {name: home for names, home in zip(walk.members, chosen, strict=False) for name in names}
    most = min(walk.warps.limits.registers_per_group, walk.most.get("registers", walk.warps.limits.registers_per_group))
    key = len(chosen), frozenset(position for position, home in enumerate(chosen) if home == group)
    if key not in walk.peaks:
        walk.peaks[key] = least_peak(walk.warps, groups, group, walk.reach, walk.ii, walk.from_ii)
    if walk.peaks[key] > most or not within_limits(walk.warps, _peaks_so_far(walk, chosen)):
        return False
    return walk.refutes is None or not walk.refutes(groups)


def _peaks_so_far(walk: _Walk, chosen: list[int]) -> dict[int, int]:
    """Return the fewest registers of every group without a role, as they were when its last class was placed."""
    members: dict[int, list[int]] = {}
    for position, home in enumerate(chosen):
        if walk.roles[position] is None:
            members.setdefault(home, []).append(position)
    return {home: walk.peaks[inside[-1] + 1, frozenset(inside)] for home, inside in members.items()}


def _added(walk: _Walk, chosen: list[int], group: int) -> tuple[int, int]:
    """Return the bytes and barriers of crossings between the next class, put in `group`, and those before it."""
    crossed = [edge for edge in walk.edges[len(chosen)] if chosen[edge[0]] != group]
    return sum(edge[1] for edge in crossed), sum(edge[2] for edge in crossed)


def _too_much(walk: _Walk, cost: tuple[int, int], groups: int) -> bool:
    values = (*cost, groups)
    return any(name in walk.most and value > walk.most[name] for name, value in zip(COUNTED, values, strict=True))


def _needs(walk: _Walk, chosen: list[int], cost: tuple[int, int], *, paced_only: bool) -> Needs | None:
    """Return what a complete assignment needs; None when a bound refutes it or it needs too much."""
    walk.leaves += 1
    if walk.leaves > MOST_LEAVES:
        raise WalkTooLong
    warps = walk.warps
    if walk.partial:
        return Needs({}, {})
    groups = {name: group for names, group in zip(walk.members, chosen, strict=True) for name in names}
    every = assigned_arcs(warps, groups)
    heads = longest(len(warps.loop.operations), every, walk.ii)
    if heads is None:
        return None
    levels = {"traffic_bytes": cost[0], "barriers": cost[1], "groups": len(set(chosen))}
    levels["exposed_waits"] = exposed_waits(warps, groups)
    if paced_only:
        return Needs(levels, _in_issue_order(warps, groups))
    levels["length"] = max(
        head + operation.latency_cycles for head, operation in zip(heads, warps.loop.operations, strict=True)
    )
    peaks = least_peaks(warps, groups, every, walk.ii, walk.from_ii)
    if not within_limits(warps, peaks):
        return None
    levels["registers"] = max([*peaks.values(), *[warps.limits.role_registers] * len(warps.roles)])
    if any(levels[name] > limit for name, limit in walk.most.items() if name in levels):
        return None
    return Needs(levels, _in_issue_order(warps, groups))


def _in_issue_order(warps: WarpLoop, groups: dict[str, int]) -> dict[str, int]:
    """Return an assignment with operations in order of issue, and groups without a role numbered in it."""
    roles = len(warps.roles)
    names = dict(enumerate(range(roles)))
    for issue in warps.issues:
        names.setdefault(groups[issue.operation], len(names))
    return {issue.operation: names[groups[issue.operation]] for issue in warps.issues}


def within_limits(warps: WarpLoop, peaks: dict[int, int]) -> bool:
    """Whether registers of the groups without a role fit a group each, and the file together with the roles."""
    limits, roles = warps.limits, len(warps.roles)
    largest = max(peaks.values(), default=0)
    if largest > limits.registers_per_group:
        return False
    if limits.reallocation:
        return sum(peaks.values()) + roles * limits.role_registers <= limits.registers_of_file
    return max(largest, limits.role_registers if roles else 0) * (len(peaks) + roles) <= limits.registers_of_file


def assigned_arcs(warps: WarpLoop, groups: dict[str, int]) -> list[Arc]:
    """Return the arcs of the loop with the delays of crossings that cross, rings as deep as handoffs let them be."""
    extra: dict[int, int] = {}
    for crossing in warps.crossings:
        ends = warps.loop.dependences[crossing.dependence]
        if groups[ends.source] != groups[ends.target]:
            extra[crossing.dependence] = max(extra.get(crossing.dependence, 0), crossing.delay_cycles)
    return [
        arc if (more := extra.get(arc.reference.get("dependence", -1), 0)) == 0
        else Arc(arc.source, arc.target, arc.delay_cycles + more, arc.distance, arc.reference)
        for arc in arcs(warps.loop, handoff_bytes(warps, groups))
    ]  # fmt: skip


def longest(count: int, every: list[Arc], ii: int) -> list[int] | None:
    """Return the earliest starts at `ii`; None when a recurrence forbids it."""
    values = [0] * count
    weights = [(arc.source, arc.target, arc.delay_cycles - ii * arc.distance) for arc in every]
    for _ in range(count + 1):
        changed = False
        for source, target, weight in weights:
            if values[source] + weight > values[target]:
                values[target] = values[source] + weight
                changed = True
        if not changed:
            return values
    return None


def levels_of(warps: WarpLoop, groups: dict[str, int]) -> dict[str, int]:
    """Return the levels that an assignment decides."""
    return {
        "traffic_bytes": traffic_bytes(warps, groups),
        "barriers": barriers(warps, groups),
        "groups": len(set(groups.values())),
        "exposed_waits": exposed_waits(warps, groups),
    }
