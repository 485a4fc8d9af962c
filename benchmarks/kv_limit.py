"""One trillion parameters on 8 B200 (aiconfigurator issue 1396): what the KV cache holds, and what was planned there.

The published case: weights in 4 bits, 8,192 prompt and 1,024 output tokens, no latency limits; the peer proposed 384
and 216 concurrent sequences, of which the fourth proposal did not start. Sweeps cache dtypes and latency limits; every
candidate of every plan has to hold its batch at P99 lengths, and a plan forged to the peer's batch has to be refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import common
from treadle.costmodels.machines import load_machine
from treadle.driver.serve_request import engine_kinds
from treadle.frontends.hf import load_model
from treadle.ir.certificate import Certificate
from treadle.ir.diagnostics import TreadleError
from treadle.ir.plan import Plan
from treadle.ir.serving.binding import bindings
from treadle.ir.serving.plan import ServingPlan
from treadle.ir.serving.pools import GpuPool, Objective
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import Metric, Request, ServiceLevel
from treadle.solvers.serving.fleet_plan import ServingRequest, plan_serving
from treadle.verification.core import review_plan

MODEL = Path(__file__).parents[1] / "examples" / "kimi-k2-b200"
PEER_BATCHES = (384, 216)
"""Concurrency of the proposals in ai-dynamo/aiconfigurator issue 1396."""
PROMPT, OUTPUT = 8192, 1024
LIMITS_S = ((1e5, 1e5), (60.0, 0.15), (20.0, 0.046), (2.0, 0.03))
"""Limits on first token and time per token; the first is the published case: none."""


def main() -> None:
    """Plan every case and count what the cache does not hold."""
    chosen = common.arguments(__doc__ or "")
    rows = [row for dtype in ("float8_e4m3", "bfloat16") for limits in LIMITS_S for row in case(dtype, *limits)]
    common.table(list(rows[0]), [list(row.values()) for row in rows])
    figures = {
        "plans": len(rows),
        "candidates": sum(row["candidates"] for row in rows),
        "candidates_beyond_their_cache": sum(row["beyond"] for row in rows),
        "forged_batches_refused": all(row["forged_refused"] for row in rows),
        "peer_batches_beyond_the_cache": {row["cache"]: row["peer_beyond"] for row in rows},
        "largest_batch": max(row["batch"] for row in rows),
    }
    common.finish("kv_limit", figures, rows, chosen.json)


def case(dtype: str, ttft_s: float, tpot_s: float) -> list[dict[str, Any]]:
    """Plan one case; a case that no engine meets gives no row."""
    try:
        plan, certificate = plan_serving(request_of(dtype, ttft_s, tpot_s))
    except TreadleError as error:
        print(f"{dtype}, TTFT {ttft_s:g} s, TPOT {tpot_s:g} s: {error.code}")
        return []
    problem = plan.pools.problem
    used = [engine for engine, count in zip(problem.engines, plan.pools.pools.counts, strict=True) if count]
    tight = dict.fromkeys(one.limit for one in bindings(plan) if one.share > 0.97 and one.limit != "GPUs")
    capacity = max(engine.kv_tokens for engine in used)
    return [
        {
            "cache": dtype,
            "ttft_s": ttft_s,
            "tpot_s": tpot_s,
            "rate_per_s": round(float(plan.pools.rate_per_s), 3),
            "batch": max(engine.batch for engine in used),
            "tokens_needed": max(engine.kv_tokens_needed for engine in used),
            "tokens_held": capacity,
            "binds": ", ".join(tight),
            "candidates": len(problem.engines),
            "beyond": sum(engine.kv_tokens_needed > engine.kv_tokens for engine in problem.engines),
            "preemptions": plan.replay.preemptions if plan.replay else -1,
            "peer_beyond": [batch for batch in PEER_BATCHES if batch * (PROMPT + OUTPUT) > capacity],
            "forged_refused": forged_refused(plan, certificate),
        }
    ]


def request_of(dtype: str, ttft_s: float, tpot_s: float) -> ServingRequest:
    """Return the request: fixed lengths, one request a second, one node of eight."""
    model, machine = load_model(str(MODEL / "config.json"), kv_dtype=dtype), load_machine("b200")
    requests = tuple(Request(float(second), PROMPT, OUTPUT) for second in range(600))
    levels = (ServiceLevel(Metric.TTFT, 90, ttft_s), ServiceLevel(Metric.TPOT, 90, tpot_s))
    kinds, source = engine_kinds(model, machine, 8, 8, roofline=True)
    return ServingRequest(
        model.name,
        "kimi",
        source,
        model.kv_bytes_per_token(),
        machine.value("network_bandwidth_bytes_per_s"),
        requests,
        1.0,
        levels,
        kinds,
        (GpuPool("b200", (8,)),),
        Objective.MOST_REQUESTS,
        Lengths.of(requests),
    )


def forged_refused(plan: ServingPlan, certificate: Certificate) -> bool:
    """Give the chosen engines the peer's batch, with and without the tokens it needs: both have to be found."""
    problem, need = plan.pools.problem, PEER_BATCHES[0] * (PROMPT + OUTPUT)
    for honest in (False, True):
        engines = tuple(
            replace(engine, batch=PEER_BATCHES[0], kv_tokens_needed=need if honest else engine.kv_tokens_needed)
            for engine in problem.engines
        )
        forged = replace(plan, pools=replace(plan.pools, problem=replace(problem, engines=engines)))
        if not review_plan(Plan("serving", (), {}, {}, forged, (certificate,)).sealed(), None).errors:
            return False
    return True


if __name__ == "__main__":
    main()
