"""Bounds on the highest GPU load that need no solver: the mean, replica counts, and enumerations of small cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from heapq import heapify, heapreplace
from itertools import combinations
from math import comb

from treadle.ir.certificate import ProofKind
from treadle.ir.layout.expert_skeletons import Answer, skeleton
from treadle.ir.layout.experts import ExpertsProblem, Policy

GROUP_SETS = 2000
"""Sets of groups for one node that bounds may go through."""
COUNT_VECTORS = 10_000
"""Vectors of replica counts an exact answer may enumerate."""


@dataclass(frozen=True, slots=True)
class LoadBound:
    """A lower bound on the highest GPU load, and what kind of argument it is."""

    value: Fraction
    proof: ProofKind
    argument: str


def bound_of(problem: ExpertsProblem, layer: int) -> LoadBound:
    """Return the best bound of one layer that is a formula; deterministic, so a checker gets the same."""
    if not by_groups(problem):
        return max((pool_bound(*pool) for pool in _pools(problem, layer)), key=lambda bound: bound.value)
    _, best = least_worst_partition(problem, lambda groups: node_bound(problem, layer, groups))
    return LoadBound(best, ProofKind.ENUMERATION, "ways to give groups to nodes")


def refuted(problem: ExpertsProblem, layer: int, peak: Fraction) -> bool:
    """Whether it is proven that no placement of a layer has a peak below `peak`; see `expert_skeletons`."""
    if not by_groups(problem):
        return any(_pool_refuted(*pool, peak) for pool in _pools(problem, layer))
    nodes = problem.nodes

    def hopeless(groups: tuple[int, ...]) -> Fraction:
        loads = loads_of(problem, layer, groups)
        return Fraction(_pool_refuted(loads, problem.slots // nodes, problem.gpus // nodes, peak))

    return least_worst_partition(problem, hopeless)[1] == 1


def _pools(problem: ExpertsProblem, layer: int) -> list[tuple[tuple[Fraction, ...], int, int]]:
    """Return pools whose bounds hold for the layer: the whole, and where groups stay whole a node of each group.

    Such a node holds the group and, at least, the lightest experts of all others.
    """
    whole = loads_of(problem, layer, range(problem.groups))
    found = [(whole, problem.slots, problem.gpus)]
    if problem.policy is Policy.GLOBAL or problem.nodes == 1:
        return found
    size, nodes = problem.group_size, problem.nodes
    for group in range(problem.groups):
        others = sorted(whole[: group * size] + whole[(group + 1) * size :])
        least = tuple(others[: problem.experts // nodes - size])
        found.append((loads_of(problem, layer, (group,)) + least, problem.slots // nodes, problem.gpus // nodes))
    return found


def _pool_refuted(loads: tuple[Fraction, ...], slots: int, gpus: int, peak: Fraction) -> bool:
    if pool_bound(loads, slots, gpus).value >= peak:
        return True
    return skeleton(loads, slots, gpus, peak).answer is Answer.IMPOSSIBLE


def by_groups(problem: ExpertsProblem) -> bool:
    """Whether bounds look at nodes one by one: hierarchical, and few enough sets of groups for a node."""
    if problem.policy is Policy.GLOBAL or problem.nodes == 1:
        return False
    return comb(problem.groups, problem.groups // problem.nodes) <= GROUP_SETS


def loads_of(problem: ExpertsProblem, layer: int, groups: Iterable[int]) -> tuple[Fraction, ...]:
    """Return the loads of the experts of some groups, exactly."""
    size, loads = problem.group_size, problem.loads[layer]
    return tuple(Fraction(load) for group in groups for load in loads[group * size : (group + 1) * size])


def node_bound(problem: ExpertsProblem, layer: int, groups: tuple[int, ...]) -> Fraction:
    """Return the bound of a node that holds some groups."""
    loads = loads_of(problem, layer, groups)
    return pool_bound(loads, problem.slots // problem.nodes, problem.gpus // problem.nodes).value


Partition = tuple[tuple[int, ...], ...]
"""Groups of each node."""


def least_worst_partition(
    problem: ExpertsProblem, value: Callable[[tuple[int, ...]], Fraction]
) -> tuple[Partition, Fraction]:
    """Return the partition of groups over nodes whose largest value is least, and that value."""
    size = problem.groups // problem.nodes
    values = {groups: value(groups) for groups in combinations(range(problem.groups), size)}
    levels = sorted(set(values.values()))
    low, high = 0, len(levels) - 1
    best = _partition_within(problem.groups, values, levels[high])
    while low < high:
        middle = (low + high) // 2
        found = _partition_within(problem.groups, values, levels[middle])
        if found is None:
            low = middle + 1
        else:
            best, high = found, middle
    assert best is not None
    return best, levels[high]


def _partition_within(groups: int, values: dict[tuple[int, ...], Fraction], limit: Fraction) -> Partition | None:
    """Return a partition into sets of at most `limit`; None when there is none."""
    of_first: list[list[tuple[int, ...]]] = [[] for _ in range(groups)]
    for mates, value in values.items():
        if value <= limit:
            of_first[mates[0]].append(mates)
    failed: set[frozenset[int]] = set()

    def visit(left: frozenset[int]) -> Partition | None:
        if not left:
            return ()
        if left in failed:
            return None
        for mates in of_first[min(left)]:
            if left.issuperset(mates) and (rest := visit(left.difference(mates))) is not None:
                return (mates, *rest)
        failed.add(left)
        return None

    return visit(frozenset(range(groups)))


@cache
def pool_bound(loads: tuple[Fraction, ...], slots: int, gpus: int) -> LoadBound:
    """Bound a pool without groups: exact by enumeration when small, else the larger of mean and count bound."""
    if enumerable(len(loads), slots, gpus):
        value, _ = pair_exactly(loads, slots, gpus)
        return LoadBound(value, ProofKind.ENUMERATION, "all replica counts, replicas paired largest with smallest")
    mean = sum(loads, Fraction(0)) / gpus
    count = least_replica_load(loads, slots)
    if count > mean:
        return LoadBound(count, ProofKind.COUNT, "a lower peak needs more replicas than slots")
    return LoadBound(mean, ProofKind.CAPACITY, "mean load of a GPU")


def least_replica_load(loads: Sequence[Fraction], slots: int) -> Fraction:
    """Return the smallest M with sum(ceil(w / M)) <= slots: no replica assignment has all replicas below it.

    One more replica always goes to the expert whose replicas are largest: what is left largest is least (exchange).
    """
    heap = [(-load, load, 1) for load in loads]
    heapify(heap)
    for _ in range(slots - len(loads)):
        _, load, count = heap[0]
        heapreplace(heap, (-load / (count + 1), load, count + 1))
    return -heap[0][0]


def enumerable(experts: int, slots: int, gpus: int) -> bool:
    """Whether the exact enumeration applies: at most two slots per GPU, few vectors of counts."""
    return slots <= 2 * gpus and comb(slots - 1, experts - 1) <= COUNT_VECTORS


def pair_exactly(loads: tuple[Fraction, ...], slots: int, gpus: int) -> tuple[Fraction, tuple[tuple[int, ...], ...]]:
    """Return the least highest load, and the experts on each GPU, by enumeration of replica counts.

    With two slots per GPU, pairing the largest replica with the smallest minimises the highest pair sum (exchange
    argument). Branches whose largest replica already reaches the best value are cut.
    """
    per_gpu = slots // gpus
    best: list[tuple[Fraction, tuple[tuple[int, ...], ...]]] = []
    counts = [1] * len(loads)

    def visit(expert: int, spare: int) -> None:
        if expert == len(loads) - 1:
            counts[expert] = 1 + spare
            _try_counts(loads, counts, per_gpu, best)
            return
        for extra in range(spare + 1):
            counts[expert] = 1 + extra
            if best and loads[expert] / counts[expert] >= best[0][0]:
                continue
            visit(expert + 1, spare - extra)

    visit(0, slots - len(loads))
    return best[0]


def _try_counts(
    loads: tuple[Fraction, ...],
    counts: list[int],
    per_gpu: int,
    best: list[tuple[Fraction, tuple[tuple[int, ...], ...]]],
) -> None:
    replicas = sorted(
        (load / count, expert)
        for expert, (load, count) in enumerate(zip(loads, counts, strict=True))
        for _ in range(count)
    )
    half = len(replicas) // 2
    pairs = (
        [(one,) for one in replicas]
        if per_gpu == 1
        else list(zip(replicas[:half], replicas[: half - 1 : -1], strict=True))
    )
    peak = max(sum((share for share, _ in pair), Fraction(0)) for pair in pairs)
    if not best or peak < best[0][0]:
        best[:] = [(peak, tuple(tuple(expert for _, expert in pair) for pair in pairs))]
