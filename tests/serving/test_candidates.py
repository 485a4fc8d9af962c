"""Candidates of engines: prompts in closed form, Little's law, and batches that no other batch beats."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.test_serve import KINDS_OF_ENGINE, PROFILE, REQUESTS
from treadle.costmodels.engine_balance import Traffic, peak_of, running_with
from treadle.costmodels.engine_candidates import Setting, candidates
from treadle.costmodels.prompt_times import cut, prefill_moments, prompt_times
from treadle.ir.serving.plan import Stream
from treadle.ir.serving.pools import Role
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import Metric, ServiceLevel

LENGTHS = Lengths.of(REQUESTS)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40_000), st.integers(1, 9000), st.integers(0, 300), st.integers(0, 10**6), st.integers(0, 39_000))
def test_a_prompt_takes_the_sum_of_its_steps(tokens: int, chunk: int, batch: int, context: int, found: int) -> None:
    done = found = min(found, tokens - 1)
    profile = PROFILE.speculating(2, 1.5, 0.05)
    expected = 0.0
    while done < tokens:
        take = min(chunk, tokens - done)
        expected += profile.step_s(take, done, batch, context)
        done += take
    given_s = prompt_times(profile, (cut(tokens, chunk, found),), chunk, batch, context if batch else 0.0)[0]
    assert given_s == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 500.0), st.sampled_from((512, 2048, 8192)))
def test_a_batch_and_its_rate_satisfy_littles_law(batch: float, chunk: int) -> None:
    running = running_with(KINDS_OF_ENGINE[0], Traffic(LENGTHS, LENGTHS.mean_context, None, chunk), batch)
    if running is None:
        return
    assert running.rate_per_s * LENGTHS.mean_output * running.step_s == pytest.approx(batch, rel=1e-9)
    assert 0 < running.load < 1


@pytest.mark.parametrize(("ttft", "tpot", "kv_tokens"), [(0.3, 0.02, 10**6), (9.0, 0.008, 10**6), (9.0, 1.0, 30_000)])
def test_no_other_batch_within_the_limits_has_a_higher_rate(ttft: float, tpot: float, kv_tokens: int) -> None:
    kind = replace(KINDS_OF_ENGINE[0], kv_tokens=kv_tokens)
    levels = (ServiceLevel(Metric.TTFT, 90, ttft), ServiceLevel(Metric.TPOT, 90, tpot))
    setting = Setting((Role.AGGREGATED,), kv_bytes_per_token=1000.0, link_bytes_per_s=5e10)
    (engine,) = candidates(kind, Stream("all", (), LENGTHS, levels), setting)
    assert engine.ttft_s <= ttft
    assert engine.tpot_s <= tpot
    assert engine.kv_tokens_needed <= kv_tokens
    assert engine.batch >= 1
    # The limits bind: at the next batch one of them breaks, or prompts take all the time.
    for factor in (1.02, 1.1, 1.5):
        mean = 1 / engine.seconds[0] * LENGTHS.mean_output * engine.tpot_s * factor
        running = running_with(kind, Traffic(LENGTHS, LENGTHS.mean_context, None, engine.chunk_tokens), mean)
        if running is None or running.rate_per_s <= 1 / engine.seconds[0]:
            continue
        slow = running.step_s > tpot or LENGTHS.batch_tokens(peak_of(mean)) > kv_tokens
        assert slow or ttft < 1, "a larger batch within all limits"


def test_prefixes_found_make_prompts_shorter() -> None:
    whole, half = prefill_moments(PROFILE, LENGTHS), prefill_moments(PROFILE, LENGTHS, 0.5)
    assert half[0] < whole[0]
    assert half[1] < whole[1]
