"""What binds a serving plan: how much of each limit every chosen engine uses."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.serving.plan import ServingPlan
from treadle.ir.serving.pools import Engine, Role
from treadle.ir.workload import Metric


@dataclass(frozen=True, slots=True)
class Binding:
    """One limit of an engine: what it is, what is used of it, in words, and the share."""

    engine: str
    limit: str
    used: str
    share: float


def bindings(plan: ServingPlan) -> tuple[Binding, ...]:
    """Return the limits of all chosen engines and of the GPUs, the tightest of each engine first."""
    found: list[Binding] = []
    triples = zip(plan.pools.problem.engines, plan.pools.pools.counts, plan.pools.pools.routing_per_s, strict=True)
    for engine, count, rates in triples:
        if count:
            mine = [*_latencies(plan, engine), *_cache(engine), _load(plan, engine, count, rates)]
            found += sorted(mine, key=lambda one: -one.share)
    for pool in plan.pools.problem.gpus:
        used = sum(
            engine.gpus * count
            for engine, count in zip(plan.pools.problem.engines, plan.pools.pools.counts, strict=True)
            if engine.gpu == pool.gpu
        )
        found.append(Binding(f"all of {pool.gpu}", "GPUs", f"{used} of {pool.total}", used / pool.total))
    return tuple(found)


def _latencies(plan: ServingPlan, engine: Engine) -> list[Binding]:
    levels = next(
        (one.levels for one in plan.streams if one.classes == (engine.serves or one.classes) and engine.serves),
        plan.levels,
    )
    margins = {Metric.TTFT: plan.policies.ttft_margin, Metric.TPOT: plan.policies.tpot_margin}
    found: list[Binding] = []
    for level in levels:
        time = {Metric.TTFT: engine.ttft_s, Metric.TPOT: engine.tpot_s}.get(level.metric, 0.0)
        if time:
            limit = level.limit_s * margins[level.metric]
            name = f"{level.metric.value} p{level.percentile:g}"
            used = f"{time * 1e3:,.5g} of {limit * 1e3:,.5g} ms by analysis"
            found.append(Binding(engine.name, name, used, time / limit))
    return found


def _cache(engine: Engine) -> list[Binding]:
    if not engine.kv_tokens:
        return []
    used = f"{engine.kv_tokens_needed:,} of {engine.kv_tokens:,} tokens for {engine.batch} sequences"
    return [Binding(engine.name, "KV cache at P99", used, engine.kv_tokens_needed / engine.kv_tokens)]


def _load(plan: ServingPlan, engine: Engine, count: int, rates: tuple[float, ...]) -> Binding:
    busy = sum(rate * time for rate, time in zip(rates, engine.seconds, strict=True))
    room = count * float(plan.pools.problem.discount(engine.role))
    what = {Role.PREFILL: "prefill time", Role.DECODE: "decode time", Role.AGGREGATED: "engine time"}[engine.role]
    used = f"{busy:.4g} of {room:.4g} engines (load margin {plan.policies.load_margin:.2f})"
    return Binding(engine.name, what, used, busy / room)
