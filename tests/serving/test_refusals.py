"""Requests that no engine can serve: what is missing, and what would be needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.serving.test_serve import KINDS_OF_ENGINE, request
from treadle.costmodels.machines import load_machine
from treadle.driver.engine_sizes import beyond_context, refuse_what_no_engine_holds
from treadle.frontends.hf import load_model
from treadle.ir.errors import Unmet
from treadle.ir.serving.errors import LongRequests, TooFewGpus, UnmetLevels
from treadle.ir.serving.pools import GpuPool
from treadle.ir.workload import Request
from treadle.solvers.serving.fleet_plan import plan_serving

MODEL = load_model(Path(__file__).parents[2] / "examples" / "llama-3.1-70b-h200" / "config.json")
MACHINE = load_machine("h200")


def refused(gpus: int, tokens: int) -> Unmet | None:
    offers = [(MACHINE, GpuPool("h200", (gpus,)))]
    try:
        refuse_what_no_engine_holds(MODEL, offers, [Request(0.0, 10, 10), Request(1.0, tokens, 10)])
    except Unmet as error:
        return error
    return None


def test_the_smallest_engine_that_would_do_is_named() -> None:
    assert refused(2, 1000) is None
    small = refused(1, 1000)
    assert isinstance(small, TooFewGpus)
    assert "the smallest engine that holds the model takes 2" in small.render()
    long = refused(2, 500_000)
    assert isinstance(long, TooFewGpus)
    assert "its longest request (500,011 tokens) takes 4" in long.render()


def test_a_request_that_no_cache_holds_is_named() -> None:
    error = refused(8, 20_000_000)
    assert isinstance(error, LongRequests)
    assert "request 2 has 20,000,011 tokens" in error.render()
    assert "16 x h200" in error.render()


def test_requests_beyond_the_context_of_the_model_are_told() -> None:
    assert beyond_context(MODEL, [Request(0.0, 1000, 10)]) == ""
    assert "1 of 2 requests" in beyond_context(MODEL, [Request(0.0, 1000, 10), Request(0.0, 200_000, 10)])


def test_kinds_too_small_for_the_longest_request_are_left_out() -> None:
    asked = request()
    longest = max(one.prompt_tokens + one.output_tokens for one in asked.requests)
    small = replace(KINDS_OF_ENGINE[0], kv_tokens=longest)
    body, _ = plan_serving(replace(asked, kinds=(small, *KINDS_OF_ENGINE[1:])))
    assert {kind.gpus for kind in body.kinds} == {2, 4}


def test_the_nearest_limits_are_each_as_little_as_the_others_allow() -> None:
    asked = request(ttft=1e-3, tpot=1e-5)
    with pytest.raises(UnmetLevels) as raised:
        plan_serving(asked)
    text = raised.value.render()
    words = text.partition("nearest that can: ")[2].split()
    ttft_ms, tpot_ms = float(words[words.index("ttft_p90") + 2]), float(words[words.index("tpot_p90") + 2])
    body, _ = plan_serving(request(ttft=1.01e-3 * ttft_ms, tpot=1.01e-3 * tpot_ms))
    assert body.pools.gpus_used
    for ttft, tpot in ((ttft_ms * 0.9, tpot_ms), (ttft_ms, tpot_ms * 0.9)):
        with pytest.raises(UnmetLevels):
            plan_serving(request(ttft=1e-3 * ttft, tpot=1e-3 * tpot))
