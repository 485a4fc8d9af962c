"""Replay of a migration: every wave is run in exact integers, and every intermediate state must hold.

During a wave a node holds what it held before the wave, plus everything that arrives in it; what leaves is gone only
after the wave. A pod that is stopped, or moved without a surge, is down during its wave.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from treadle.ir.cluster.cluster import PENDING, Cluster
from treadle.ir.cluster.labels import selects
from treadle.ir.cluster.migration import Migration, Step, StepKind
from treadle.ir.cluster.placement import Placement
from treadle.ir.diagnostics import Finding

_MOVING = (StepKind.EVICT, StepKind.MOVE, StepKind.STOP, StepKind.BIND)


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found: violations, where every pod ends, temporary moves, and the pods that were down."""

    findings: tuple[Finding, ...]
    nodes: tuple[int, ...]
    temporary_moves: int
    outages: tuple[int, ...]
    outage_price: int


def replay(cluster: Cluster, migration: Migration) -> Replay:
    """Run the waves from the current placement.

    Codes: TRD470 a step that does not apply, TRD471 a node overfull during a wave, TRD472 a disruption budget broken.
    """
    state = _State(cluster)
    for number, wave in enumerate(migration.waves, start=1):
        state.run(number, [step for step in wave if step.kind in _MOVING])
    ends_placed = {pod for pod in state.down if state.nodes[pod] != PENDING}
    price = sum(cluster.pods[pod].restart_cost * waves for pod, waves in state.down.items() if pod in ends_placed)
    ended = tuple(sorted(ends_placed))
    return Replay(tuple(state.findings), tuple(state.nodes), state.temporary_moves, ended, price)


def check(cluster: Cluster, placement: Placement, migration: Migration) -> list[Finding]:
    """Return every reason why the migration does not lead to the placement, or claims what its replay does not show.

    Codes: those of `replay`, TRD473 another end, TRD474 claims.
    """
    played = replay(cluster, migration)
    findings = list(played.findings)
    for pod, (reached, planned) in enumerate(zip(played.nodes, placement.nodes, strict=True)):
        if reached != planned:
            findings.append(
                Finding("TRD473", cluster.pods[pod].name, "ends on another node", str(planned), str(reached))
            )
    for name, expected, found in (
        ("temporary moves", played.temporary_moves, migration.temporary_moves),
        ("outages", played.outages, migration.outages),
        ("price of outages", played.outage_price, migration.outage_price),
        ("fewest detours", fewest_detours(cluster, placement), migration.detour_bound),
        ("fewest waves", fewest_waves(cluster, placement), migration.wave_bound),
    ):
        if expected != found:
            findings.append(Finding("TRD474", "migration", f"claims other {name}", str(expected), str(found)))
    return findings


def loads(cluster: Cluster) -> list[dict[str, int]]:
    """Return the amounts every shape needs, host ports included as resources of which a node has one.

    A port on all addresses takes it on each address that some pod names.
    """
    addresses: dict[tuple[str, int], set[str]] = defaultdict(set)
    for port in (port for shape in cluster.shapes for port in shape.ports):
        addresses[port.protocol, port.number].add(port.address)
    found: list[dict[str, int]] = []
    for shape in cluster.shapes:
        load = dict(shape.requests)
        for port in shape.ports:
            for address in (port.address,) if port.address else sorted(addresses[port.protocol, port.number]):
                load[f"port/{port.protocol}/{port.number}/{address}"] = 1
        if shape.device:
            load["device-slots"] = shape.device.count * shape.device.slots
        found.append(load)
    return found


def room(cluster: Cluster, node: int, name: str) -> int:
    """Return what a node has of a resource in the sense of `loads`."""
    if name.startswith("port/"):
        return 1
    if name == "device-slots":
        devices = cluster.nodes[node].devices
        return devices.count * devices.slots if devices else 0
    return cluster.nodes[node].capacity.get(name, 0)


def fewest_waves(cluster: Cluster, placement: Placement) -> int:
    """Return a bound on the number of waves: 0 without steps, 2 if some node must first let pods go, else 1.

    More where a disruption budget lets only so many pods restart at once. Holds with temporary places and outages too:
    whatever makes room must be gone before the arrival's wave.
    """
    if placement.nodes == cluster.current:
        return 0
    shape_loads = loads(cluster)
    held: list[Counter[str]] = [Counter() for _ in cluster.nodes]
    touched: set[int] = set()
    for pod, node in zip(cluster.pods, placement.nodes, strict=True):
        if pod.node != PENDING:
            held[pod.node].update(shape_loads[pod.shape])
        if node not in (PENDING, pod.node):
            held[node].update(shape_loads[pod.shape])
            touched.add(node)
    crowded = any(amount > room(cluster, n, name) for n in touched for name, amount in held[n].items())
    return max(2 if crowded else 1, _waves_of_budgets(cluster, placement))


def _waves_of_budgets(cluster: Cluster, placement: Placement) -> int:
    """A wave restarts at most as many pods of a budget as it allows, and as have newly been placed under it."""
    budgets_of = budgets_by_shape(cluster)
    restarts: Counter[int] = Counter()
    placed: Counter[int] = Counter()
    for pod, node in zip(cluster.pods, placement.nodes, strict=True):
        for budget in budgets_of.get(pod.shape, []) if node not in (PENDING, pod.node) else []:
            restarts[budget] += pod.node != PENDING and not pod.surge
            placed[budget] += pod.node == PENDING
    return max(
        (
            -(-count // max(1, cluster.budgets[budget].disruptions_allowed + placed[budget]))
            for budget, count in restarts.items()
        ),
        default=0,
    )


def fewest_detours(cluster: Cluster, placement: Placement) -> int:
    """Return a bound on temporary moves and outages together: knots of moves of which none can be the first.

    Of a set of moving pods none of which fits its target while the others of the set are where they are, even with
    everyone else who leaves gone and nobody else arrived, one must step aside. The largest such set falls into parts
    that share no node; each needs a detour of its own.
    """
    shape_loads = loads(cluster)
    knot: dict[int, tuple[int, int]] = {}
    held: list[Counter[str]] = [Counter() for _ in cluster.nodes]
    for index, (pod, node) in enumerate(zip(cluster.pods, placement.nodes, strict=True)):
        if pod.node != PENDING and (node == pod.node or node != PENDING):
            held[pod.node].update(shape_loads[pod.shape])
            if node != pod.node:
                knot[index] = (pod.node, node)
    changed = True
    while changed:
        changed = False
        for index, (source, target) in list(knot.items()):
            load = shape_loads[cluster.pods[index].shape]
            if all(held[target][name] + amount <= room(cluster, target, name) for name, amount in load.items()):
                held[source].subtract(load)
                del knot[index]
                changed = True
    return _parts(list(knot.values()))


def _parts(edges: list[tuple[int, int]]) -> int:
    """Return the number of connected parts of a graph."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for source, target in edges:
        parent[root(source)] = root(target)
    return len({root(node) for node in list(parent)})


@dataclass(slots=True)
class _State:
    cluster: Cluster
    nodes: list[int] = field(default_factory=list[int])
    held: list[Counter[str]] = field(default_factory=list[Counter[str]])
    shape_loads: list[dict[str, int]] = field(default_factory=list[dict[str, int]])
    down: dict[int, int] = field(default_factory=dict[int, int])
    """Pods that were without a place, and for how many waves."""
    stopped: dict[int, int] = field(default_factory=dict[int, int])
    """Pods without a place now, and since which wave."""
    temporary_moves: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    healthy: list[int] = field(default_factory=list[int])
    floors: list[int] = field(default_factory=list[int])
    budgets_of: dict[int, list[int]] = field(default_factory=dict[int, list[int]])

    def __post_init__(self) -> None:
        self.nodes = list(self.cluster.current)
        self.shape_loads = loads(self.cluster)
        self.held = [Counter() for _ in self.cluster.nodes]
        for pod, node in zip(self.cluster.pods, self.nodes, strict=True):
            if node != PENDING:
                self.held[node].update(self.shape_loads[pod.shape])
        self.budgets_of = budgets_by_shape(self.cluster)
        self.healthy = [0] * len(self.cluster.budgets)
        for pod, node in zip(self.cluster.pods, self.nodes, strict=True):
            for budget in self.budgets_of.get(pod.shape, []) if node != PENDING else []:
                self.healthy[budget] += 1
        allowed = [budget.disruptions_allowed for budget in self.cluster.budgets]
        self.floors = [count - allow for count, allow in zip(self.healthy, allowed, strict=True)]

    def run(self, number: int, steps: list[Step]) -> None:
        """Run one wave: everything arrives, the state is checked, then everything that leaves is gone."""
        applicable = [step for step in steps if self._applies(number, step, steps)]
        lowest = list(self.healthy)
        touched: set[int] = set()
        for step in applicable:
            if step.kind in (StepKind.MOVE, StepKind.BIND):
                self.held[step.target].update(self.shape_loads[self.cluster.pods[step.pod].shape])
                touched.add(step.target)
            if self._goes_down(step):
                for budget in self.budgets_of.get(self.cluster.pods[step.pod].shape, []):
                    lowest[budget] -= 1
        self._check_room(number, touched)
        self._check_budgets(number, lowest)
        for step in applicable:
            self._finish(number, step)

    def _applies(self, number: int, step: Step, wave: list[Step]) -> bool:
        where = f"wave {number}, {step.kind.value}"
        if not 0 <= step.pod < len(self.cluster.pods) or not PENDING <= step.target < len(self.cluster.nodes):
            self.findings.append(Finding("TRD470", where, "there is no such pod or node"))
            return False
        pod = self.cluster.pods[step.pod]
        if pod.pinned and pod.node != PENDING:
            self.findings.append(Finding("TRD470", where, f"{pod.name} is pinned ({pod.pinned})"))
        expected = PENDING if step.kind is StepKind.BIND else step.source
        if self.nodes[step.pod] != expected or (step.kind is not StepKind.BIND and step.source == PENDING):
            self.findings.append(
                Finding(
                    "TRD470", where, f"{pod.name} is not where the step says", str(expected), str(self.nodes[step.pod])
                )
            )
            return False
        if (step.kind in (StepKind.MOVE, StepKind.BIND)) != (step.target != PENDING):
            self.findings.append(Finding("TRD470", where, f"{pod.name}: the step's target does not suit its kind"))
            return False
        if sum(other.pod == step.pod for other in wave) > 1:
            self.findings.append(Finding("TRD470", where, f"{pod.name} has two steps in one wave"))
            return False
        return True

    def _goes_down(self, step: Step) -> bool:
        if step.kind is StepKind.MOVE:
            return not self.cluster.pods[step.pod].surge
        return step.kind in (StepKind.EVICT, StepKind.STOP)

    def _check_room(self, number: int, nodes: set[int]) -> None:
        for node in sorted(nodes):
            for name, amount in sorted(self.held[node].items()):
                if amount > (has := room(self.cluster, node, name)):
                    where = f"wave {number}, {self.cluster.nodes[node].name}"
                    self.findings.append(Finding("TRD471", where, f"{name} is overfull", f"<= {has}", str(amount)))

    def _check_budgets(self, number: int, lowest: list[int]) -> None:
        for budget, low, floor in zip(self.cluster.budgets, lowest, self.floors, strict=True):
            if low < floor:
                self.findings.append(
                    Finding("TRD472", f"wave {number}, {budget.name}", "too many pods down", f">= {floor} up", str(low))
                )

    def _finish(self, number: int, step: Step) -> None:
        load = self.shape_loads[self.cluster.pods[step.pod].shape]
        if step.kind is not StepKind.BIND:
            self.held[step.source].subtract(load)
        budgets = self.budgets_of.get(self.cluster.pods[step.pod].shape, [])
        for budget in budgets:
            if step.kind in (StepKind.EVICT, StepKind.STOP):
                self.healthy[budget] -= 1
            elif step.kind is StepKind.BIND:
                self.healthy[budget] += 1
        if step.kind in (StepKind.EVICT, StepKind.STOP):
            self.stopped[step.pod] = number
            self.down.setdefault(step.pod, 0)
        elif step.kind is StepKind.BIND and step.pod in self.stopped:
            self.down[step.pod] += number - self.stopped.pop(step.pod)
        elif self._goes_down(step):
            self.down[step.pod] = self.down.get(step.pod, 0) + 1
        self.temporary_moves += step.temporary
        self.nodes[step.pod] = step.target


def budgets_by_shape(cluster: Cluster) -> dict[int, list[int]]:
    """Return the budgets (by index) that select pods of each shape."""
    found: dict[int, list[int]] = defaultdict(list)
    for index, shape in enumerate(cluster.shapes):
        for position, budget in enumerate(cluster.budgets):
            if budget.namespace == shape.namespace and selects(budget.selector, shape.labels):
                found[index].append(position)
    return dict(found)
