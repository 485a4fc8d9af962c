"""A serving plan as a fleet of the replay, and requests to replay where there is no trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.replay.fleet import EngineSetup, Fleet, Outcome, replay
from treadle.costmodels.replay.prefixes import PrefixSettings
from treadle.ir.serving.plan import KindOfEngine, RatePoint, ReplayFigures, ServingPlan, Stream
from treadle.ir.serving.pools import Engine, Role
from treadle.ir.workload import LengthQuantiles, Metric, Request, ServiceLevel

SYNTHETIC_REQUESTS = 4000
"""Requests drawn where only quantiles are given."""


def sample_requests(
    lengths: LengthQuantiles, rate_per_s: float, count: int = SYNTHETIC_REQUESTS
) -> tuple[Request, ...]:
    """Draw requests from quantiles: a Poisson stream, prompt and output lengths independent, seed 0."""
    random = np.random.default_rng(0)
    arrivals = np.cumsum(random.exponential(1.0 / rate_per_s, count))
    shares = random.permutation((np.arange(count) + 0.5) / count)
    others = random.permutation((np.arange(count) + 0.5) / count)
    return tuple(
        Request(float(arrival), max(1, lengths.prompt(float(one))), max(1, lengths.output(float(other))))
        for arrival, one, other in zip(arrivals, shares, others, strict=True)
    )


def fleet_of(plan: ServingPlan) -> Fleet:
    """Return the engines of a plan with its policies."""
    setups: list[EngineSetup] = []
    rates = dict.fromkeys(Role, 0.0)
    classes = plan.pools.problem.classes
    tpot_s = min((level.limit_s for level in plan.levels if level.metric is Metric.TPOT), default=inf)
    for engine, count, routing in zip(
        plan.pools.problem.engines, plan.pools.pools.counts, plan.pools.pools.routing_per_s, strict=True
    ):
        if not count:
            continue
        kind = plan.kind_of(engine)
        setups.append(
            EngineSetup(
                engine.role.value,
                kind.profile,
                kind.kv_tokens,
                _batch(engine.role, engine.batch),
                max(engine.chunk_tokens, engine.batch * (1 + engine.draft_tokens) + 1),
                count,
                batching=plan.policies.batching,
                step_limit_s=tpot_s,
                rates_per_s=routing if len(classes) > 1 else (),
                prefill_share=engine.prefill_share,
                prefix=_prefix(plan, kind, engine),
            )
        )
        rates[engine.role] += sum(routing)
    served = rates[Role.AGGREGATED] + rates[Role.DECODE]
    return Fleet(
        tuple(setups),
        plan.policies.router,
        plan.policies.admission,
        plan.kv_bytes_per_token,
        plan.link_bytes_per_s,
        rates[Role.AGGREGATED] / served if served else 1.0,
        tuple(one.prompt_up_to for one in classes if one.prompt_up_to is not None),
        plan.policies.handover,
        plan.policies.sharing,
    )


def _prefix(plan: ServingPlan, kind: KindOfEngine, engine: Engine) -> PrefixSettings | None:
    if not engine.cache_blocks:
        return None
    return PrefixSettings(engine.cache_blocks[0], kind.tiers, plan.policies.keep_s or inf)


def _batch(role: Role, batch: int) -> int:
    """Prefill engines take what fits into a step; one sequence of planned batch is no limit there."""
    return 64 if role is Role.PREFILL else batch


def speed_of(requests: Sequence[Request], rate_per_s: float) -> float:
    """Return by how much faster than in the trace requests must come for a rate."""
    own = (len(requests) - 1) / max(1e-9, requests[-1].arrival_s - requests[0].arrival_s)
    return rate_per_s / own if len(requests) > 1 else 1.0


def replay_plan(plan: ServingPlan, requests: Sequence[Request], rate_per_s: float) -> tuple[ReplayFigures, Outcome]:
    """Replay requests at a rate through a plan.

    Returns: the figures for the plan, and the times per request.
    """
    outcome = replay(requests, fleet_of(plan), speed_of(requests, rate_per_s))
    return figures_of(plan, outcome, rate_per_s), outcome


def figures_of(plan: ServingPlan, outcome: Outcome, rate_per_s: float) -> ReplayFigures:
    """Measure an outcome against the plan's levels: those for all requests, and those of each class on its own."""
    percentiles = {level_name(level): outcome.percentile_s(level.metric, level.percentile) for level in plan.levels}
    met = outcome.meets(plan.levels)
    within = np.ones(len(outcome.arrival_s), dtype=bool)
    for stream, chosen in class_masks(plan, outcome):
        mine = outcome.of(chosen)
        for level in stream.levels:
            within[chosen] &= mine.metric_s(level.metric) <= level.limit_s
            if level not in plan.levels:
                name = f"{stream.name} {level_name(level)}"
                percentiles[name] = mine.percentile_s(level.metric, level.percentile)
                met &= percentiles[name] <= level.limit_s
    span = float(outcome.arrival_s[-1] - outcome.arrival_s[0]) or 1.0
    return ReplayFigures(
        len(within),
        rate_per_s,
        float(within.mean()),
        float(within.sum()) / span,
        outcome.preemptions,
        percentiles,
        met,
        {metric.value: _quantiles(outcome.metric_s(metric)) for metric in Metric},
        reused_share=outcome.reused_tokens / max(1, int(outcome.prompts.sum())),
    )


def _quantiles(times: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in np.quantile(times, np.linspace(0, 1, 21)))


CURVE = (0.25, 0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.6)
"""Rates of the goodput curve, relative to the plan's."""

CURVE_REQUESTS = 4000
"""Requests of the trace, from its beginning, that are replayed for each point of the curve."""


def rate_curve(plan: ServingPlan, requests: Sequence[Request], rate_per_s: float) -> tuple[RatePoint, ...]:
    """Replay the plan at other rates; returns one point each."""
    some = requests[:CURVE_REQUESTS]
    found: list[RatePoint] = []
    for factor in CURVE:
        figures, _ = replay_plan(plan, some, factor * rate_per_s)
        found.append(RatePoint(factor * rate_per_s, figures.goodput_per_s, figures.attainment))
    return tuple(found)


def level_name(level: ServiceLevel) -> str:
    """Return the name of a level: `ttft_p90`."""
    return f"{level.metric.value}_p{level.percentile:g}"


def class_masks(plan: ServingPlan, outcome: Outcome) -> Iterator[tuple[Stream, NDArray[np.bool_]]]:
    """Yield the stream of each class with the requests of it."""
    ends = [one.prompt_up_to for one in plan.pools.problem.classes if one.prompt_up_to is not None]
    positions = np.searchsorted(np.array(ends), outcome.prompts)
    for position, stream in enumerate(plan.class_streams):
        chosen = positions == position
        if chosen.any():
            yield stream, chosen
