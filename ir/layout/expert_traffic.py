"""Tokens that leave their node for an expert: replicas take equal shares, wherever a token comes from.

Of `t` tokens of a node for an expert with `c` replicas, `r` of them on that node, `t (1 - r / c)` cross the network.
"""

from __future__ import annotations

from fractions import Fraction

from treadle.ir.layout.experts import ExpertsProblem


def cross_traffic(problem: ExpertsProblem, layer: int, slots: tuple[int, ...]) -> Fraction:
    """Return the tokens of a layer that leave their node, exactly."""
    per_node = problem.slots // problem.nodes
    counts = [0] * problem.experts
    for expert in slots:
        counts[expert] += 1
    stays = Fraction(0)
    for slot, expert in enumerate(slots):
        stays += Fraction(problem.sources[layer][slot // per_node][expert]) / counts[expert]
    return _all(problem, layer) - stays


def traffic_bound(problem: ExpertsProblem, layer: int) -> Fraction:
    """Return what leaves at least: all but what stays with every replica on the expert's best node."""
    best = (max(node[expert] for node in problem.sources[layer]) for expert in range(problem.experts))
    return _all(problem, layer) - sum((Fraction(tokens) for tokens in best), Fraction(0))


def _all(problem: ExpertsProblem, layer: int) -> Fraction:
    return sum((Fraction(tokens) for node in problem.sources[layer] for tokens in node), Fraction(0))
