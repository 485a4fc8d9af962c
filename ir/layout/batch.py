"""Order and grouping of offline requests that share prefixes.

A request is the path of its prefix blocks in a trie. In a given order, the blocks of a request that also begin the one
before it are still cached; the others are computed. A grouping gives each request at most one shared prefix: engines
with one level of sharing compute it once per group.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """Prefix blocks per request, the tokens of a block, and how many blocks the cache holds (0: no limit)."""

    requests: tuple[tuple[int, ...], ...]
    block_tokens: int = 512
    cache_blocks: int = 0

    def __post_init__(self) -> None:
        if not self.requests:
            raise InvalidValue(message="there are no requests")
        if self.block_tokens < 1 or self.cache_blocks < 0:
            raise InvalidValue(message=f"blocks of {self.block_tokens} tokens, a cache of {self.cache_blocks}")


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The problem, the order of requests, and per request the blocks of its shared prefix (0: none)."""

    problem: BatchProblem
    order: tuple[int, ...]
    shared_blocks: tuple[int, ...]


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many leading blocks two requests share."""
    shared = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        shared += 1
    return shared


def computed_blocks(problem: BatchProblem, order: Sequence[int]) -> int:
    """Return the blocks computed in this order, when only the path of the last request is kept."""
    total = 0
    before: tuple[int, ...] = ()
    for request in order:
        path = problem.requests[request]
        total += len(path) - common_prefix(path, before)
        before = path
    return total


def distinct_blocks(problem: BatchProblem) -> int:
    """Return the blocks that any order computes at least once: nodes of the trie."""
    paths = sorted(problem.requests)
    return computed_blocks(problem, ()) + sum(
        len(path) - common_prefix(path, before) for path, before in zip(paths, ((), *paths), strict=False)
    )


def grouped_savings(plan: BatchPlan) -> int:
    """Return the blocks not computed twice thanks to the groups: (members - 1) times the prefix, per group."""
    members: dict[tuple[int, ...], int] = {}
    for path, shared in zip(plan.problem.requests, plan.shared_blocks, strict=True):
        if shared:
            prefix = path[:shared]
            members[prefix] = members.get(prefix, 0) + 1
    return sum((count - 1) * len(prefix) for prefix, count in members.items())


def best_grouping(problem: BatchProblem) -> tuple[int, tuple[int, ...]]:
    """Return the most blocks a grouping can save, and the shared blocks per request.

    Recursion over the trie (of branching nodes only): `gain(v, d)` is the best for the requests below `v` when the
    nearest shared prefix above has `d` blocks. Either nothing is shared at `v`, or its own prefix is, which costs its
    blocks once and gives them to every request below that shares nothing deeper. BatchLLM (arXiv 2412.03594) states the
    one-level problem; this recursion is exact.
    """
    order = sorted(range(len(problem.requests)), key=lambda index: problem.requests[index])
    paths = [problem.requests[index] for index in order]
    shared = [0] * len(paths)
    lengths = [common_prefix(one, other) for one, other in itertools.pairwise(paths)]
    memo: dict[tuple[int, int, int], tuple[int, bool]] = {}
    children: dict[tuple[int, int], tuple[int, list[tuple[int, int]]]] = {}

    def split(begin: int, end: int) -> tuple[int, list[tuple[int, int]]]:
        """Depth of the node that covers the sorted requests [begin, end), and the ranges of its children."""
        if (begin, end) not in children:
            depth = min(lengths[begin : end - 1], default=len(paths[begin]))
            cuts = [index + 1 for index in range(begin, end - 1) if lengths[index] == depth]
            edges = [begin, *cuts, end]
            children[begin, end] = depth, list(itertools.pairwise(edges))
        return children[begin, end]

    work: list[tuple[int, int, int, bool]] = [(0, len(paths), 0, False)]
    while work:
        begin, end, above, ready = work.pop()
        if (begin, end, above) in memo:
            continue
        depth, parts = split(begin, end)
        if end - begin == 1 or len(parts) == 1:
            memo[begin, end, above] = ((end - begin) * above, False)
            if end - begin > 1 and (end - begin) * depth - depth > (end - begin) * above:
                memo[begin, end, above] = ((end - begin) * depth - depth, True)
            continue
        needed = [(*part, level) for part in parts for level in {above, depth}]
        if not ready and (missing := [one for one in needed if one not in memo]):
            work.append((begin, end, above, True))
            work += [(*one, False) for one in missing]
            continue
        plain = sum(memo[(*part, above)][0] for part in parts)
        own = sum(memo[(*part, depth)][0] for part in parts) - depth
        memo[begin, end, above] = (own, True) if own > plain else (plain, False)
    trail = [(0, len(paths), 0)]
    while trail:
        begin, end, above = trail.pop()
        depth, parts = split(begin, end)
        level = depth if memo[begin, end, above][1] else above
        if end - begin == 1 or len(parts) == 1:
            shared[begin:end] = [level] * (end - begin)
            continue
        trail += [(*part, level) for part in parts]
    by_request = [0] * len(paths)
    for position, index in enumerate(order):
        by_request[index] = shared[position]
    return memo[0, len(paths), 0][0], tuple(by_request)


def check(plan: BatchPlan) -> list[Finding]:
    """Return every reason why the plan is illegal. Codes: TRD450 order or groups, TRD451 a path beyond the cache."""
    problem = plan.problem
    if sorted(plan.order) != list(range(len(problem.requests))):
        return [Finding("TRD450", "order", "every request once", str(len(problem.requests)), str(len(plan.order)))]
    if len(plan.shared_blocks) != len(problem.requests):
        return [Finding("TRD450", "groups", "one prefix length per request")]
    findings: list[Finding] = []
    for index, (path, shared) in enumerate(zip(problem.requests, plan.shared_blocks, strict=True)):
        if not 0 <= shared <= len(path):
            findings.append(Finding("TRD450", f"request {index}", "prefix", f"0 to {len(path)}", str(shared)))
        if problem.cache_blocks and len(path) > problem.cache_blocks:
            findings.append(
                Finding(
                    "TRD451", f"request {index}", "longer than the cache", str(problem.cache_blocks), str(len(path))
                )
            )
    return findings
