"""A serving plan as a fleet of the replay, and requests to replay where there is no trace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treadle.costmodels.replay.fleet import EngineSetup, Fleet, Outcome, replay
from treadle.ir.serving.plan import ReplayFigures, ServingPlan
from treadle.ir.serving.pools import Role
from treadle.ir.workload import LengthQuantiles, Request

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
    profiles = {(kind.gpu, kind.shape): kind for kind in plan.kinds}
    setups: list[EngineSetup] = []
    rates = dict.fromkeys(Role, 0.0)
    for engine, count, routing in zip(
        plan.pools.problem.engines, plan.pools.pools.counts, plan.pools.pools.routing_per_s, strict=True
    ):
        if not count:
            continue
        kind = profiles[engine.gpu, engine.shape]
        budget = max(engine.chunk_tokens, engine.batch + 1)
        setups.append(
            EngineSetup(
                engine.role.value, kind.profile, kind.kv_tokens, _batch(engine.role, engine.batch), budget, count
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
    )


def _batch(role: Role, batch: int) -> int:
    """Prefill engines take what fits into a step; one sequence of planned batch is no limit there."""
    return 64 if role is Role.PREFILL else batch


def replay_plan(plan: ServingPlan, requests: Sequence[Request], rate_per_s: float) -> tuple[ReplayFigures, Outcome]:
    """Replay requests at a rate through a plan.

    Returns: the figures for the plan, and the times per request.
    """
    own = (len(requests) - 1) / max(1e-9, requests[-1].arrival_s - requests[0].arrival_s)
    outcome = replay(requests, fleet_of(plan), rate_per_s / own if len(requests) > 1 else 1.0)
    percentiles = {
        f"{level.metric.value}_p{level.percentile:g}": outcome.percentile_s(level.metric, level.percentile)
        for level in plan.levels
    }
    figures = ReplayFigures(
        len(requests),
        rate_per_s,
        outcome.attainment(plan.levels),
        outcome.goodput_per_s(plan.levels),
        outcome.preemptions,
        percentiles,
        outcome.meets(plan.levels),
    )
    return figures, outcome
