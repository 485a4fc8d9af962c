"""The event replay: queueing theory, conservation, policies, preemption, transfers, prefix reuse."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import pytest
from numpy.typing import NDArray

from treadle.costmodels import queues
from treadle.costmodels.replay.batching import BATCHINGS
from treadle.costmodels.replay.fleet import EngineSetup, Fleet, FleetRun, Outcome, replay
from treadle.costmodels.replay.policies import ADMISSIONS, ROUTERS
from treadle.costmodels.replay.prefixes import PrefixCache, PrefixSettings
from treadle.ir.errors import InvalidValue, UnknownName
from treadle.ir.serving.profile import Profile
from treadle.ir.serving.reuse import TierShare
from treadle.ir.workload import Metric, Request, ServiceLevel

FLAT = Profile((1, 1000), (0.01, 0.01), 0.0, 0.0)


def stream(count: int, rate: float, prompts: int, outputs: int | NDArray[np.int64], seed: int = 5) -> list[Request]:
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
    lengths = zip(arrivals, np.broadcast_to(prompts, count), np.broadcast_to(outputs, count), strict=True)
    return [Request(float(a), int(p), int(o)) for a, p, o in lengths]


def test_constant_service_is_m_d_1() -> None:
    requests = stream(150_000, 60.0, 1000, 1)
    outcome = replay(requests, Fleet((EngineSetup("aggregated", FLAT, 10**9, 1, 1000),)))
    wait = float((outcome.metric_s(Metric.TTFT) - 0.01).mean())
    assert wait == pytest.approx(queues.mean_wait_mg1(60.0, 0.01, 1e-4), rel=0.02)


@pytest.mark.parametrize("kind", ["geometric", "constant"])
def test_batch_slots_are_servers_of_m_g_k(kind: str) -> None:
    step, servers, mean = 0.0005, 4, 400
    profile = Profile((1, 1000), (step, step), 0.0, 0.0)
    random = np.random.default_rng(2)
    outputs = np.maximum(1, random.geometric(1 / mean, 250_000)) if kind == "geometric" else np.full(250_000, mean)
    rate = 0.6 * servers / (float(outputs.mean()) * step)
    outcome = replay(
        stream(len(outputs), rate, 1, outputs), Fleet((EngineSetup("aggregated", profile, 10**9, servers, 1000),))
    )
    wait = float((outcome.metric_s(Metric.E2E) - outputs * step).mean()) - step / 2  # arrivals wait for a step to end
    variation2 = float(outputs.var() / outputs.mean() ** 2)
    expected = queues.mean_wait_mgk(rate, float(outputs.mean()) * step, variation2, servers)
    assert wait == pytest.approx(expected, rel=0.02)


def test_single_request_takes_the_steps_it_takes() -> None:
    profile = Profile((1, 100), (0.001, 0.1), 0.0, 1e-6, 0.0)
    outcome = replay([Request(0.0, 150, 3)], Fleet((EngineSetup("aggregated", profile, 1000, 4, 100),)))
    first = profile.step_s(100, 0, 0, 0) + profile.step_s(50, 100, 0, 0)
    assert outcome.first_s[0] == pytest.approx(first)
    steps = profile.step_s(0, 0, 1, 151) + profile.step_s(0, 0, 1, 152)
    assert outcome.last_s[0] == pytest.approx(first + steps)


def random_requests(count: int = 300, seed: int = 1) -> list[Request]:
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(0.02, count))
    return [
        Request(float(a), int(random.integers(1, 400)), int(random.integers(1, 80)), (1, int(random.integers(5))))
        for a in arrivals
    ]


@pytest.mark.parametrize("admission", list(ADMISSIONS))
@pytest.mark.parametrize(("router", "batching"), list(zip_longest(ROUTERS, BATCHINGS, fillvalue="least-loaded"))[:6])
def test_every_request_ends_after_it_began(admission: str, router: str, batching: str) -> None:
    profile = Profile((1, 100, 1000), (0.004, 0.006, 0.04), 1e-9, 1e-7)
    setups = (
        EngineSetup("aggregated", profile, 1500, 16, 256, 2, PrefixSettings(8), batching, 0.02),
        EngineSetup("prefill", profile, 4000, 8, 512, 1),
        EngineSetup("decode", profile, 1500, 16, 64, 1),
    )
    requests = random_requests()
    outcome = replay(requests, Fleet(setups, router, admission, 1000.0, 1e9, 0.5))
    assert (outcome.first_s > outcome.arrival_s).all()
    assert (outcome.last_s >= outcome.first_s).all()
    assert (outcome.last_s[outcome.outputs > 1] > outcome.first_s[outcome.outputs > 1]).all()
    again = replay(requests, Fleet(setups, router, admission, 1000.0, 1e9, 0.5))
    assert (again.last_s == outcome.last_s).all()


def test_tight_cache_preempts_only_without_reservation() -> None:
    profile = Profile((1, 1000), (0.004, 0.04), 0.0, 1e-7)
    requests = random_requests()

    def outcome(admission: str) -> Outcome:
        return replay(requests, Fleet((EngineSetup("aggregated", profile, 1200, 32, 512),), admission=admission))

    assert outcome("prompt-fits").preemptions > 0
    assert outcome("full-length").preemptions == 0
    assert outcome("past-future").preemptions == 0


def test_transfer_time_delays_the_second_token_only() -> None:
    setups = (EngineSetup("prefill", FLAT, 5000, 4, 1000), EngineSetup("decode", FLAT, 5000, 4, 64))
    fast = replay([Request(0.0, 100, 3)], Fleet(setups))
    slow = replay([Request(0.0, 100, 3)], Fleet(setups, kv_bytes_per_token=1e6, link_bytes_per_s=1e9))
    assert slow.first_s[0] == fast.first_s[0]
    assert slow.last_s[0] - fast.last_s[0] == pytest.approx(0.1)


def test_prefix_reuse_saves_prompt_tokens() -> None:
    requests = [Request(float(i), 1100, 2, (7, 8)) for i in range(10)]
    setup = EngineSetup("aggregated", FLAT, 5000, 4, 2000, 1, PrefixSettings(100))
    outcome = replay(requests, Fleet((setup,), "prefix-affinity"))
    assert outcome.reused_tokens == 9 * 1024


def test_levels_and_goodput() -> None:
    outcome = replay(random_requests(), Fleet((EngineSetup("aggregated", FLAT, 10**6, 64, 1000),)))
    level = ServiceLevel(Metric.TTFT, 90, outcome.percentile_s(Metric.TTFT, 90))
    assert outcome.meets((level,))
    assert outcome.attainment((level,)) >= 0.9
    assert outcome.goodput_per_s((level,)) > 0


def test_odd_fleets_are_refused() -> None:
    setup = EngineSetup("aggregated", FLAT, 100, 4)
    with pytest.raises(InvalidValue, match="exceeds the cache"):
        replay([Request(0.0, 200, 3)], Fleet((setup,)))
    with pytest.raises(UnknownName, match="router"):
        Fleet((setup,), "nearest")
    with pytest.raises(InvalidValue, match="only together"):
        Fleet((EngineSetup("prefill", FLAT, 100, 4),))
    with pytest.raises(InvalidValue, match="role"):
        EngineSetup("both", FLAT, 100, 4)
    with pytest.raises(InvalidValue, match="rise"):
        Profile((2, 1), (1.0, 1.0), 0.0, 0.0)


def test_queue_formulas_agree_where_they_meet() -> None:
    assert queues.mean_wait_mgk(8.0, 0.1, 1.0, 1) == pytest.approx(queues.mean_wait_mg1(8.0, 0.1, 0.02))
    assert queues.mean_wait_mgk(8.0, 0.1, 0.0, 1) == pytest.approx(queues.mean_wait_mg1(8.0, 0.1, 0.01))
    load = queues.largest_load(0.1, 0.01, 0.9, 0.3)
    assert queues.wait_quantile_mg1(load / 0.1, 0.1, 0.01, 0.9) == pytest.approx(0.3, rel=1e-3)


def test_load_of_every_engine_returns_to_zero_and_is_shared() -> None:
    profile = Profile((1, 1000), (0.004, 0.04), 0.0, 1e-7)
    setups = (EngineSetup("prefill", profile, 9000, 8, 512, 3), EngineSetup("decode", profile, 9000, 16, 64, 3))
    run = FleetRun(random_requests(), Fleet(setups), 1.0)
    run.run()
    assert [engine.outstanding for engine in run.engines] == [0] * 6
    steps = [engine.steps for engine in run.engines if engine.decodes]
    assert min(steps) > 0.5 * max(steps)


def test_a_prompt_passes_all_stages_and_enters_behind_the_first() -> None:
    setups = (
        EngineSetup("prefill", FLAT, 5000, 1, 1000, stages=4),
        EngineSetup("decode", FLAT, 5000, 4, 64),
    )
    outcome = replay([Request(0.0, 100, 1), Request(0.0, 100, 1)], Fleet(setups))
    assert outcome.first_s == pytest.approx([0.01, 0.0125])
    with pytest.raises(InvalidValue, match="stages"):
        EngineSetup("decode", FLAT, 5000, 4, stages=2)


def busy(batching: str, **more: float) -> Outcome:
    """A steady stream of long prompts and outputs on one engine under a batching policy."""
    profile = Profile((1, 64, 1024, 8192), (0.006, 0.007, 0.03, 0.2), 1e-9, 2e-8)
    requests = stream(400, 8.0, 3000, 100)
    setup = EngineSetup("aggregated", profile, 900_000, 256, 2048, batching=batching, **more)  # type: ignore[arg-type]
    return replay(requests, Fleet((setup,)))


def test_sarathi_keeps_steps_within_the_limit_that_whole_prompts_break() -> None:
    tpot = {name: busy(name, step_limit_s=0.025).percentile_s(Metric.TPOT, 99) for name in ("sarathi", "prefill-first")}
    assert tpot["sarathi"] <= 0.025 < tpot["prefill-first"]


def test_prefill_first_has_the_earliest_first_token() -> None:
    ttft = {name: busy(name).metric_s(Metric.TTFT).mean() for name in ("prefill-first", "chunked", "splitfuse")}
    assert ttft["prefill-first"] <= ttft["chunked"] <= ttft["splitfuse"]


def test_layered_prefill_reads_weights_once_where_small_chunks_read_them_often() -> None:
    profile = Profile((1, 512, 8192), (0.008, 0.03, 0.2), 0.0, 2e-8)  # a chunk reads the experts that a token does not
    requests = stream(200, 1.0, 6000, 50)

    def ended(batching: str) -> float:
        setup = EngineSetup("aggregated", profile, 900_000, 64, 512, batching=batching)
        return float(replay(requests, Fleet((setup,))).metric_s(Metric.E2E).mean())

    assert ended("layered") < ended("chunked")


def test_length_aware_batching_lets_short_prompts_pass() -> None:
    profile = Profile((1, 8192), (0.01, 0.4), 0.0, 0.0)
    requests = [Request(0.0, 8000, 2), Request(0.0, 8000, 2), Request(0.001, 100, 2)]
    ttft = {
        name: replay(requests, Fleet((EngineSetup("aggregated", profile, 20_000, 1, 8192, batching=name),))).first_s[2]
        for name in ("chunked", "length-aware")
    }
    assert ttft["length-aware"] < ttft["chunked"]


def test_split_gpus_decode_while_they_prefill() -> None:
    profile = Profile((1, 64, 1024, 8192), (0.006, 0.007, 0.03, 0.2), 1e-9, 2e-8)
    requests = stream(200, 1.0, 6000, 100)
    shared = EngineSetup("aggregated", profile, 900_000, 64, 8192, prefill_share=0.5)
    alone = EngineSetup("aggregated", profile, 900_000, 64, 8192)
    split, mixed = (replay(requests, Fleet((setup,))) for setup in (shared, alone))
    assert split.percentile_s(Metric.TPOT, 99) < mixed.percentile_s(Metric.TPOT, 99)
    assert (split.last_s > split.first_s).all()


def test_classes_go_where_the_plan_sends_them() -> None:
    fast, slow = (Profile((1, 1000), (time, time), 0.0, 0.0) for time in (0.001, 0.1))
    setups = (
        EngineSetup("aggregated", fast, 9000, 8, 9000, rates_per_s=(1.0, 0.0)),
        EngineSetup("aggregated", slow, 9000, 8, 9000, rates_per_s=(0.0, 1.0)),
    )
    requests = [Request(float(i), 10 if i % 2 else 500, 2) for i in range(20)]
    outcome = replay(requests, Fleet(setups, class_ends=(100,)))
    assert outcome.metric_s(Metric.TTFT)[1::2] == pytest.approx([0.001] * 10)
    assert outcome.metric_s(Metric.TTFT)[::2] == pytest.approx([0.1] * 10)
    with pytest.raises(InvalidValue, match="rate for each class"):
        Fleet((EngineSetup("aggregated", fast, 9000, 8),), class_ends=(100,))


def test_routers_count_what_decodes_beside_the_prefill_engine() -> None:
    """Phases that share GPUs are a pair; prompts leave the first at once, and its load has to count all the same."""
    profile = Profile((1, 1000), (0.01, 0.01), 0.0, 0.0)
    requests = tuple(Request(0.02 * turn, 10, 200) for turn in range(400))
    for router in ("least-loaded", "power-of-two", "prefix-affinity"):
        setup = EngineSetup("aggregated", profile, 10**6, 20, replicas=8, prefill_share=0.5)
        outcome = replay(requests, Fleet((setup,), router=router))
        waited = outcome.metric_s(Metric.E2E).max()
        assert waited < 2 * 200 * 0.02 + 1, router


def test_prefixes_beyond_memory_are_read_back_and_old_ones_are_dropped() -> None:
    cache = PrefixCache(PrefixSettings(2, (TierShare("dram", 2, 1e-3),), keep_s=10.0))
    assert cache.reuse((1, 2, 3, 4), 4000, 0.0) == (0, 0.0)
    assert cache.reuse((1, 2), 4000, 1.0) == (1024, 1.024)
    assert cache.reuse((1, 2), 4000, 2.0) == (1024, 0.0)
    assert cache.reuse((1, 2), 4000, 12.5) == (0, 0.0)
    assert cache.reuse((9, 9), 100, 12.5)[0] == 0
