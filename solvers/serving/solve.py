"""Engine pools: the recursion where it is exact, else branch and bound with a tree as certificate."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.codec import encode
from treadle.ir.serving.errors import RateUnmet
from treadle.ir.serving.pool_program import program_of, routing_of
from treadle.ir.serving.pools import Objective, Pools, PoolsPlan, PoolsProblem, Role
from treadle.ir.serving.recursion import applies, best_pools
from treadle.ir.serving.tree import Tree, tree_bound
from treadle.ir.serving.units import UNITS
from treadle.solvers.serving.branch import maximise

CACHE_FULL = 0.95
"""Share of an engine's KV cache from which it is named as what binds."""

TOLERANCE = 1e-9
"""Relative distance within which value and bound count as equal: rates are rounded to twelve digits."""


def solve_pools(problem: PoolsProblem, nodes: int = 3000) -> tuple[PoolsPlan, Certificate]:
    """Return the best pools and their certificate; raises RateUnmet when no pools sustain the asked rate."""
    if applies(problem) and problem.objective in (Objective.MOST_REQUESTS, Objective.FEWEST_GPUS):
        return _recursive(problem)
    program = program_of(problem)
    solved = maximise(program, nodes=nodes)
    if solved.solution is None:
        raise _unmet(problem)
    counts = tuple(int(value) for value in solved.solution[: len(problem.engines)])
    routing = routing_of(problem, solved.solution)
    plan = PoolsPlan(problem, Pools(counts, idle_off(counts, routing)))
    return plan, certificate_of(plan, solved.tree)


def _recursive(problem: PoolsProblem) -> tuple[PoolsPlan, Certificate]:
    frontier = best_pools(problem)
    if problem.objective is Objective.MOST_REQUESTS:
        rate, counts = frontier[-1]
    else:
        wanted = Fraction(str(problem.rate_per_s))
        enough = [pair for pair in frontier if pair[0] >= wanted]
        if not enough:
            raise _unmet(problem)
        rate, counts = wanted, enough[0][1]
    plan = PoolsPlan(problem, Pools(counts, route(problem, counts, rate)))
    return plan, certificate_of(plan, None)


def route(problem: PoolsProblem, counts: tuple[int, ...], rate: Fraction) -> tuple[tuple[float, ...], ...]:
    """Share `rate` requests/s of the only class among engines in proportion to what they sustain."""
    able = [
        problem.discount(engine.role) * count / Fraction(f"{engine.seconds[0]:.9g}")
        for engine, count in zip(problem.engines, counts, strict=True)
    ]

    def total(role: Role, pool: str) -> Fraction:
        return sum(
            (a for a, e in zip(able, problem.engines, strict=True) if e.role is role and e.pool == pool), Fraction(0)
        )

    pools = sorted({engine.pool for engine in problem.engines if engine.role is not Role.AGGREGATED})
    caps = {pool: min(total(Role.PREFILL, pool), total(Role.DECODE, pool)) for pool in pools}
    alone = sum((a for a, e in zip(able, problem.engines, strict=True) if e.role is Role.AGGREGATED), Fraction(0))
    everything = sum(caps.values(), alone)
    share = min(Fraction(1), rate / everything) if everything else Fraction(0)
    routing: list[tuple[float, ...]] = []
    for one, engine in zip(able, problem.engines, strict=True):
        if engine.role is Role.AGGREGATED:
            routing.append((float(one * share),))
            continue
        whole = total(engine.role, engine.pool)
        routing.append((float(caps[engine.pool] * share * one / whole) if whole else 0.0,))
    return tuple(routing)


def certificate_of(plan: PoolsPlan, tree: Tree | None) -> Certificate:
    """State the objective against the recursion or the tree."""
    problem = plan.problem
    maximising = problem.objective is Objective.MOST_REQUESTS
    value = float(plan.rate_per_s if maximising else plan.price)
    if tree is None:
        frontier = best_pools(problem)
        wanted = Fraction(str(problem.rate_per_s))
        least = next((g for g, (rate, _) in enumerate(frontier) if rate >= wanted), len(frontier))
        bound, proof, evidence = float(frontier[-1][0]) if maximising else float(least), ProofKind.ENUMERATION, {}
        evidence = {"method": "recursion"}
    else:
        proven = tree_bound(program_of(problem), tree)
        bound = float(proven or 0) * (1 if maximising else -1)
        proof = ProofKind.LP_DUAL if tree.leaves == 1 else ProofKind.ENUMERATION
        evidence = {"method": "tree", "tree": encode(tree)}
    if abs(value - bound) <= TOLERANCE * max(1.0, abs(value)) or (bound < value) == maximising:
        bound = value
    name, unit = UNITS[problem.objective]
    status = Status.OPTIMAL if bound == value else Status.FEASIBLE
    level = Level(name, unit, value, bound, status, proof, evidence, maximize=maximising)
    return Certificate("pools", "engine times and efficiencies of the candidates", (level,))


def idle_off(counts: tuple[int, ...], routing: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """Clear rates of candidates without engines: rounding dust of the linear solver."""
    return tuple(rates if count else tuple(0.0 for _ in rates) for count, rates in zip(counts, routing, strict=True))


def _unmet(problem: PoolsProblem) -> RateUnmet:
    """Say what the GPUs sustain at most."""
    relaxed = replace(problem, objective=Objective.MOST_REQUESTS, rate_per_s=0.0)
    plan, _ = solve_pools(relaxed)
    found, gpus = float(plan.rate_per_s), sum(pool.total for pool in problem.gpus)
    need = int(gpus * problem.rate_per_s / found) + 1 if found else 0
    return RateUnmet(
        asked=f"{problem.rate_per_s:g}",
        gpus=gpus,
        found=f"{found:.4g}",
        need=need or "more, of another type",
        because=_cache_binds(plan),
    )


def _cache_binds(plan: PoolsPlan) -> str:
    """Say that the KV cache keeps batches small, where it does; empty otherwise."""
    for engine, count in zip(plan.problem.engines, plan.pools.counts, strict=True):
        if count and engine.kv_tokens and engine.kv_tokens_needed > CACHE_FULL * engine.kv_tokens:
            return (
                f"; the KV cache binds: {engine.batch} sequences of an engine `{engine.name}` need "
                f"{engine.kv_tokens_needed:,} of its {engine.kv_tokens:,} tokens at P99 lengths"
            )
    return ""
