"""Fewer waves and detours than the greedy order, by CP-SAT: who moves in which wave, by which temporary place.

Every moving pod goes to its target in one wave, or first to a temporary node; a node holds in a wave everything that
has not left before it and all that arrives up to it. Outages do not occur: where the greedy order needs none, this
one has none either.
"""

from __future__ import annotations

from collections import defaultdict

from ortools.sat.python import cp_model

from treadle.costmodels.migration import budgets_by_shape, loads, room
from treadle.ir.cluster.cluster import PENDING, Cluster, may_arrive
from treadle.ir.cluster.migration import Step, StepKind
from treadle.ir.cluster.placement import Placement
from treadle.solvers.backend import Limits, solve

MOST_MOVERS = 60
_MOST_DETOURS = 4
"""Temporary nodes tried per pod."""

Sum = cp_model.LinearExpr | cp_model.IntVar | int


class WaveModel:
    """All migrations of at most so many waves, without outages."""

    def __init__(self, cluster: Cluster, placement: Placement, waves: int, *, detours: bool) -> None:
        self.cluster = cluster
        self.goal = placement.nodes
        self.waves = waves
        self.loads = loads(cluster)
        self.model = cp_model.CpModel()
        self.changing = [i for i, pod in enumerate(cluster.pods) if pod.node != placement.nodes[i]]
        self.lands: dict[tuple[int, int], cp_model.IntVar] = {}
        """(pod, wave) of its last step."""
        self.hops: dict[tuple[int, int, int], cp_model.IntVar] = {}
        """(pod, temporary node, wave)"""
        self._add_steps(detours)
        self._add_room()
        self._add_budgets()
        self.model.minimize(cp_model.LinearExpr.sum(list(self.hops.values())))

    def solve(self, limits: Limits) -> list[list[Step]] | None:
        """Return the waves with the fewest temporary moves found, None if there are none in time."""
        outcome = solve(self.model, limits)
        if not outcome.solved:
            return None
        found: list[list[Step]] = [[] for _ in range(self.waves)]
        at = dict(enumerate(self.cluster.current))
        for (pod, node, wave), variable in self.hops.items():
            if outcome[variable]:
                found[wave].append(Step(StepKind.MOVE, pod, at[pod], node, temporary=True))
                at[pod] = node
        for (pod, wave), variable in self.lands.items():
            if outcome[variable]:
                found[wave].append(self._last(pod, at[pod]))
        return [wave for wave in found if wave]

    def _last(self, pod: int, source: int) -> Step:
        target = self.goal[pod]
        if source == PENDING:
            return Step(StepKind.BIND, pod, target=target)
        return Step(StepKind.EVICT, pod, source) if target == PENDING else Step(StepKind.MOVE, pod, source, target)

    def _add_steps(self, detours: bool) -> None:
        for pod in self.changing:
            lands = [self.model.new_bool_var(f"l{pod}_{w}") for w in range(self.waves)]
            self.lands.update({(pod, wave): variable for wave, variable in enumerate(lands)})
            self.model.add_exactly_one(lands)
            hops: list[cp_model.IntVar] = []
            for node in self._temporary(pod) if detours else []:
                for wave in range(self.waves - 1):
                    hop = self.model.new_bool_var(f"h{pod}_{node}_{wave}")
                    self.hops[pod, node, wave] = hop
                    hops.append(hop)
                    self.model.add_at_most_one([hop, *lands[: wave + 1]])
            if hops:
                self.model.add_at_most_one(hops)

    def _temporary(self, pod: int) -> list[int]:
        """Return nodes where a pod that runs now may wait: those with most room of what it asks for."""
        source, target = self.cluster.pods[pod].node, self.goal[pod]
        if PENDING in (source, target):
            return []
        shape = self.cluster.shapes[self.cluster.pods[pod].shape]
        load = self.loads[self.cluster.pods[pod].shape]
        held: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for other, (now, then) in enumerate(zip(self.cluster.current, self.goal, strict=True)):
            for node in {now, then} - {PENDING}:
                for name, amount in self.loads[self.cluster.pods[other].shape].items():
                    held[node][name] += amount
        free: list[tuple[float, int]] = []
        for node, described in enumerate(self.cluster.nodes):
            if node not in (source, target) and not may_arrive(shape, described):
                rest = [
                    (room(self.cluster, node, name) - held[node][name]) / amount
                    for name, amount in load.items()
                    if amount
                ]
                free.append((-min(rest, default=0.0), node))
        return [node for _, node in sorted(free)[:_MOST_DETOURS]]

    def _stands(self, pod: int, wave: int) -> cp_model.IntVar:
        """Return a variable that is 1 while the pod holds its first node: neither landed nor hopped before the wave."""
        stands = self.model.new_bool_var("")
        gone = [*(self.lands[pod, w] for w in range(wave)), *self._hopped(pod, wave, None)]
        self.model.add(stands >= 1 - cp_model.LinearExpr.sum(gone))
        return stands

    def _hopped(self, pod: int, before: int, node: int | None) -> list[cp_model.IntVar]:
        """Return the hops of a pod before a wave, to one temporary node or to any."""
        return [v for (p, n, w), v in self.hops.items() if p == pod and w < before and node in (None, n)]

    def _add_room(self) -> None:
        """In every wave a node holds what has not left before it, and what arrives up to it."""
        stays: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for index, pod in enumerate(self.cluster.pods):
            if pod.node != PENDING and pod.node == self.goal[index]:
                for name, amount in self.loads[pod.shape].items():
                    stays[pod.node][name] += amount
        for wave in range(self.waves):
            held: dict[tuple[int, str], list[tuple[Sum, int]]] = defaultdict(list)
            for changing in self.changing:
                self._hold(changing, wave, held)
            for (node, name), terms in held.items():
                capacity = room(self.cluster, node, name) - stays[node][name]
                self.model.add(sum(amount * presence for presence, amount in terms) <= capacity)

    def _hold(self, pod: int, wave: int, held: dict[tuple[int, str], list[tuple[Sum, int]]]) -> None:
        source, target = self.cluster.pods[pod].node, self.goal[pod]
        places: list[tuple[int, Sum]] = []
        if source != PENDING:
            places.append((source, self._stands(pod, wave)))
        if target != PENDING:
            places.append((target, cp_model.LinearExpr.sum([self.lands[pod, w] for w in range(wave + 1)])))
        for node in sorted({n for p, n, _ in self.hops if p == pod}):
            places.append((node, self._waits(pod, node, wave)))
        for name, amount in self.loads[self.cluster.pods[pod].shape].items():
            for node, presence in places if amount else ():
                held[node, name].append((presence, amount))

    def _waits(self, pod: int, node: int, wave: int) -> Sum:
        """Return a variable that is 1 while the pod holds a temporary node: hopped by the wave, not gone before it."""
        waits = self.model.new_bool_var("")
        came = cp_model.LinearExpr.sum(self._hopped(pod, wave + 1, node))
        gone = cp_model.LinearExpr.sum([self.lands[pod, w] for w in range(wave)])
        self.model.add(waits >= came - gone)
        return waits

    def _add_budgets(self) -> None:
        """Restarts of a wave and evictions so far, less what was newly bound, stay within budgets."""
        budgets_of = budgets_by_shape(self.cluster)
        for position, budget in enumerate(self.cluster.budgets):
            inside = [p for p in self.changing if position in budgets_of.get(self.cluster.pods[p].shape, [])]
            for wave in range(self.waves):
                down: list[Sum] = []
                for pod in inside:
                    kind = self._last(pod, self.cluster.pods[pod].node).kind
                    if kind is StepKind.EVICT:
                        down += [self.lands[pod, w] for w in range(wave + 1)]
                    elif kind is StepKind.BIND:
                        down += [-self.lands[pod, w] for w in range(wave)]
                    elif not self.cluster.pods[pod].surge:
                        down += [self.lands[pod, wave]]
                        down += [v for (p, _, w), v in self.hops.items() if p == pod and w == wave]
                if down:
                    self.model.add(sum(down) <= budget.disruptions_allowed)
