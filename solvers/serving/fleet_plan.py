"""From traffic and engine kinds to a serving plan: candidates by analysis, pools exactly, latencies by replay.

Analysis and replay differ; where the replay of the chosen pools misses a level, the limit that the analysis works with
is tightened and the pools are chosen again. The certificate is relative to the candidates of the last round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from treadle.costmodels.engine_candidates import Limits, candidates, kind_name
from treadle.costmodels.serving_replay import replay_plan
from treadle.ir.certificate import Certificate
from treadle.ir.serving.errors import TooFewGpus, UnmetLevels
from treadle.ir.serving.plan import KindOfEngine, Policies, ServingPlan
from treadle.ir.serving.pools import Engine, GpuPool, Objective, PoolsPlan, PoolsProblem, RequestClass
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import Metric, Request, ServiceLevel
from treadle.solvers.serving.solve import solve_pools

EFFICIENCY = (1.0, 0.92, 1.0)
"""Prefill and aggregated candidates hold their queueing reserve already; decode keeps the usual imbalance reserve."""

ROUNDS = 6
"""Rounds of tightening at most."""


@dataclass(frozen=True, slots=True)
class ServingRequest:
    """What is asked: the model's figures, traffic, levels, GPUs, goal; `rate_per_s` is what the replay runs at."""

    model: str
    served_name: str
    times: str
    kv_bytes_per_token: float
    link_bytes_per_s: float
    requests: tuple[Request, ...]
    rate_per_s: float
    levels: tuple[ServiceLevel, ...]
    kinds: tuple[KindOfEngine, ...]
    gpus: tuple[GpuPool, ...]
    objective: Objective
    lengths: Lengths


def plan_serving(
    request: ServingRequest, policies: Policies | None = None, tell: Callable[[str], None] = lambda _: None
) -> tuple[ServingPlan, Certificate]:
    """Choose pools and confirm them by replay.

    Raises:
        TooFewGpus: no kind of engine fits on the GPUs.
        UnmetLevels: no candidate meets the levels.
        RateUnmet: the GPUs do not sustain the rate.
    """
    _refuse_small(request)
    policies = policies or Policies()
    chosen: tuple[ServingPlan, Certificate] | None = None
    for turn in range(ROUNDS):
        try:
            plan, certificate = _plan_once(request, policies)
        except UnmetLevels:
            if chosen is None:
                raise
            return chosen
        figures, _ = replay_plan(plan, request.requests, _replay_rate(request, plan))
        plan = replace(plan, replay=figures)
        tell(f"round {turn + 1}: {plan.pools.gpus_used} GPUs, {figures.attainment:.1%} of requests within all levels")
        if chosen is None or figures.met or figures.attainment > (chosen[0].replay or figures).attainment:
            chosen = plan, certificate
        if figures.met:
            return chosen
        policies = _tightened(policies, plan)
    assert chosen is not None
    return chosen


def problem_of(request: ServingRequest, policies: Policies) -> PoolsProblem:
    """Return candidates and GPUs as a problem of pools; raises UnmetLevels when no role combination is complete."""
    limits = Limits.of(request.levels, policies.ttft_margin, policies.tpot_margin)
    found: list[Engine] = []
    for kind in request.kinds:
        found += candidates(kind, request.lengths, limits, request.kv_bytes_per_token, request.link_bytes_per_s)
    roles = {engine.role.value for engine in found}
    if "aggregated" not in roles and not {"prefill", "decode"} <= roles:
        raise _unmet(request, policies)
    mean = (round(request.lengths.mean_prompt), round(request.lengths.mean_output))
    return PoolsProblem(
        tuple(found),
        (RequestClass("all", 1.0, *mean),),
        request.gpus,
        request.objective,
        0.0 if request.objective is Objective.MOST_REQUESTS else request.rate_per_s,
        EFFICIENCY,
    )


def _plan_once(request: ServingRequest, policies: Policies) -> tuple[ServingPlan, Certificate]:
    pools, certificate = solve_pools(problem_of(request, policies))
    return serving_plan(request, pools, policies), certificate


def serving_plan(request: ServingRequest, pools: PoolsPlan, policies: Policies) -> ServingPlan:
    """Wrap pools as a serving plan without replay figures."""
    return ServingPlan(
        request.model,
        request.served_name,
        request.times,
        request.kv_bytes_per_token,
        request.link_bytes_per_s,
        request.lengths,
        request.levels,
        request.kinds,
        pools,
        policies,
    )


def _replay_rate(request: ServingRequest, plan: ServingPlan) -> float:
    if request.objective is Objective.MOST_REQUESTS:
        return float(plan.pools.rate_per_s)
    return request.rate_per_s


def _tightened(policies: Policies, plan: ServingPlan) -> Policies:
    """Shrink the margin of each metric by what the replay overshot, at least 5 % and at most half."""
    margins = {Metric.TTFT: 1.0, Metric.TPOT: 1.0}
    for level in plan.levels:
        seen = (plan.replay.percentiles_s if plan.replay else {})[f"{level.metric.value}_p{level.percentile:g}"]
        if seen > level.limit_s:
            for metric in margins if level.metric is Metric.E2E else (level.metric,):
                margins[metric] = min(margins[metric], max(0.5, min(0.95, level.limit_s / seen)))
    return replace(
        policies,
        ttft_margin=policies.ttft_margin * margins[Metric.TTFT],
        tpot_margin=policies.tpot_margin * margins[Metric.TPOT],
    )


def _refuse_small(request: ServingRequest) -> None:
    total = sum(pool.total for pool in request.gpus)
    holding = [kind.gpus for kind in request.kinds if kind.kv_tokens >= request.lengths.batch_tokens(1)]
    if not holding or min(holding) > total:
        need = min(holding, default=2 * max((kind.gpus for kind in request.kinds), default=8))
        raise TooFewGpus(found=total, need=need if holding else f"more than {need // 2}")


def _unmet(request: ServingRequest, policies: Policies) -> UnmetLevels:
    """Name the best latency of each kind alone, and which level to relax."""
    best = {"ttft": float("inf"), "tpot": float("inf")}
    for kind in request.kinds:
        if kind.kv_tokens >= request.lengths.batch_tokens(1):
            prompt = request.lengths.prompt_at(0.9)
            best["ttft"] = min(best["ttft"], kind.profile.step_s(prompt, 0, 0, 0.0))
            best["tpot"] = min(best["tpot"], kind.profile.step_s(0, 0, 1, request.lengths.mean_context))
    asked = ", ".join(f"{one.metric.value}_p{one.percentile:g} <= {one.limit_s * 1e3:g} ms" for one in request.levels)
    return UnmetLevels(
        gpu=", ".join(sorted({kind.gpu for kind in request.kinds})),
        levels=asked,
        nearest=f"alone and without a queue, the fastest engine takes {best['ttft'] * 1e3:.1f} ms to the first token "
        f"(p90 prompt) and {best['tpot'] * 1e3:.2f} ms per token; relax the level below its figure",
        expected=", ".join(kind_name(kind) for kind in request.kinds),
    )
