"""The event replay: speed, agreement with queueing theory, and plans for length mixes against plans for the mean.

`--trace` names a trace (Azure CSV or Mooncake JSON lines) for the length-mix part; by default both traces of --data.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from treadle.costmodels import queues
from treadle.costmodels.machines import load_machine
from treadle.costmodels.replay.fleet import EngineSetup, Fleet, replay
from treadle.costmodels.serving_replay import replay_plan
from treadle.driver.serve_request import engine_kinds
from treadle.frontends.hf import load_model
from treadle.frontends.traces import load_trace
from treadle.ir.diagnostics import TreadleError
from treadle.ir.serving.plan import Policies
from treadle.ir.serving.pools import GpuPool, Objective
from treadle.ir.serving.profile import Profile
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import Metric, Request, ServiceLevel
from treadle.solvers.serving.fleet_plan import ServingRequest, plan_serving, problem_of, serving_plan
from treadle.solvers.serving.solve import solve_pools

MODEL = Path(__file__).parents[1] / "examples" / "llama-3.1-8b-h200" / "config.json"
PROFILE = Profile((1, 64, 1024, 8192), (0.006, 0.007, 0.03, 0.2), 1e-9, 2e-8)
LEVELS = {"azure": (0.4, 0.012), "mooncake": (4.0, 0.025)}
"""TTFT and TPOT limits in seconds at p90, by the trace's origin."""


def main() -> None:
    """Run the three parts."""
    chosen = common.arguments(__doc__ or "", "../shared/data/traces", trace={"type": Path, "default": None})
    files = [chosen.trace] if chosen.trace else sorted(chosen.data.glob("*_*"))
    figures: dict[str, Any] = {**speed(files[0]), **theory()}
    rows = [length_mix(file) for file in files]
    for name, value in figures.items():
        print(f"{name:<40} {value}")
    for row in rows:
        for name, value in row.items():
            print(f"  {name:<38} {value}")
    common.finish("serving_replay", figures, rows, chosen.json)


def trace_format(file: Path) -> str:
    """Return the format of a trace by its ending."""
    return "azure-2023" if file.suffix == ".csv" else "mooncake"


def speed(file: Path) -> dict[str, float]:
    """One engine on the trace at its own speed; 64 engines on 100,000 requests of it, repeated."""
    requests = load_trace(file, trace_format(file))
    started = time.perf_counter()
    replay(requests, Fleet((EngineSetup("aggregated", PROFILE, 900_000, 256, 2048),)))
    one = len(requests) / (time.perf_counter() - started) * 60
    span = requests[-1].arrival_s + 1.0
    many = [replace(request, arrival_s=request.arrival_s + turn * span) for turn in range(20) for request in requests]
    many = many[:100_000]
    started = time.perf_counter()
    replay(many, Fleet((EngineSetup("aggregated", PROFILE, 900_000, 256, 2048, 64),)), speed=40.0)
    return {
        "one_engine_requests_per_minute": round(one),
        "fleet_64_requests": len(many),
        "fleet_64_seconds": round(time.perf_counter() - started, 2),
    }


def theory(count: int = 400_000) -> dict[str, float]:
    """Relative error of the mean wait against M/D/1 and M/G/k."""
    errors: dict[str, float] = {}
    flat = Profile((1, 1000), (0.01, 0.01), 0.0, 0.0)
    for load in (0.5, 0.7):
        requests = stream(count, load / 0.01, np.full(count, 1000), np.ones(count, np.int64))
        outcome = replay(requests, Fleet((EngineSetup("aggregated", flat, 10**9, 1, 1000),)))
        wait = float((outcome.metric_s(Metric.TTFT) - 0.01).mean())
        errors[f"m_d_1_error_load_{load}"] = round(wait / queues.mean_wait_mg1(load / 0.01, 0.01, 1e-4) - 1, 4)
    step, servers = 0.0005, 4
    fine = Profile((1, 1000), (step, step), 0.0, 0.0)
    random = np.random.default_rng(2)
    for name, outputs in (
        ("constant", np.full(count, 400)),
        ("geometric", np.maximum(1, random.geometric(1 / 400, count))),
        ("uniform", random.integers(1, 800, count)),
    ):
        mean = float(outputs.mean()) * step
        rate = 0.6 * servers / mean
        waits: list[float] = []
        for seed in (11, 12, 13):  # one stream of this length has a sampling error above 1 %
            requests = stream(count, rate, np.ones(count, np.int64), outputs, seed)
            outcome = replay(requests, Fleet((EngineSetup("aggregated", fine, 10**9, servers, 1000),)))
            waits.append(float((outcome.metric_s(Metric.E2E) - outputs * step).mean()) - step / 2)
        wait = sum(waits) / len(waits)
        variation2 = float(outputs.var() / outputs.mean() ** 2)
        errors[f"m_g_4_error_{name}"] = round(wait / queues.mean_wait_mgk(rate, mean, variation2, servers) - 1, 4)
    return errors


def stream(count: int, rate: float, prompts: Any, outputs: Any, seed: int = 5) -> list[Request]:
    """Return a seeded Poisson stream."""
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
    return [Request(float(a), int(p), int(o)) for a, p, o in zip(arrivals, prompts, outputs, strict=True)]


def length_mix(file: Path, gpus: int = 8) -> dict[str, Any]:
    """Plan the most goodput on 8 H200 for the trace's lengths and for their mean; replay both on the trace."""
    origin = "azure" if file.suffix == ".csv" else "mooncake"
    ttft, tpot = LEVELS[origin]
    requests = load_trace(file, trace_format(file))
    model, machine = load_model(MODEL), load_machine("h200")
    lengths = Lengths.of(requests)
    kinds, source = engine_kinds(model, machine, 8, gpus, roofline=True)
    request = ServingRequest(
        model.name,
        "mix",
        source,
        model.kv_bytes_per_token(),
        machine.value("network_bandwidth_bytes_per_s"),
        requests,
        1.0,
        (ServiceLevel(Metric.TTFT, 90, ttft), ServiceLevel(Metric.TPOT, 90, tpot)),
        kinds,
        (GpuPool("h200", (gpus,)),),
        Objective.MOST_REQUESTS,
        lengths,
    )
    row: dict[str, Any] = {"trace": file.name, "requests": len(requests), "ttft_p90_s": ttft, "tpot_p90_s": tpot}
    started = time.perf_counter()
    plan, certificate = plan_serving(request)
    row["plan_seconds"] = round(time.perf_counter() - started, 2)
    row["proof"] = certificate.levels[0].proof.value
    row |= {f"mix_{key}": value for key, value in shown(plan.pools.rate_per_s, plan.replay).items()}
    mean = Request(0.0, round(lengths.mean_prompt), max(1, round(lengths.mean_output)))
    for_mean = replace(request, lengths=Lengths.of([mean]))
    try:
        pools, _ = solve_pools(problem_of(for_mean, Policies()))
    except TreadleError as error:
        return row | {"mean_plan": str(error)}
    planned = serving_plan(for_mean, pools, Policies())
    figures, _ = replay_plan(planned, requests, float(pools.rate_per_s))
    row |= {f"mean_{key}": value for key, value in shown(pools.rate_per_s, figures).items()}
    row["goodput_gain"] = round(row["mix_goodput_per_s"] / max(1e-9, row["mean_goodput_per_s"]) - 1, 4)
    return row


def shown(rate: Any, figures: Any) -> dict[str, Any]:
    """Return the figures of one plan."""
    return {
        "rate_per_s": round(float(rate), 2),
        "goodput_per_s": round(figures.goodput_per_s, 2),
        "attainment": round(figures.attainment, 4),
        "levels_met": figures.met,
        "preemptions": figures.preemptions,
        **{name: round(value, 4) for name, value in figures.percentiles_s.items()},
    }


if __name__ == "__main__":
    main()
