"""Bounds on the highest GPU load that need no solver: the mean, replica counts, and enumerations of small cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import combinations
from math import ceil, comb, factorial

from treadle.ir.certificate import ProofKind
from treadle.ir.layout.experts import ExpertsProblem, Policy

PARTITIONS = 20_000
"""Group partitions a bound may enumerate."""
COUNT_VECTORS = 10_000
"""Vectors of replica counts an exact answer may enumerate."""


@dataclass(frozen=True, slots=True)
class LoadBound:
    """A lower bound on the highest GPU load, and what kind of argument it is."""

    value: Fraction
    proof: ProofKind
    argument: str


def bound_of(problem: ExpertsProblem, layer: int) -> LoadBound:
    """Return the best bound of one layer; deterministic, so a checker gets the same."""
    loads = tuple(Fraction(load) for load in problem.loads[layer])
    if problem.policy is Policy.GLOBAL or problem.nodes == 1:
        return pool_bound(loads, problem.slots, problem.gpus)
    partitions = _partition_count(problem.groups, problem.nodes)
    if partitions > PARTITIONS:
        return pool_bound(loads, problem.slots, problem.gpus)
    _, best = best_partition(problem, layer)
    return LoadBound(best, ProofKind.ENUMERATION, f"{partitions} ways to give groups to nodes")


def best_partition(problem: ExpertsProblem, layer: int) -> tuple[tuple[tuple[int, ...], ...], Fraction]:
    """Return the partition of groups over nodes with the least bound, and that bound."""
    loads = tuple(Fraction(load) for load in problem.loads[layer])
    size, nodes = problem.group_size, problem.nodes

    @cache
    def node_bound(groups: tuple[int, ...]) -> Fraction:
        inside = tuple(load for group in groups for load in loads[group * size : (group + 1) * size])
        return pool_bound(inside, problem.slots // nodes, problem.gpus // nodes).value

    best: tuple[tuple[tuple[int, ...], ...], Fraction] | None = None
    for partition in partitions_of(tuple(range(problem.groups)), problem.groups // nodes):
        worst = max(node_bound(groups) for groups in partition)
        if best is None or worst < best[1]:
            best = partition, worst
    assert best is not None
    return best


def partitions_of(items: tuple[int, ...], size: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield every way to cut `items` into unordered sets of `size`."""
    if not items:
        yield ()
        return
    head, tail = items[0], items[1:]
    for mates in combinations(tail, size - 1):
        rest = tuple(item for item in tail if item not in mates)
        for others in partitions_of(rest, size):
            yield ((head, *mates), *others)


def _partition_count(groups: int, nodes: int) -> int:
    size = groups // nodes
    return factorial(groups) // (int(factorial(size) ** nodes) * factorial(nodes))


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
    """Return the smallest M with sum(ceil(w / M)) <= slots: no replica assignment has all replicas below it."""
    candidates = sorted({load / count for load in loads if load for count in range(1, slots - len(loads) + 2)})
    low, high = 0, len(candidates) - 1
    if high < 0:
        return Fraction(0)
    while low < high:
        middle = (low + high) // 2
        if sum(max(1, ceil(load / candidates[middle])) for load in loads) <= slots:
            high = middle
        else:
            low = middle + 1
    return candidates[low]


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
