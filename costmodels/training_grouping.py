"""Replay of a sequence grouping, and bounds that need no search.

Bounds: all work over all ranks, plus the fixed part of as many rounds as memory asks for; the longest sequence on the
group that is fastest for it; and `priced_us`, which counts ring time that attention cannot hide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from treadle.ir.plan import Prediction
from treadle.ir.training.grouping import GroupingBody, GroupingProblem


def ring_us(problem: GroupingProblem, size: int, tokens: float) -> float:
    """Return the time keys and values take round a ring of `size` ranks."""
    costs = problem.costs
    rate = costs.near_us if size <= problem.domain else costs.far_us
    return (size - 1) * (costs.step_us + tokens / size * rate)


def group_us(problem: GroupingProblem, size: int, lengths: Iterable[int]) -> float:
    """Return the time of one group with sequences of these lengths."""
    tokens = squares = 0
    for length in lengths:
        tokens += length
        squares += length * length
    return time_us(problem, size, tokens, squares)


def time_us(problem: GroupingProblem, size: int, tokens: float, squares: float) -> float:
    """Return the time of a group from the sums of its lengths and of their squares."""
    if not tokens:
        return 0.0
    costs = problem.costs
    attention = costs.quadratic_us * squares / size
    shown = max(0.0, ring_us(problem, size, tokens) - attention * (size - 1) / size) if size > 1 else 0.0
    return costs.fixed_us + costs.linear_us * tokens / size + attention + shown


def rounds_us(body: GroupingBody) -> tuple[float, ...]:
    """Return the time of every round: that of its slowest group."""
    problem = body.problem
    return tuple(
        max(
            (group_us(problem, group.size, (problem.lengths[item] for item in group.sequences)) for group in groups),
            default=0.0,
        )
        for groups in body.rounds
    )


def work_us(problem: GroupingProblem, length: int) -> float:
    """Return the work of a sequence in rank-microseconds, whatever its group."""
    return problem.costs.linear_us * length + problem.costs.quadratic_us * length * length


def fewest_rounds(problem: GroupingProblem) -> int:
    """Return the rounds that memory asks for."""
    return max(1, -(-sum(problem.lengths) // (problem.ranks * problem.tokens_per_rank)))


def alone_us(problem: GroupingProblem, length: int) -> float:
    """Return the least time of a sequence, on the best group that holds it."""
    sizes = (size for size in problem.sizes if length <= size * problem.tokens_per_rank)
    return min(group_us(problem, size, (length,)) for size in sizes)


def bounds_us(problem: GroupingProblem) -> dict[str, float]:
    """Return the bounds by name."""
    rounds, fixed = fewest_rounds(problem), problem.costs.fixed_us
    volume = sum(work_us(problem, length) for length in problem.lengths) / problem.ranks
    return {
        "volume": volume + rounds * fixed,
        "longest": alone_us(problem, max(problem.lengths)) + (rounds - 1) * fixed,
    }


def priced_us(problem: GroupingProblem, weights: Sequence[float]) -> float:
    """Return a bound from one weight per group size, each from 0 to the size itself; any such weights are valid.

    With sizes g, a group's ring time beyond attention is at least 0 and at least (g - 1) step + the sum of
    e(g, s) = (g - 1) / g (rate s - quadratic s^2 / g) over its sequences s, and counts g times. Relaxed: sequences may
    be spread over sizes, groups of a size pooled, and their number is a fraction. The Lagrangian of that linear program
    with weight a(g) on ring time and m(g) on memory is least where every sequence takes its cheapest size; the best
    m(g) makes another group of the size cost nothing: m(g) = (g fixed + a(g) (g - 1) step) / (g tokens_per_rank).
    """
    costs, room = problem.costs, problem.tokens_per_rank
    rows: list[tuple[int, float, float]] = []
    for size, weight in zip(problem.sizes, weights, strict=True):
        held = min(max(weight, 0.0), float(size))
        rate = costs.near_us if size <= problem.domain else costs.far_us
        share = held * (size - 1) / size
        per_token = (size * costs.fixed_us + held * (size - 1) * costs.step_us) / (size * room)
        rows.append((size * room, share * rate + per_token, share * costs.quadratic_us / size))
    total = 0.0
    for length, count in Counter(problem.lengths).items():
        least = min(linear * length - square * length * length for most, linear, square in rows if length <= most)
        total += count * (least + work_us(problem, length))
    return total / problem.ranks


def grouping_predictions(body: GroupingBody) -> tuple[Prediction, ...]:
    """Return the figures of a grouping."""
    problem, total = body.problem, sum(rounds_us(body))
    longest = max(problem.lengths)
    fixed = next(size for size in problem.sizes if longest <= size * problem.tokens_per_rank)
    busy = sum(
        group.size * group_us(problem, group.size, (problem.lengths[item] for item in group.sequences))
        for groups in body.rounds
        for group in groups
    )
    return (
        Prediction("batch_time", total / 1e6, "s"),
        Prediction("one_group_size", one_size_us(problem, fixed) / 1e6, "s"),
        Prediction("ranks_busy", busy / (total * problem.ranks), "1"),
        Prediction("rounds", float(len(body.rounds)), "1"),
    )


def one_size_us(problem: GroupingProblem, size: int) -> float:
    """Return the time when every group has the one size that holds the longest sequence, as without grouping.

    Sequences in their order join the group that is free first; memory makes a group start a new round of its own.
    """
    groups = max(1, problem.ranks // size)
    room, ends = size * problem.tokens_per_rank, [0.0] * groups
    held: list[list[int]] = [[] for _ in range(groups)]
    for length in problem.lengths:
        at = min(range(groups), key=lambda place: (ends[place], sum(held[place])))
        if sum(held[at]) + length > room:
            ends[at] += group_us(problem, size, held[at])
            held[at] = []
        held[at].append(length)
    return max(end + group_us(problem, size, rest) for end, rest in zip(ends, held, strict=True))
