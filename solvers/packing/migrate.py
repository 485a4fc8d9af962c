"""Orders the steps from the current placement to another one into waves.

Greedy list scheduling: in every wave, all steps run that fit beside what is there and keep the budgets; when nothing
can run, a pod goes to a temporary place, and when there is none, one pod is stopped for a while (an outage). Where
this misses the bounds on waves and detours, `waves.py` looks for less.
"""

from __future__ import annotations

from collections import Counter

from treadle.costmodels.migration import budgets_by_shape, fewest_detours, fewest_waves, loads, replay, room
from treadle.ir.cluster.cluster import PENDING, Cluster, may_arrive
from treadle.ir.cluster.errors import NoLegalOrder
from treadle.ir.cluster.migration import Migration, Step, StepKind
from treadle.ir.cluster.placement import Placement
from treadle.solvers.backend import Limits
from treadle.solvers.packing.waves import MOST_MOVERS, WaveModel


def order(cluster: Cluster, placement: Placement) -> Migration:
    """Return waves of steps that lead to the placement.

    Raises:
        NoLegalOrder: a disruption budget that blocks every step.
    """
    best = _finished(cluster, placement, _greedy(cluster, placement))
    detours = best.temporary_moves + len(best.outages)
    movers = sum(pod.node != node for pod, node in zip(cluster.pods, placement.nodes, strict=True))
    if movers > MOST_MOVERS or (len(best.waves) <= best.wave_bound and detours <= best.detour_bound):
        return best
    for waves in range(best.wave_bound, min(_MOST_WAVES, len(best.waves)) + 1):
        for with_detours in (False, True) if best.detour_bound == 0 else (True,):
            found = WaveModel(cluster, placement, waves, detours=with_detours).solve(Limits(_WAVES_S))
            candidate = None if found is None else _finished(cluster, placement, [tuple(wave) for wave in found])
            if candidate is not None and _rank(candidate) < _rank(best):
                return candidate
    return best


_MOST_WAVES = 6
_WAVES_S = 0.5
"""Deterministic seconds per number of waves."""


def _rank(steps: Migration) -> tuple[int, int, int]:
    """Outages cost most, then waves, then temporary moves."""
    return steps.outage_price, len(steps.waves), steps.temporary_moves


def _greedy(cluster: Cluster, placement: Placement) -> list[tuple[Step, ...]]:
    """Return waves by list scheduling; raises NoLegalOrder."""
    planner = _Planner(cluster, placement)
    waves: list[tuple[Step, ...]] = []
    while planner.remaining:
        wave = planner.wave() or planner.detour() or planner.outage()
        if not wave:
            blocked = cluster.pods[min(planner.remaining)].name
            raise NoLegalOrder(reason=f"a disruption budget never lets `{blocked}` go")
        planner.apply(wave)
        waves.append(tuple(wave))
    return waves


def _finished(cluster: Cluster, placement: Placement, waves: list[tuple[Step, ...]]) -> Migration:
    """Return the migration with cordons, bounds and what its replay shows."""
    waves = _with_cordons(placement, cluster, waves)
    bound, detours = fewest_waves(cluster, placement), fewest_detours(cluster, placement)
    played = replay(cluster, Migration(tuple(waves), bound))
    return Migration(
        tuple(waves), bound, played.temporary_moves, played.outages, played.outage_price, detour_bound=detours
    )


def _with_cordons(placement: Placement, cluster: Cluster, waves: list[tuple[Step, ...]]) -> list[tuple[Step, ...]]:
    """Cordon the nodes that receive pods while the migration runs, so that nothing else takes the room."""
    if not waves:
        return waves
    targets = {node for pod, node in zip(cluster.pods, placement.nodes, strict=True) if node not in (PENDING, pod.node)}
    targets |= {step.target for wave in waves for step in wave if step.target != PENDING}
    mine = sorted(node for node in targets if not cluster.nodes[node].unschedulable)
    cordons = tuple(Step(StepKind.CORDON, target=node) for node in mine)
    uncordons = tuple(Step(StepKind.UNCORDON, target=node) for node in mine)
    return (
        [(*cordons, *waves[0]), *waves[1:-1], (*waves[-1], *uncordons)]
        if len(waves) > 1
        else [(*cordons, *waves[0], *uncordons)]
    )


class _Planner:
    def __init__(self, cluster: Cluster, placement: Placement) -> None:
        self.cluster = cluster
        self.goal = placement.nodes
        self.nodes = list(cluster.current)
        self.loads = loads(cluster)
        self.held: list[Counter[str]] = [Counter() for _ in cluster.nodes]
        for pod, node in zip(cluster.pods, self.nodes, strict=True):
            if node != PENDING:
                self.held[node].update(self.loads[pod.shape])
        self.remaining = {pod for pod, node in enumerate(self.nodes) if node != self.goal[pod]}
        self.budgets = budgets_by_shape(cluster)
        self.slack = [budget.disruptions_allowed for budget in cluster.budgets]
        self.detoured: set[int] = set()

    def wave(self) -> list[Step]:
        """Return as many steps as fit into one wave, those that free contended nodes first."""
        held: dict[int, Counter[str]] = {}
        slack = list(self.slack)
        steps: list[Step] = []
        for pod in sorted(self.remaining, key=self._urgency):
            step = self._step(pod)
            if not self._has_budget(step, slack):
                continue
            if step.target != PENDING:
                there = held.setdefault(step.target, Counter(self.held[step.target]))
                if not self._fits(step.target, pod, there):
                    continue
                there.update(self._load(pod))
            for budget in self._down_budgets(step):
                slack[budget] -= 1
            steps.append(step)
        return steps

    def detour(self) -> list[Step]:
        """Return a move of one blocked pod to a node where it fits for now, or nothing."""
        wanted = {self.goal[pod] for pod in self.remaining if self.goal[pod] != PENDING}
        for pod in sorted(self.remaining, key=lambda pod: (self.cluster.pods[pod].restart_cost, pod)):
            source = self.nodes[pod]
            if source not in wanted or pod in self.detoured:
                continue
            shape = self.cluster.shapes[self.cluster.pods[pod].shape]
            for node, description in enumerate(self.cluster.nodes):
                if node == source or may_arrive(shape, description) or not self._fits(node, pod, self.held[node]):
                    continue
                step = Step(StepKind.MOVE, pod, source, node, temporary=True)
                if self._has_budget(step, self.slack):
                    self.detoured.add(pod)
                    return [step]
        return []

    def outage(self) -> list[Step]:
        """Return a stop of the pod whose absence costs least, or nothing."""
        wanted = {self.goal[pod] for pod in self.remaining if self.goal[pod] != PENDING}
        running = [pod for pod in self.remaining if self.nodes[pod] != PENDING and self.nodes[pod] in wanted]
        for pod in sorted(
            running, key=lambda pod: (self.cluster.priority(pod), self.cluster.pods[pod].restart_cost, pod)
        ):
            step = Step(StepKind.STOP, pod, self.nodes[pod])
            if self._has_budget(step, self.slack):
                return [step]
        return []

    def apply(self, wave: list[Step]) -> None:
        """Carry out a wave."""
        for step in wave:
            load = self._load(step.pod)
            budgets = self.budgets.get(self.cluster.pods[step.pod].shape, [])
            if step.source != PENDING:
                self.held[step.source].subtract(load)
            if step.target != PENDING:
                self.held[step.target].update(load)
            for budget in budgets:
                self.slack[budget] += (step.kind is StepKind.BIND) - (step.kind in (StepKind.EVICT, StepKind.STOP))
            self.nodes[step.pod] = step.target
            if step.target == self.goal[step.pod]:
                self.remaining.discard(step.pod)

    def _step(self, pod: int) -> Step:
        source, target = self.nodes[pod], self.goal[pod]
        if source == PENDING:
            return Step(StepKind.BIND, pod, target=target)
        if target == PENDING:
            return Step(StepKind.EVICT, pod, source)
        return Step(StepKind.MOVE, pod, source, target)

    def _urgency(self, pod: int) -> tuple[int, int, int]:
        """Evictions first, then moves, then binds; big pods before small ones."""
        kind = 0 if self.goal[pod] == PENDING else 1 if self.nodes[pod] != PENDING else 2
        return kind, -sum(self._load(pod).values()), pod

    def _load(self, pod: int) -> dict[str, int]:
        return self.loads[self.cluster.pods[pod].shape]

    def _fits(self, node: int, pod: int, held: Counter[str]) -> bool:
        return all(held[name] + amount <= room(self.cluster, node, name) for name, amount in self._load(pod).items())

    def _down_budgets(self, step: Step) -> list[int]:
        pod = self.cluster.pods[step.pod]
        down = step.kind in (StepKind.EVICT, StepKind.STOP) or (step.kind is StepKind.MOVE and not pod.surge)
        return self.budgets.get(pod.shape, []) if down else []

    def _has_budget(self, step: Step, slack: list[int]) -> bool:
        return all(slack[budget] >= 1 for budget in self._down_budgets(step))
