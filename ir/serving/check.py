"""What makes engine pools legal, and how engines fit into nodes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from treadle.ir.diagnostics import Finding
from treadle.ir.serving.pools import GpuPool, PoolsPlan, Role

TOLERANCE = Fraction(1, 10**8)
"""Relative excess of a rate that counts as rounding."""


def check(plan: PoolsPlan) -> list[Finding]:
    """Return every reason why the pools are illegal.

    Codes: TRD452 counts, TRD453 GPUs or nodes, TRD454 engine overload, TRD455 flow of a class, TRD459 KV memory.
    """
    problem, pools = plan.problem, plan.pools
    shapes = {len(pools.counts), len(pools.routing_per_s), len(problem.engines)}
    rows = {len(rates) for rates in pools.routing_per_s} | {len(problem.classes)}
    negative = any(count < 0 for count in pools.counts) or any(x < 0 for rates in pools.routing_per_s for x in rates)
    if len(shapes) != 1 or len(rows) != 1 or negative:
        return [Finding("TRD452", "pools", "a count and a rate per class for every candidate, none negative")]
    return [
        *_check_gpus(plan),
        *_check_budget(plan),
        *_check_load(plan),
        *_check_flow(plan),
        *_check_mix(plan),
        *_check_memory(plan),
    ]


def _check_gpus(plan: PoolsPlan) -> list[Finding]:
    findings: list[Finding] = []
    for pool in plan.problem.gpus:
        sizes = [
            engine.gpus
            for engine, count in zip(plan.problem.engines, plan.pools.counts, strict=True)
            for _ in range(count)
            if engine.gpu == pool.gpu
        ]
        if sum(sizes) > pool.total:
            findings.append(Finding("TRD453", pool.gpu, "too many GPUs", f"<= {pool.total}", str(sum(sizes))))
        elif plan.problem.within_nodes and place_engines(pool, sizes) is None:
            findings.append(Finding("TRD453", pool.gpu, "the engines do not fit into whole nodes"))
    return findings


def _check_budget(plan: PoolsPlan) -> list[Finding]:
    limit = Fraction(str(plan.problem.budget))
    pairs = zip(plan.problem.engines, plan.pools.counts, strict=True)
    goal = plan.problem.budget_in
    price = sum((plan.problem.price(engine, goal) * count for engine, count in pairs if count), Fraction(0))
    if not limit or price <= limit:
        return []
    return [Finding("TRD453", "budget", "the engines cost more", f"<= {float(limit)}", str(float(price)))]


def place_engines(pool: GpuPool, sizes: Sequence[int]) -> tuple[int, ...] | None:
    """Return the first node of each engine, largest first fit; None when one fits nowhere.

    Engines larger than a node take whole empty nodes. First fit decreasing is exact when sizes divide one another.
    """
    free = list(pool.nodes)
    homes = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size, largest = sizes[index], max(pool.nodes)
        if size > largest:
            empty = [n for n, room in enumerate(free) if room == largest][: -(-size // largest)]
            if size % largest or len(empty) * largest < size:
                return None
            for node in empty:
                free[node] = 0
            homes[index] = empty[0]
            continue
        fitting = [node for node, room in enumerate(free) if room >= size]
        if not fitting:
            return None
        homes[index] = min(fitting, key=lambda node: (free[node], node))
        free[homes[index]] -= size
    return tuple(homes)


def _check_load(plan: PoolsPlan) -> list[Finding]:
    findings: list[Finding] = []
    triples = zip(plan.problem.engines, plan.pools.counts, plan.pools.routing_per_s, strict=True)
    for engine, count, rates in triples:
        if not any(rates):
            continue
        busy = sum((Fraction(t) * Fraction(x) for t, x in zip(engine.seconds, rates, strict=True)), Fraction(0))
        room = plan.problem.discount(engine.role) * count
        if busy > room * (1 + TOLERANCE) + TOLERANCE * (count > 0):
            findings.append(
                Finding("TRD454", engine.name, "busier than its engines", f"<= {float(room)}", str(float(busy)))
            )
    return findings


def _check_flow(plan: PoolsPlan) -> list[Finding]:
    problem = plan.problem
    findings: list[Finding] = []
    total = max(plan.rate_per_s, Fraction(problem.rate_per_s))
    for position, one in enumerate(problem.classes):
        served = Fraction(0)
        balance: dict[str, Fraction] = {}
        for engine, rates in zip(problem.engines, plan.pools.routing_per_s, strict=True):
            if not rates[position]:
                continue
            rate = Fraction(rates[position])
            served += rate if engine.role is not Role.PREFILL else 0
            if engine.role is not Role.AGGREGATED:
                sign = 1 if engine.role is Role.PREFILL else -1
                balance[engine.pool] = balance.get(engine.pool, Fraction(0)) + sign * rate
        for pool, difference in balance.items():
            if abs(difference) > TOLERANCE * max(Fraction(1), total):
                where = f"class {one.name}, pool {pool or '(only)'}"
                findings.append(
                    Finding("TRD455", where, "prefill and decode rates differ", "0", str(float(difference)))
                )
        wanted = Fraction(one.share) * total
        if served < wanted * (1 - TOLERANCE) - TOLERANCE:
            findings.append(
                Finding(
                    "TRD455", f"class {one.name}", "served less than its share", str(float(wanted)), str(float(served))
                )
            )
    return findings


def _check_mix(plan: PoolsPlan) -> list[Finding]:
    """Engines take only their classes; where the plan says so, in natural proportion."""
    problem = plan.problem
    findings: list[Finding] = []
    for engine, rates in zip(problem.engines, plan.pools.routing_per_s, strict=True):
        total = sum(rates)
        for position, rate in enumerate(rates if total else ()):
            expected = total * float(problem.part(engine, position))
            wrong = rate and not engine.takes(position)
            if wrong or (problem.natural_mix and abs(rate - expected) > float(TOLERANCE) * max(1.0, total)):
                where = f"{engine.name}, class {problem.classes[position].name}"
                findings.append(Finding("TRD455", where, "another mix than it takes", str(expected), str(rate)))
    return findings


def _check_memory(plan: PoolsPlan) -> list[Finding]:
    return [
        Finding(
            "TRD459",
            engine.name,
            "KV memory does not hold the batch at P99 lengths",
            f"<= {engine.kv_tokens} tokens",
            str(engine.kv_tokens_needed),
        )
        for engine, count in zip(plan.problem.engines, plan.pools.counts, strict=True)
        if count and engine.kv_tokens_needed > engine.kv_tokens
    ]
