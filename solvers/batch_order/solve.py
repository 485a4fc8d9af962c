"""Order of offline requests: a depth-first walk of the prefix trie, and the exact one-level grouping."""

from __future__ import annotations

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.layout.batch import (
    BatchPlan,
    BatchProblem,
    best_grouping,
    computed_blocks,
    distinct_blocks,
    grouped_savings,
)
from treadle.ir.layout.errors import DoesNotFit


def solve_batch(problem: BatchProblem) -> tuple[BatchPlan, Certificate]:
    """Return an order that computes every distinct block once, and the grouping that saves most.

    Sorting the paths is a depth-first walk of the trie: between two requests the shared part of the path stays cached,
    so no block is computed twice. Raises DoesNotFit when one request alone exceeds the cache.
    """
    longest = max(len(path) for path in problem.requests)
    if problem.cache_blocks and longest > problem.cache_blocks:
        raise DoesNotFit(need=longest, unit="blocks", where="for one request", capacity=problem.cache_blocks)
    order = tuple(sorted(range(len(problem.requests)), key=lambda index: (problem.requests[index], index)))
    _, shared = best_grouping(problem)
    plan = BatchPlan(problem, order, shared)
    return plan, certificate_of(plan)


def certificate_of(plan: BatchPlan) -> Certificate:
    """State computed blocks against distinct blocks, and grouped savings against the recursion."""
    value, bound = computed_blocks(plan.problem, plan.order), distinct_blocks(plan.problem)
    saved, most = grouped_savings(plan), best_grouping(plan.problem)[0]
    levels = (
        Level("computed blocks", "blocks", value, bound, _status(value, bound), ProofKind.COUNT),
        Level("grouped savings", "blocks", saved, most, _status(saved, most), ProofKind.ENUMERATION, maximize=True),
    )
    return Certificate("batch-order", "a cache that keeps the path of the last request", levels)


def _status(value: int, bound: int) -> Status:
    return Status.OPTIMAL if value == bound else Status.FEASIBLE
