"""The first level: the least initiation interval, and a first schedule at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from treadle.ir.certificate import ProofKind, Status
from treadle.ir.tile.constraints import depth_limit, free_bytes
from treadle.ir.tile.refute import refuted
from treadle.solvers.backend import Limits, Outcome, solve
from treadle.solvers.modulo.bounds import (
    Bound,
    EndlessRecurrence,
    capacity_bound,
    depth_bounds,
    memory_fits,
    overfull_memories,
    recurrence_bound,
    resource_bounds,
    ring_limits,
)
from treadle.solvers.modulo.complete import complete
from treadle.solvers.modulo.errors import MemoryExceeded, RingTooShallow
from treadle.solvers.modulo.model import (
    TUNING,
    Model,
    Window,
    add_arcs,
    add_free_slots,
    add_full_units,
    add_memories,
    add_one_iteration_units,
    add_rings,
    add_times,
    add_units,
)
from treadle.solvers.modulo.network import Network, heads
from treadle.solvers.modulo.place import normalized, place

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to try: solver limits per question, restarts of the heuristic, nodes of the checkable refutation."""

    limits: Limits = field(default_factory=Limits)
    restarts: int = 8
    refutation_nodes: int = 20_000
    questions: int = 4
    """Intervals may cost this many times the limit of one question together; then proving gives way to finding."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The least interval found, its starts, and the proven bound."""

    ii: int
    starts: tuple[int, ...]
    bound: Bound


def interval_bounds(network: Network) -> list[Bound]:
    """Return lower bounds on the interval that need no search, largest first; the trivial one (1 cycle) is among them.

    Raises:
        MemoryExceeded, RingTooShallow: no interval is feasible.
    """
    _refuse_full_memory(network, {ring.name: 1 for ring in network.loop.rings})
    found = [Bound(1, ProofKind.COUNT), *resource_bounds(network)]
    found.sort(key=lambda bound: -bound.value)
    try:
        recurrence = recurrence_bound(network)
    except EndlessRecurrence as error:
        raise _too_shallow(network, error) from None
    if recurrence:
        found.append(recurrence)
    least = max(bound.value for bound in found)
    if network.loop.rings and not memory_fits(network, least):
        ceiling = serial_interval(network)
        capacity = capacity_bound(network, least, max(ceiling, least + 1))
        if capacity is None:
            _refuse_full_memory(network, depth_bounds(network, ceiling))
        else:
            found.append(capacity)
    return sorted(found, key=lambda bound: -bound.value)


def serial_interval(network: Network) -> int:
    """Return an interval at which iterations hardly overlap: every operation after the other, plus all waiting."""
    work = sum(max(occupancy, latency) for occupancy, latency in zip(network.occupancy, network.latency, strict=True))
    waits = sum(max(0, arc.delay_cycles) for arc in network.arcs)
    return max(1, work + waits)


def horizon(network: Network, ii: int) -> int:
    """Return a time before which every feasible schedule at `ii` can start all its operations.

    With slots and ring depths given, the least stages are longest paths, and an arc adds at most
    ceil(delay / ii) + 1 - distance stages.
    """
    stages = 0
    for positions in network.outgoing:
        steps = [-(-network.arcs[p].delay_cycles // ii) + 1 - network.arcs[p].distance for p in positions]
        stages += max([0, *steps]) if steps else 0
    # Rings below their greatest depth tighten their arcs by at most that depth.
    stages += sum(limit for limit in ring_limits(network).values())
    return ii * (stages + 1)


def least_interval(network: Network, effort: Effort, tell: Progress, known: Interval | None = None) -> Interval:
    """Find the least interval: bounds, then the heuristic, then CP-SAT on the core, upwards one cycle at a time.

    An interval already `known`, with its bound, is what the search has to beat and where it begins.
    """
    bound = interval_bounds(network)[0]
    if known is not None and known.bound.value > bound.value:
        bound = known.bound
    ii = bound.value
    proven = True
    left_s = effort.questions * (effort.limits.deterministic_s or float("inf"))
    while known is None or ii < known.ii:
        starts = _heuristic(network, ii, effort)
        if starts is None:
            tell(f"interval {ii}: searching")
            outcome, starts = decide(network, ii, effort.limits)
            left_s -= outcome.report.deterministic_time
            if outcome.status is Status.INFEASIBLE and proven:
                bound = _raised(network, ii, bound, outcome, effort)
            elif starts is None:
                proven = False
            proven = proven and left_s > 0
        if starts is not None:
            return Interval(ii, tuple(starts), bound)
        ii = ii + 1 if proven else ii + max(1, ii // 64)
    return replace(known, bound=bound)


def _heuristic(network: Network, ii: int, effort: Effort) -> list[int] | None:
    for seed in range(effort.restarts):
        starts = place(network, ii, seed)
        if starts is not None and fits_memory(network, ii, starts):
            return starts
    return None


def fits_memory(network: Network, ii: int, starts: list[int] | tuple[int, ...]) -> bool:
    """Whether the ring depths that `starts` need fit limits and memories."""
    depths = depths_of(network, ii, starts)
    limits = ring_limits(network)
    return all(depths[name] <= limits[name] for name in depths) and not overfull_memories(network, depths)


def depths_of(network: Network, ii: int, starts: list[int] | tuple[int, ...]) -> dict[str, int]:
    """Return the fewest slots every ring needs under given starts."""
    index = network.loop.index
    found: dict[str, int] = {}
    for ring in network.loop.rings:
        begin = starts[index[ring.producer]]
        end = max(starts[index[r.operation]] + r.hold_cycles + ii * r.distance for r in ring.readers)
        found[ring.name] = max(1, -(-(end - begin) // ii))
    return found


def decide(network: Network, ii: int, limits: Limits) -> tuple[Outcome, list[int] | None]:
    """Ask CP-SAT whether the interval is feasible; return its outcome and the starts if it is."""
    if overfull_memories(network, ring_limits(network)):
        return _decide_whole(network, ii, limits)
    model = Model(network, ii)
    add_times(model, core_windows(network, ii))
    mixed = [users for users in network.users if any(network.occupancy[vertex] > 1 for vertex in users)]
    add_free_slots(model, [vertex for users in mixed for vertex in users if vertex not in model.starts])
    add_arcs(model, network.inner_arcs)
    add_units(model)
    add_full_units(model, turned=False)
    outcome = solve(model.cp, limits, tuning=TUNING)
    if not outcome.solved:
        return outcome, None
    core = {vertex: outcome[start] for vertex, start in model.starts.items()}
    slots = {vertex: outcome[slot] for vertex, slot in model.slots.items() if vertex not in core}
    return outcome, complete(network, ii, core, slots)


SHORT_HORIZONS = (1, 2, 4)
"""Intervals beyond the longest path that are tried before the horizon that holds every schedule."""


def _decide_whole(network: Network, ii: int, limits: Limits) -> tuple[Outcome, list[int] | None]:
    """Ask about all operations: where rings at their limits overfill a memory, depths couple everything.

    Short schedules are by far the easiest to find, so short horizons come first; only the last one can refute.
    """
    head = heads(network, ii)
    assert head is not None
    # One interval more, since turning all slots may move an operation by up to one.
    last = horizon(network, ii) + ii
    share = None if limits.deterministic_s is None else limits.deterministic_s / 8
    for intervals in SHORT_HORIZONS:
        early = max(head) + intervals * ii
        if early < last:
            outcome, starts = _ask_whole(network, ii, head, early, replace(limits, deterministic_s=share))
            if starts is not None:
                return outcome, starts
    return _ask_whole(network, ii, head, last, limits)


def _ask_whole(
    network: Network, ii: int, head: list[int], last: int, limits: Limits
) -> tuple[Outcome, list[int] | None]:
    model = Model(network, ii)
    add_times(model, {vertex: (head[vertex], last) for vertex in range(network.size)})
    add_arcs(model, range(len(network.arcs)))
    add_units(model)
    add_full_units(model, turned=True)
    add_one_iteration_units(model)
    add_rings(model)
    add_memories(model)
    outcome = solve(model.cp, limits, tuning=TUNING)
    if not outcome.solved:
        return outcome, None
    return outcome, normalized([outcome[model.starts[vertex]] for vertex in range(network.size)])


def core_windows(network: Network, ii: int) -> dict[int, Window]:
    """Return windows of the operations in cyclic components.

    A component's root starts within the first interval; the first component's root at 0, since turning all slots
    together changes nothing. The others are held by longest paths from and to the root.
    """
    windows: dict[int, Window] = {}
    order = sorted(network.cyclic, key=lambda component: -sum(network.unit_of[v] is not None for v in component))
    for rank, component in enumerate(order):
        root = next((v for v in component if network.unit_of[v] is not None), component[0])
        span = 0 if rank == 0 else ii - 1
        after = heads(network, ii, {root: 0})
        assert after is not None
        before = _to_root(network, ii, component, root)
        for vertex in component:
            windows[vertex] = (after[vertex], span - before[vertex])
        windows[root] = (0, span)
    return windows


def _to_root(network: Network, ii: int, component: tuple[int, ...], root: int) -> dict[int, int]:
    """Return longest paths from every operation of a component to its root (Bellman-Ford)."""
    home = network.component_of[root]
    values: dict[int, int] = {root: 0}
    changed = True
    while changed:
        changed = False
        for vertex in component:
            for position in network.outgoing[vertex]:
                arc = network.arcs[position]
                if network.component_of[arc.target] != home or arc.target not in values or vertex == root:
                    continue
                reach = values[arc.target] + arc.delay_cycles - ii * arc.distance
                if vertex not in values or reach > values[vertex]:
                    values[vertex] = reach
                    changed = True
    return values


def _raised(network: Network, ii: int, bound: Bound, outcome: Outcome, effort: Effort) -> Bound:
    """Return the bound ii + 1 after a refutation at `ii`.

    Evidence: `basis`, the bound below the first refuted interval, and the `refuted` intervals. The kind is
    `enumeration` while treadle's own search repeats every refutation, `solver` from the first one it does not.
    """
    first = "refuted" not in bound.evidence
    basis = {"value": bound.value, "proof": bound.proof.value, "evidence": bound.evidence}
    evidence = {
        "basis": basis if first else bound.evidence["basis"],
        "refuted": [*bound.evidence.get("refuted", []), ii],
        "nodes": effort.refutation_nodes,
    }
    if bound.proof is not ProofKind.SOLVER and refuted(network.loop, ii, effort.refutation_nodes):
        return Bound(ii + 1, ProofKind.ENUMERATION, evidence)
    return Bound(ii + 1, ProofKind.SOLVER, evidence | outcome.report.evidence())


def _refuse_full_memory(network: Network, depths: dict[str, int]) -> None:
    loop = network.loop
    for memory in overfull_memories(network, depths):
        free = free_bytes(loop, memory)
        needs = {ring.name: ring.slot_bytes * depths[ring.name] for ring in loop.rings if ring.memory == memory}
        for name, need in sorted(needs.items(), key=lambda item: item[1]):
            if sum(needs.values()) - need > free:
                del needs[name]
        needed = sum(needs.values())
        rings = ", ".join(f"`{name}` ({depths[name]} x {need // depths[name]})" for name, need in needs.items())
        if free < 0:
            capacity = sum(c.capacity_bytes for c in loop.capacities if c.memory == memory)
            rings, needed, free = "tiles that no iteration changes", capacity - free, capacity
        raise MemoryExceeded(
            loop=loop.name,
            memory=memory,
            rings=rings,
            needed=needed,
            free=max(free, 0),
            missing=needed - free,
            factor=needed / max(free, 1),
        )


def _too_shallow(network: Network, error: EndlessRecurrence) -> RingTooShallow:
    names = [network.loop.operations[arc.source].name for arc in error.cycle]
    ring_name = next(str(arc.reference["ring"]) for arc in error.cycle if "ring" in arc.reference)
    ring = next(ring for ring in network.loop.rings if ring.name == ring_name)
    limit = depth_limit(network.loop, ring)
    return RingTooShallow(
        loop=network.loop.name,
        ring=ring_name,
        limit=limit,
        needed=limit + 1 - sum(arc.distance for arc in error.cycle),
        cycle=" -> ".join(f"`{name}`" for name in [*names, names[0]]),
    )
