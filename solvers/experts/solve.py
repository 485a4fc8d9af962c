"""Expert placement: pools by themselves, groups onto nodes by what their pools reach, bounds beside."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.layout.expert_bounds import (
    LoadBound,
    Partition,
    bound_of,
    by_groups,
    least_worst_partition,
    loads_of,
    node_bound,
    refuted,
)
from treadle.ir.layout.expert_traffic import cross_traffic, traffic_bound
from treadle.ir.layout.experts import ExpertsPlan, ExpertsProblem, Policy, gpu_loads
from treadle.solvers.experts.balance import exchange
from treadle.solvers.experts.pool import CLOSE, ROUNDS, Placed, place_pool
from treadle.solvers.experts.traffic import nearer

TRIES = 40
"""Partitions of groups over nodes whose pools are placed, at most."""


def solve_experts(problem: ExpertsProblem) -> tuple[ExpertsPlan, Certificate]:
    """Return a placement per layer with the least highest GPU load found, and the bound of each layer."""
    layers = [_solve_layer(problem, layer) for layer in range(len(problem.loads))]
    slots = [placed.slots for placed in layers]
    if problem.sources:
        slots = [_nearer_if_no_fuller(problem, layer, one) for layer, one in enumerate(slots)]
    plan = ExpertsPlan(problem, tuple(slots))
    return plan, certificate_of(plan, tuple(placed.bound for placed in layers))


def certificate_of(plan: ExpertsPlan, proven: tuple[Fraction, ...] = ()) -> Certificate:
    """State the highest GPU load of each layer against its bound.

    Args:
        plan: the placement.
        proven: a bound per layer that `expert_bounds.refuted` confirms; without them, the bounds that are formulas.
    """
    levels: list[Level] = []
    for layer, slots in enumerate(plan.slots):
        value = max(gpu_loads(plan.problem, layer, slots))
        bound = _best_bound(plan.problem, layer, proven[layer] if proven else Fraction(0), value)
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
        if plan.problem.sources:
            levels.append(_traffic_level(plan, layer))
    return Certificate("experts", "expert loads as given, split evenly over replicas", tuple(levels))


def _nearer_if_no_fuller(problem: ExpertsProblem, layer: int, slots: tuple[int, ...]) -> tuple[int, ...]:
    """Rounding in the exchanges must not cost balance."""
    changed = nearer(problem, layer, slots)
    return changed if max(gpu_loads(problem, layer, changed)) <= max(gpu_loads(problem, layer, slots)) else slots


def _traffic_level(plan: ExpertsPlan, layer: int) -> Level:
    value = float(cross_traffic(plan.problem, layer, plan.slots[layer]))
    bound = min(float(traffic_bound(plan.problem, layer)), value)
    status = Status.OPTIMAL if bound == value else Status.FEASIBLE
    argument = {"argument": "all replicas of every expert on its best node"}
    return Level(f"layer {layer} traffic", "tokens", value, bound, status, ProofKind.COUNT, argument)


def _best_bound(problem: ExpertsProblem, layer: int, proven: Fraction, value: Fraction) -> LoadBound:
    formula = bound_of(problem, layer)
    claim = Fraction(float(min(proven, value)))
    if claim <= formula.value or not refuted(problem, layer, claim):
        return formula
    return LoadBound(claim, ProofKind.ENUMERATION, "packings of the heavy experts, the others as a fluid")


def _solve_layer(problem: ExpertsProblem, layer: int) -> Placed:
    whole = tuple(range(problem.groups))
    if problem.policy is Policy.GLOBAL or problem.nodes == 1:
        return place_pool(loads_of(problem, layer, whole), problem.slots, problem.gpus)
    pools: dict[tuple[int, ...], Placed] = {}
    balanced = _balanced_groups(problem, layer)
    best = _in_nodes(problem, layer, balanced, pools)
    if not by_groups(problem):
        evened = _evened_groups(problem, layer, balanced)
        best = min(best, _in_nodes(problem, layer, evened, pools), key=lambda placed: placed.peak)
        return Placed(best.slots, best.peak, _searched_bound(problem, layer, best.peak))
    bounds: dict[tuple[int, ...], Fraction] = {}

    def optimistic(groups: tuple[int, ...]) -> Fraction:
        if groups in pools:
            return pools[groups].peak
        if groups not in bounds:
            bounds[groups] = node_bound(problem, layer, groups)
        return bounds[groups]

    for _ in range(TRIES):
        partition, worst = least_worst_partition(problem, optimistic)
        if best.peak <= worst * (1 + CLOSE / 10):
            break
        best = min(best, _in_nodes(problem, layer, partition, pools), key=lambda placed: placed.peak)
    _, bound = least_worst_partition(problem, lambda groups: _lowest(groups, pools, optimistic))
    return Placed(best.slots, best.peak, bound)


def _searched_bound(problem: ExpertsProblem, layer: int, peak: Fraction) -> Fraction:
    """Return the highest peak, of some between the formula and a placement's, that is refuted."""
    low, high = bound_of(problem, layer).value, peak
    for _ in range(ROUNDS // 2):
        if high <= low * (1 + CLOSE):
            break
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(problem, layer, middle) else (low, middle)
    return low


def _evened_groups(problem: ExpertsProblem, layer: int, partition: Partition) -> Partition:
    """Exchange groups between nodes while that lowers the highest node load."""
    totals = np.array(problem.loads[layer]).reshape(problem.groups, problem.group_size).sum(axis=1)
    rows = exchange(totals, np.array(partition, np.int64))
    return tuple(tuple(sorted(row)) for row in rows.tolist())


def _lowest(
    groups: tuple[int, ...], pools: dict[tuple[int, ...], Placed], otherwise: Callable[[tuple[int, ...]], Fraction]
) -> Fraction:
    return pools[groups].bound if groups in pools else otherwise(groups)


def _in_nodes(
    problem: ExpertsProblem, layer: int, partition: Partition, pools: dict[tuple[int, ...], Placed]
) -> Placed:
    """Place every node's groups on its GPUs, node by node; pools that were placed before are taken from `pools`."""
    size = problem.group_size
    slots: tuple[int, ...] = ()
    for groups in partition:
        if groups not in pools:
            loads = loads_of(problem, layer, groups)
            pools[groups] = place_pool(loads, problem.slots // problem.nodes, problem.gpus // problem.nodes)
        members = [expert for group in groups for expert in range(group * size, (group + 1) * size)]
        slots += tuple(members[position] for position in pools[groups].slots)
    return Placed(slots, max(pools[groups].peak for groups in partition), Fraction(0))


def _balanced_groups(problem: ExpertsProblem, layer: int) -> Partition:
    """Heaviest group first onto the least loaded node with room: EPLB's first step."""
    totals = np.array(problem.loads[layer]).reshape(problem.groups, problem.group_size).sum(axis=1)
    chosen: list[list[int]] = [[] for _ in range(problem.nodes)]
    weight = [0.0] * problem.nodes
    for group in np.argsort(-totals, kind="stable").tolist():
        free = (n for n in range(problem.nodes) if len(chosen[n]) < problem.groups // problem.nodes)
        node = min(free, key=lambda n: weight[n])
        chosen[node].append(group)
        weight[node] += float(totals[group])
    return tuple(tuple(sorted(groups)) for groups in chosen)
