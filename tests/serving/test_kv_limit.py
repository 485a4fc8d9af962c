"""A model of 10^12 parameters on eight GPUs: no batch beyond the KV cache is ever planned, and it is said why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kv_limit import LIMITS_S, PEER_BATCHES, case, request_of
from treadle.cli.main import main
from treadle.ir.errors import Unmet
from treadle.ir.serving.plan import Policies
from treadle.ir.serving.pools import Objective
from treadle.solvers.serving.fleet_plan import plan_serving, problem_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "kimi-k2-b200"


@pytest.mark.parametrize("dtype", ["float8_e4m3", "bfloat16"])
def test_no_candidate_holds_more_than_its_cache(dtype: str) -> None:
    for limits in LIMITS_S:
        for engine in problem_of(request_of(dtype, *limits), Policies()).engines:
            assert engine.kv_tokens_needed <= engine.kv_tokens


def test_the_published_case_is_planned_within_the_cache_and_forgeries_are_found() -> None:
    (row,) = case("bfloat16", *LIMITS_S[0])
    assert row["beyond"] == row["preemptions"] == 0
    assert "KV cache at P99" in row["binds"]
    assert row["batch"] < min(PEER_BATCHES)
    assert row["forged_refused"]


def test_a_rate_beyond_the_cache_says_that_the_cache_binds() -> None:
    asked = replace(request_of("bfloat16", *LIMITS_S[0]), objective=Objective.FEWEST_GPUS, rate_per_s=20.0)
    with pytest.raises(Unmet, match="KV cache binds: 152 sequences") as raised:
        plan_serving(asked)
    assert raised.value.code == "TRD344"


def test_weights_beyond_the_node_say_how_many_gpus_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in EXAMPLE.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    file = tmp_path / "deployment.toml"
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"quantization_config"', '"_quantization_config"'))
    assert main(["serve", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "TRD343" in message
    assert "at least" in message
