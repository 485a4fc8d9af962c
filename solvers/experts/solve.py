"""Expert placement: exact for small pools, greedy and exchanges against bounds for large ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from treadle.ir.certificate import Certificate, Level, Status
from treadle.ir.layout.expert_bounds import (
    PARTITIONS,
    bound_of,
    enumerable,
    pair_exactly,
    partitions_of,
    pool_bound,
)
from treadle.ir.layout.experts import ExpertsPlan, ExpertsProblem, Policy, gpu_loads
from treadle.solvers.experts.balance import greedy, improve, peak


def solve_experts(problem: ExpertsProblem) -> tuple[ExpertsPlan, Certificate]:
    """Return a placement per layer with the least highest GPU load found, and the bound of each layer."""
    slots = tuple(_solve_layer(problem, layer) for layer in range(len(problem.loads)))
    plan = ExpertsPlan(problem, slots)
    return plan, certificate_of(plan)


def certificate_of(plan: ExpertsPlan) -> Certificate:
    """State the highest GPU load of each layer against its bound."""
    levels: list[Level] = []
    for layer, slots in enumerate(plan.slots):
        value = max(gpu_loads(plan.problem, layer, slots))
        bound = bound_of(plan.problem, layer)
        status = Status.OPTIMAL if float(value) == float(bound.value) else Status.FEASIBLE
        levels.append(
            Level(
                f"layer {layer} peak",
                "load",
                float(value),
                min(float(bound.value), float(value)),
                status,
                bound.proof,
                {"argument": bound.argument},
            )
        )
    return Certificate("experts", "expert loads as given, split evenly over replicas", tuple(levels))


def _solve_layer(problem: ExpertsProblem, layer: int) -> tuple[int, ...]:
    loads = problem.loads[layer]
    if problem.policy is Policy.GLOBAL or problem.nodes == 1:
        return _pool(tuple(loads), tuple(range(len(loads))), problem.slots, problem.gpus)
    totals = np.array(loads).reshape(problem.groups, problem.group_size).sum(axis=1)
    choices = {_groups_of_nodes(problem, layer), _balanced_groups(totals, problem.nodes)}
    placements = [_in_nodes(problem, loads, partition) for partition in sorted(choices)]
    return min(placements, key=lambda slots: max(gpu_loads(problem, layer, slots)))


def _in_nodes(
    problem: ExpertsProblem, loads: tuple[float, ...], partition: tuple[tuple[int, ...], ...]
) -> tuple[int, ...]:
    """Place every node's groups on its GPUs, node by node."""
    size = problem.group_size
    placed: tuple[int, ...] = ()
    for groups in partition:
        members = tuple(expert for group in groups for expert in range(group * size, (group + 1) * size))
        inside = tuple(loads[expert] for expert in members)
        placed += _pool(inside, members, problem.slots // problem.nodes, problem.gpus // problem.nodes)
    return placed


def _pool(loads: tuple[float, ...], names: tuple[int, ...], slots: int, gpus: int) -> tuple[int, ...]:
    """Place one pool; `names` maps positions in `loads` to experts."""
    if enumerable(len(loads), slots, gpus):
        _, pairs = pair_exactly(tuple(Fraction(load) for load in loads), slots, gpus)
        return tuple(names[position] for pair in pairs for position in pair)
    weights = np.array(loads, dtype=np.float64)
    bound = float(pool_bound(tuple(Fraction(load) for load in loads), slots, gpus).value)
    placed = improve(weights, greedy(weights, slots, gpus), bound)
    return tuple(names[position] for position in placed.ravel().tolist())


def _groups_of_nodes(problem: ExpertsProblem, layer: int) -> tuple[tuple[int, ...], ...]:
    """Give groups to nodes: the partition of least estimated peak among all when few, else greedily, then exchanged."""
    size, per_node = problem.group_size, problem.groups // problem.nodes
    loads = np.array(problem.loads[layer])
    cache: dict[tuple[int, ...], float] = {}

    def estimate(groups: tuple[int, ...]) -> float:
        if groups not in cache:
            inside = np.concatenate([loads[group * size : (group + 1) * size] for group in groups])
            gpus, slots = problem.gpus // problem.nodes, problem.slots // problem.nodes
            exact = tuple(Fraction(load) for load in inside.tolist())
            bound = pool_bound(exact, slots, gpus).value
            cache[groups] = (
                float(bound)
                if enumerable(len(inside), slots, gpus)
                else max(float(bound), peak(inside, greedy(inside, slots, gpus)) * 0.5 + float(bound) * 0.5)
            )
        return cache[groups]

    best: tuple[float, tuple[tuple[int, ...], ...]] | None = None
    for position, partition in enumerate(partitions_of(tuple(range(problem.groups)), per_node)):
        if position >= PARTITIONS:
            break
        worst = max(estimate(groups) for groups in partition)
        if best is None or worst < best[0]:
            best = worst, partition
    balanced = _balanced_groups(loads.reshape(problem.groups, size).sum(axis=1), problem.nodes)
    if best is None or max(estimate(groups) for groups in balanced) < best[0]:
        return balanced
    return best[1]


def _balanced_groups(totals: np.ndarray[tuple[int], np.dtype[np.float64]], nodes: int) -> tuple[tuple[int, ...], ...]:
    """Heaviest group first onto the least loaded node with room: EPLB's first step."""
    chosen: list[list[int]] = [[] for _ in range(nodes)]
    weight = [0.0] * nodes
    for group in np.argsort(-totals, kind="stable").tolist():
        node = min((n for n in range(nodes) if len(chosen[n]) < len(totals) // nodes), key=lambda n: weight[n])
        chosen[node].append(group)
        weight[node] += float(totals[group])
    return tuple(tuple(sorted(groups)) for groups in chosen)
