"""From traffic and engine kinds to a serving plan: candidates by analysis, pools exactly, latencies by replay.

Analysis and replay differ (bursts above all). Where the replay of the chosen pools misses a level, engines are loaded
less, by bisection; where that is not enough, the limits that the analysis works with are tightened. The certificate is
relative to the candidates and margins of the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

from treadle.costmodels.engine_candidates import Setting, all_candidates
from treadle.costmodels.serving_replay import replay_plan
from treadle.ir.certificate import Certificate
from treadle.ir.errors import Unmet
from treadle.ir.serving.errors import TooFewGpus
from treadle.ir.serving.plan import KindOfEngine, Policies, ServingPlan, Stream
from treadle.ir.serving.pools import GpuPool, Objective, PoolsPlan, PoolsProblem, RequestClass, Role
from treadle.ir.serving.reuse import HitCurve
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import Metric, Request, ServiceLevel
from treadle.solvers.serving.nearest import unmet_levels
from treadle.solvers.serving.solve import solve_pools

EFFICIENCY = (1.0, 0.92, 1.0)
"""Prefill and aggregated candidates hold their queueing reserve already; decode keeps the usual imbalance reserve."""

ROUNDS = 7
"""Rounds of planning and replay, for load and for limits each."""

LEAST_LOAD = 0.1
"""Lowest load margin that is tried."""


@dataclass(frozen=True, slots=True)
class ServingRequest:
    """What is asked: the model's figures, traffic, levels, GPUs, goal; `rate_per_s` is what the replay runs at.

    `streams` and `classes` belong together: without them all requests are one class.
    """

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
    roles: tuple[Role, ...] = tuple(Role)
    streams: tuple[Stream, ...] = ()
    classes: tuple[RequestClass, ...] = ()
    hits: HitCurve | None = None
    """What caches find of all requests; None: prefixes are not reused."""

    @property
    def all_streams(self) -> tuple[Stream, ...]:
        """The streams; one of everything where requests are not classed."""
        return self.streams or (Stream("all", (), self.lengths, self.levels, self.hits),)


def plan_serving(
    request: ServingRequest, policies: Policies | None = None, tell: Callable[[str], None] = lambda _: None
) -> tuple[ServingPlan, Certificate]:
    """Choose pools and confirm them by replay.

    Raises:
        TooFewGpus: no kind of engine fits on the GPUs.
        UnmetLevels: no candidate meets the levels.
        RateUnmet: the GPUs do not sustain the rate.
    """
    request = _holding(request)
    policies = policies or Policies()
    chosen = _try(request, policies, None, tell)
    if _met(chosen[0]):
        return chosen
    chosen = _by_load(request, policies, chosen, tell)
    return chosen if _met(chosen[0]) else _by_limits(request, policies, chosen, tell)


Planned = tuple[ServingPlan, Certificate]


def _try(request: ServingRequest, policies: Policies, known: Planned | None, tell: Callable[[str], None]) -> Planned:
    """Plan under given margins, replay, and return the better of the result and what was known."""
    plan, certificate = _plan_once(request, policies)
    figures, _ = replay_plan(plan, request.requests, _replay_rate(request, plan))
    plan = replace(plan, replay=figures)
    tell(
        f"load margin {policies.load_margin:.2f}: {plan.pools.gpus_used} GPUs, {figures.rate_per_s:.4g} requests/s, "
        f"{figures.attainment:.1%} within all levels"
    )
    return _better(request, known, (plan, certificate))


def _by_load(request: ServingRequest, policies: Policies, chosen: Planned, tell: Callable[[str], None]) -> Planned:
    """Bisect the load margin: bursts and the replay's other differences from theory are met with headroom."""
    low, high = LEAST_LOAD, 1.0
    for _ in range(ROUNDS):
        margin = sqrt(low * high)
        try:
            tried = _try(request, replace(policies, load_margin=margin), None, tell)
        except Unmet:  # so much headroom takes more GPUs than there are
            low = margin
            continue
        low, high = (margin, high) if _met(tried[0]) else (low, margin)
        chosen = _better(request, chosen, tried)
    return chosen


def _by_limits(request: ServingRequest, policies: Policies, chosen: Planned, tell: Callable[[str], None]) -> Planned:
    """Plan for tighter latencies than asked until the replay meets those asked."""
    plan = chosen[0]
    for _ in range(ROUNDS):
        policies = _tightened(policies, plan)
        try:
            tried = _try(request, policies, None, tell)
        except Unmet:
            return chosen
        plan, chosen = tried[0], _better(request, chosen, tried)
        if _met(plan):
            return chosen
    return chosen


def _better(request: ServingRequest, one: Planned | None, other: Planned) -> Planned:
    """Return the plan that meets its levels; of two that do, the better in the goal; of two that do not, the closer."""
    if one is None:
        return other
    if _met(one[0]) and _met(other[0]):
        if request.objective is Objective.MOST_REQUESTS:
            return other if other[0].pools.rate_per_s > one[0].pools.rate_per_s else one
        return other if other[0].pools.price < one[0].pools.price else one
    return max(one, other, key=lambda pair: (_met(pair[0]), pair[0].replay.attainment if pair[0].replay else 0.0))


def _met(plan: ServingPlan) -> bool:
    return plan.replay is not None and plan.replay.met


def problem_of(request: ServingRequest, policies: Policies) -> PoolsProblem:
    """Return candidates and GPUs as a problem of pools; raises UnmetLevels when no role combination is complete."""
    setting = Setting(
        request.roles,
        policies.ttft_margin,
        policies.tpot_margin,
        request.kv_bytes_per_token,
        request.link_bytes_per_s,
        max(1, len(request.classes)),
    )
    found = all_candidates(request.kinds, request.all_streams, setting)
    mean = (round(request.lengths.mean_prompt), round(request.lengths.mean_output))
    classes = request.classes or (RequestClass("all", 1.0, *mean),)
    for position in range(len(classes)):
        roles = {engine.role.value for engine in found if engine.takes(position)}
        if "aggregated" not in roles and not {"prefill", "decode"} <= roles:
            raise unmet_levels(request, classes[position].name if request.classes else "")
    return PoolsProblem(
        found,
        classes,
        request.gpus,
        request.objective,
        0.0 if request.objective is Objective.MOST_REQUESTS else request.rate_per_s,
        _efficiency(policies),
        natural_mix=len(classes) > 1,
    )


def _efficiency(policies: Policies) -> tuple[float, float, float]:
    """Return the efficiencies under the plan's load margin."""
    prefill, decode, aggregated = (round(share * policies.load_margin, 6) for share in EFFICIENCY)
    return prefill, decode, aggregated


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
        roles=request.roles,
        streams=request.streams,
        hits=request.hits,
    )


def _replay_rate(request: ServingRequest, plan: ServingPlan) -> float:
    if request.objective is Objective.MOST_REQUESTS:
        return float(plan.pools.rate_per_s)
    return request.rate_per_s


def _tightened(policies: Policies, plan: ServingPlan) -> Policies:
    """Shrink the margin of the level missed by most, by the root of its overshoot, by 5 to 40 %.

    The root, because near full load a latency grows much faster than the load; one level, because overload makes the
    others look missed too.
    """
    seen = plan.replay.percentiles_s if plan.replay else {}
    worst = max(plan.levels, key=lambda level: seen[f"{level.metric.value}_p{level.percentile:g}"] / level.limit_s)
    overshoot = seen[f"{worst.metric.value}_p{worst.percentile:g}"] / worst.limit_s
    factor = max(0.6, min(0.95, 1 / sqrt(overshoot)))
    return replace(
        policies,
        ttft_margin=policies.ttft_margin * (factor if worst.metric is not Metric.TPOT else 1.0),
        tpot_margin=policies.tpot_margin * (factor if worst.metric is not Metric.TTFT else 1.0),
    )


def _holding(request: ServingRequest) -> ServingRequest:
    """Return the request with the kinds of engines that hold its longest sequence; raises TooFewGpus without any."""
    total = sum(pool.total for pool in request.gpus)
    longest = max(one.prompt_tokens + one.output_tokens + 1 for one in request.requests)
    holding = tuple(kind for kind in request.kinds if kind.kv_tokens >= longest)
    if not holding or min(kind.gpus for kind in holding) > total:
        largest = max((kind.gpus for kind in request.kinds), default=8)
        need = min((kind.gpus for kind in holding), default=f"more than {largest}")
        raise TooFewGpus(found=total, need=need, what="the model and its longest request")
    return replace(request, kinds=holding)
