"""Runtime policies of the literature: for each, the property that it is known for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.serving.test_replay import FLAT, random_requests, stream
from treadle.costmodels.replay.batching import LengthAware, SplitFuse
from treadle.costmodels.replay.engine import EngineState, Job
from treadle.costmodels.replay.fleet import EngineSetup, Fleet, FleetRun, Outcome, replay
from treadle.costmodels.replay.phases import SHARES, Pair, SemiPd
from treadle.costmodels.replay.policies import (
    FullLength,
    PastFuture,
    PowerOfTwo,
    PrefixAffinity,
    PromptFits,
    RoundRobin,
)
from treadle.costmodels.replay.prefixes import PrefixCache, PrefixSettings
from treadle.ir.errors import UnknownName
from treadle.ir.serving.profile import Profile
from treadle.ir.workload import Metric, Request

PROFILE = Profile((1, 64, 1024, 8192), (0.006, 0.007, 0.03, 0.2), 1e-9, 2e-8)


def engine(kv_tokens: int = 10**6, prefix: PrefixCache | None = None) -> EngineState:
    return EngineState(PROFILE, kv_tokens, 64, 4096, PromptFits(), prefix=prefix)


def test_power_of_two_balances_better_than_turns_where_lengths_differ() -> None:
    requests = [
        replace(one, prompt_tokens=4000 if i % 4 == 0 else 100) for i, one in enumerate(stream(600, 40.0, 100, 20))
    ]
    worst: dict[str, float] = {}
    for router in ("round-robin", "power-of-two", "least-loaded"):
        fleet = Fleet((EngineSetup("aggregated", PROFILE, 10**6, 64, 4096, replicas=4),), router)
        worst[router] = replay(requests, fleet).percentile_s(Metric.TTFT, 99)
    assert worst["least-loaded"] <= worst["power-of-two"] < worst["round-robin"]


def test_power_of_two_takes_the_less_loaded_of_those_it_draws() -> None:
    engines = [engine() for _ in range(2)]
    engines[0].outstanding = 10
    router = PowerOfTwo()
    chosen = [router.choose(engines, Job(0, 5, 5)) for _ in range(200)]
    assert chosen.count(1) == pytest.approx(150, abs=25), "both draws fall on the loaded one in a quarter of the cases"
    turns = RoundRobin()
    assert [turns.choose(engines, Job(0, 5, 5)) for _ in range(4)] == [0, 1, 0, 1]


def test_prefix_affinity_follows_prefixes_until_their_engine_is_overloaded() -> None:
    engines = [engine(prefix=PrefixCache(PrefixSettings(100))) for _ in range(3)]
    cache = engines[2].prefix
    assert cache is not None
    cache.reuse((1, 2, 3), 10**6, 0.0)
    job = Job(0, 2000, 10, (1, 2, 3))
    router = PrefixAffinity()
    engines[0].outstanding = engines[1].outstanding = 1000
    engines[2].outstanding = 3000
    assert router.choose(engines, job) == 2
    engines[2].outstanding = 5000
    assert router.choose(engines, job) != 2


def test_splitfuse_composes_steps_of_one_size() -> None:
    state = engine()
    policy = SplitFuse(step_tokens=512)
    for index, prompt in enumerate((700, 200, 900)):
        state.prefilling.append(Job(index, prompt, 10))
    state.batch, state.context = 12, 1200
    assert policy.fill(state) > 0
    assert sum(take for _, take in state.taken) == 512 - 12
    assert [take for _, take in state.taken] == [500]


def test_laps_lets_short_prompts_pass_until_long_ones_have_waited() -> None:
    policy = LengthAware(short_tokens=1000, patience_s=0.5)
    queue = [Job(0, 5000, 1), Job(1, 100, 1)]
    assert policy.next(queue, 0.2) == 1
    assert policy.next(queue, 0.6) == 0


def test_laps_orders_the_prompts_of_prefill_engines_too() -> None:
    requests = [Request(0.0, 8000, 4), Request(0.0, 8000, 4), Request(0.001, 100, 4)]

    def first(batching: str) -> float:
        setups = (
            EngineSetup("prefill", PROFILE, 50_000, 1, 8192, batching=batching),
            EngineSetup("decode", PROFILE, 50_000, 8, 64),
        )
        return float(replay(requests, Fleet(setups)).first_s[2])

    assert first("length-aware") < first("chunked")


def test_past_future_admits_more_than_full_lengths_and_never_preempts() -> None:
    requests = random_requests(400, 3)
    found: dict[str, Outcome] = {}
    for admission in ("past-future", "full-length", "prompt-fits"):
        fleet = Fleet((EngineSetup("aggregated", FLAT, 1500, 64, 1000),), admission=admission)
        found[admission] = replay(requests, fleet)
    assert found["past-future"].preemptions == found["full-length"].preemptions == 0 < found["prompt-fits"].preemptions
    mean = {name: float(one.metric_s(Metric.E2E).mean()) for name, one in found.items()}
    assert mean["past-future"] < mean["full-length"]


def test_past_future_counts_what_ends_before_the_newcomer_peaks() -> None:
    state = engine(kv_tokens=1000)
    ending = Job(0, 600, 10)
    ending.output = 1
    state.running, state.batch, state.used, state.steps = [(10, 0, ending)], 1, 611, 9
    newcomer = Job(1, 300, 200)
    assert PastFuture().admits(state, newcomer)
    assert not FullLength().admits(state, newcomer)


def disaggregated(handover: str, decode_tokens: int, batch: int = 16) -> tuple[FleetRun, Outcome]:
    setups = (
        EngineSetup("prefill", PROFILE, 6000, 16, 4096),
        EngineSetup("decode", PROFILE, decode_tokens, batch, 64),
    )
    run = FleetRun(
        random_requests(200, 4), Fleet(setups, handover=handover, kv_bytes_per_token=1e5, link_bytes_per_s=1e10), 1.0
    )
    return run, run.run()


def test_distserve_keeps_bursts_on_prefill_engines() -> None:
    """What decode engines cannot hold stays where it was made: the prefill engine is full, and first tokens wait."""
    _, pushed = disaggregated("push", 1500)
    run, pulled = disaggregated("distserve", 1500)
    assert (pulled.last_s >= pulled.first_s).all()
    assert (pulled.first_s > pulled.arrival_s).all()
    assert pulled.metric_s(Metric.TTFT).mean() > pushed.metric_s(Metric.TTFT).mean()
    assert [state.used for state in run.engines] == [0, 0]
    assert [state.outstanding for state in run.engines] == [0, 0]


def test_distserve_with_room_is_the_same_as_sending_at_once() -> None:
    _, pushed = disaggregated("push", 10**6, 300)
    _, pulled = disaggregated("distserve", 10**6, 300)
    assert np.allclose(pulled.first_s, pushed.first_s)
    assert np.allclose(pulled.last_s, pushed.last_s)


def shared(sharing: str, rate: float = 1.2, limit_s: float = 0.02) -> Outcome:
    setup = EngineSetup("aggregated", PROFILE, 900_000, 64, 8192, prefill_share=0.5, step_limit_s=limit_s)
    return replay(stream(300, rate, 4000, 100), Fleet((setup,), sharing=sharing))


def test_semi_pd_gives_a_phase_that_is_alone_the_whole_gpu() -> None:
    fixed, moving = shared("fixed"), shared("semi-pd")
    assert moving.metric_s(Metric.TTFT).mean() < fixed.metric_s(Metric.TTFT).mean()
    assert moving.percentile_s(Metric.TPOT, 99) <= 0.02
    assert (moving.last_s > moving.first_s).all()
    alone = replay(
        [Request(0.0, 4000, 1)],
        Fleet((EngineSetup("aggregated", PROFILE, 10**6, 8, 8192, prefill_share=0.3),), sharing="semi-pd"),
    )
    assert alone.first_s[0] == pytest.approx(PROFILE.step_s(4000, 0, 0, 0))


def test_semi_pd_leaves_prefill_what_the_limit_of_decode_leaves() -> None:
    prefill, decode = engine(), engine()
    policy = SemiPd(Pair(prefill, decode, PROFILE, 0.5))
    assert policy.share() == 0.5
    decode.batch, decode.context, decode.step_limit_s = 32, 32 * 2000, 0.05
    wide = policy.share()
    decode.step_limit_s = 0.012
    narrow = policy.share()
    assert SHARES[0] >= wide > narrow >= SHARES[-1]
    step = policy.pair.on_share(round(1 - narrow, 9)).step_s(0, 0, decode.batch, decode.context)
    assert step <= 0.012


@pytest.mark.parametrize("field", ["handover", "sharing"])
def test_unknown_policies_are_refused(field: str) -> None:
    with pytest.raises(UnknownName, match=field):
        replace(Fleet((EngineSetup("aggregated", FLAT, 100, 4),)), **{field: "best"})  # type: ignore[arg-type]
