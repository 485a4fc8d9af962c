"""Items on memory tiers: the program of `ir/layout/tiers.py`, proven by a branch-and-bound tree."""

from __future__ import annotations

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.codec import encode
from treadle.ir.layout.errors import DoesNotFit
from treadle.ir.layout.tiers import TiersPlan, TiersProblem, program_of
from treadle.ir.serving.tree import Tree, tree_bound
from treadle.solvers.serving.branch import maximise

TOLERANCE = 1e-9
"""Relative distance within which value and bound count as equal (both are rational, multipliers are rounded)."""


def solve_tiers(problem: TiersProblem, nodes: int = 4000) -> tuple[TiersPlan, Certificate]:
    """Return the placement of least reading time per step; raises DoesNotFit when nothing fits."""
    program = program_of(problem)
    solved = maximise(program, nodes=nodes)
    if solved.solution is None:
        raise _misfit(problem)
    chosen = [choice for choice, on in zip(problem.choices(), solved.solution, strict=True) if on]
    plan = TiersPlan(problem, tuple(o for _, o, _ in chosen), tuple(t for _, _, t in chosen))
    return plan, certificate_of(plan, solved.tree)


def _misfit(problem: TiersProblem) -> DoesNotFit:
    """Say what does not fit: the loss, the bytes, or both together."""
    loss = sum(min(option.loss for option in item.options) for item in problem.items)
    if loss > problem.loss_budget:
        where = "with the options of least loss"
        hint = f"raise the loss budget to at least {loss:g}"
        return DoesNotFit(need=f"{loss:g}", unit="of loss", where=where, capacity=f"{problem.loss_budget:g}", hint=hint)
    need = sum(min(option.size_bytes for option in item.options) for item in problem.items)
    capacity = sum(tier.capacity_bytes for tier in problem.tiers)
    if need > capacity:
        return DoesNotFit(need=need, unit="bytes", where="with the smallest options", capacity=capacity)
    where = f"(no choice within the loss of {problem.loss_budget:g} fits every item on a tier it may be on)"
    hint = "give the tiers more room, or allow more loss"
    return DoesNotFit(need=f"more than {need}", unit="bytes", where=where, capacity=capacity, hint=hint)


def certificate_of(plan: TiersPlan, tree: Tree) -> Certificate:
    """State the time per step against the tree's bound."""
    value = float(plan.step_time_s * 1_000_000)
    proven = tree_bound(program_of(plan.problem), tree)
    bound = 0.0 if proven is None else float(-proven)
    if value - bound <= TOLERANCE * max(1.0, value):
        bound = value
    proof = ProofKind.LP_DUAL if tree.leaves == 1 else ProofKind.ENUMERATION
    status = Status.OPTIMAL if bound == value else Status.FEASIBLE
    evidence = {"tree": encode(tree), "tolerance": TOLERANCE}
    level = Level("reading time", "us/step", value, bound, status, proof, evidence)
    return Certificate("tiers", "bytes over bandwidth plus latency per read", (level,))
