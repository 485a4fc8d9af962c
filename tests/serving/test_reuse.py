"""Reuse of prefixes: hit curves, tiers in candidates and replay, emitted settings, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.schemas import ENGINES, KINDS
from tests.serving.test_serve import CONFIG, KINDS_OF_ENGINE, envelope, request
from treadle.cli.main import main
from treadle.codegen.serving.files import serving_files
from treadle.costmodels.prefix_reuse import hit_curve
from treadle.driver.serve_request import tier_share
from treadle.ir.errors import InvalidValue
from treadle.ir.plan import load
from treadle.ir.serving.plan import Policies, ServingPlan
from treadle.ir.serving.pools import Objective, Role
from treadle.ir.serving.reuse import HitCurve, TierShare, found_in
from treadle.ir.workload import BLOCK_TOKENS, CacheTier, Request
from treadle.solvers.serving.fleet_plan import ServingRequest, plan_serving, problem_of, serving_plan
from treadle.solvers.serving.solve import solve_pools
from treadle.verification.core import review_plan


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), min_size=1, max_size=12))
def test_a_hit_curve_counts_what_recency_keeps(prompts: list[list[int]]) -> None:
    trace = tuple(Request(float(at), BLOCK_TOKENS * len(one) + 1, 1, tuple(one)) for at, one in enumerate(prompts))
    curve = hit_curve(trace)
    for blocks, share in zip(curve.blocks, curve.shares, strict=True):
        kept: list[int] = []
        found = 0
        for one in prompts:
            hits = 0
            while hits < len(one) and one[hits] in kept:
                hits += 1
            found += hits * BLOCK_TOKENS
            for block in one:
                kept = [*(other for other in kept if other != block), block]
            kept = kept[-blocks:]
        assert share >= found / sum(request.prompt_tokens for request in trace) - 1e-9
    assert list(curve.shares) == sorted(curve.shares)


def test_time_to_live_drops_and_faster_arrivals_keep() -> None:
    trace = tuple(Request(10.0 * at, BLOCK_TOKENS + 1, 1, (7,)) for at in range(10))
    assert hit_curve(trace).shares[-1] > 0.85
    assert hit_curve(trace, keep_s=5.0).shares[-1] == 0
    assert hit_curve(trace, keep_s=5.0, speed=4.0).shares[-1] > 0.85


def test_curves_and_tiers_refuse_nonsense() -> None:
    with pytest.raises(InvalidValue, match="rises"):
        HitCurve((1, 2), (0.5, 0.4))
    with pytest.raises(InvalidValue, match="keeps 0 blocks"):
        TierShare("dram", 0, 1e-6)
    assert tier_share(CacheTier("dram", 1000.0, 1e9), 1.0, 1e6) is None
    share = tier_share(CacheTier("dram", 1e9, 1e9), 0.5, 1000.0)
    assert share is not None
    assert share == TierShare("dram", 976, 2e-6)
    found = found_in(HitCurve((10, 20, 1000), (0.1, 0.3, 0.5)), 12, (TierShare("dram", 10, 1e-6), share))
    assert found.share == 0.3
    assert found.read_s_per_token == pytest.approx(0.2e-6)


def chats(objective: Objective = Objective.FEWEST_GPUS, tiers: tuple[TierShare, ...] = ()) -> ServingRequest:
    """Conversations of 30 turns: every prompt is the one before and one block more."""
    trace = tuple(
        Request(
            float(turn * 10 + talk * 0.5),
            BLOCK_TOKENS * (turn + 1) + 40,
            16,
            tuple(1000 * talk + block for block in range(turn + 1)),
        )
        for turn in range(16)
        for talk in range(20)
    )
    kinds = tuple(
        replace(kind, kv_tokens=40_000 * kind.gpus, tiers=used) for kind in KINDS_OF_ENGINE for used in {(), tiers}
    )
    return replace(request(objective), requests=trace, rate_per_s=8.0, kinds=kinds, hits=hit_curve(trace))


DRAM = (TierShare("dram", 2000, 1e-7),)


def test_reuse_needs_fewer_gpus_and_tiers_fewer_still() -> None:
    policies = Policies(router="prefix-affinity")
    found: list[float] = []
    for asked in (replace(chats(), hits=None), chats(), chats(tiers=DRAM)):
        asked = replace(asked, rate_per_s=60.0)
        pools, certificate = solve_pools(problem_of(asked, policies))
        plan = serving_plan(asked, pools, policies)
        found.append(float(pools.price))
        assert review_plan(envelope(plan, certificate), None).findings == ()
    assert found[2] <= found[1] <= found[0]
    assert found[2] < found[0]


@pytest.fixture(scope="module")
def tiered() -> ServingPlan:
    plan, _ = plan_serving(replace(chats(tiers=DRAM), rate_per_s=60.0), Policies(router="prefix-affinity", keep_s=900))
    return plan


def test_the_replay_keeps_what_the_plan_says(tiered: ServingPlan) -> None:
    chosen = [e for e, n in zip(tiered.pools.problem.engines, tiered.pools.pools.counts, strict=True) if n]
    assert any(engine.cache_blocks[1:] == (2000,) and engine.hit_share > 0.5 for engine in chosen)
    assert tiered.replay is not None
    assert tiered.replay.met
    assert tiered.replay.reused_share >= max(engine.hit_share for engine in chosen) - 0.1


def test_a_forged_hit_share_is_found(tiered: ServingPlan) -> None:
    plan, certificate = plan_serving(replace(chats(tiers=DRAM), rate_per_s=60.0), Policies(router="prefix-affinity"))
    problem = plan.pools.problem
    for change in ({"hit_share": 0.99}, {"cache_blocks": (10**6, 2000)}):
        engines = tuple(replace(engine, **change) for engine in problem.engines)
        forged = replace(plan, pools=replace(plan.pools, problem=replace(problem, engines=engines)))
        codes = {finding.code for finding in review_plan(envelope(forged, certificate), None).findings}
        assert codes & {"TRD498"}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("storage", [False, True])
def test_emitted_files_keep_the_tiers(tiered: ServingPlan, split: bool, storage: bool) -> None:
    body = tiered
    if storage or split:
        more = (TierShare("dram", 20_000, 1e-7), TierShare("ssd", 90_000, 1e-6))[: 1 + storage]
        body, _ = plan_serving(replace(chats(tiers=more), rate_per_s=60.0))
        engines = body.pools.problem.engines
        wanted = {Role.PREFILL, Role.DECODE} if split else {Role.AGGREGATED}
        counts = tuple(int(e.role in wanted and len(e.cache_blocks) != 1) for e in engines)
        body = replace(body, pools=replace(body.pools, pools=replace(body.pools.pools, counts=counts)))
    text = ""
    for path, data in serving_files(body).items():
        text += data.decode()
        for document in yaml.safe_load_all(data):
            if path.startswith("engines/"):
                jsonschema.validate(document, ENGINES[path.split(".")[-2]])
            elif "kind" in document:
                jsonschema.validate(document, KINDS[document["kind"]])
    wanted_words = ["hicache-size", "host_cache_size", "kvCacheOffloading", "cpuOffloadingBufferSize", "memory: "]
    wanted_words += ["MultiConnector", "OffloadingConnector"] if split else ["kv-offloading-size"]
    wanted_words += ["hicache-storage-backend"] if storage else []
    wanted_words += ["LMCACHE_LOCAL_DISK", "lmcache"] if storage and not split else []
    assert [word for word in wanted_words if word not in text] == []


SPECIFICATION = """
model = "config.json"
workload = {{ trace = "trace.jsonl", format = "mooncake", rate = "20/s" }}
slo = {{ ttft_p90 = "400ms", tpot_p90 = "20ms" }}
goal = "fewest-gpus"

[cluster]
gpu = "h200"
gpus = 8

[serving]
roofline = true
{serving}
"""

Write = Callable[[str, bool], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(serving: str, hashes: bool = True) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(CONFIG))
        lines = []
        for at in range(300):
            blocks = [at % 10 * 100 + block for block in range(3)]
            row = {"timestamp": 40 * at, "input_length": 1700, "output_length": 12}
            lines.append(json.dumps({**row, **({"hash_ids": blocks} if hashes else {})}))
        (tmp_path / "trace.jsonl").write_text("\n".join(lines))
        (tmp_path / "deployment.toml").write_text(SPECIFICATION.format(serving=serving))
        return tmp_path

    return written


def test_a_specification_with_reuse(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    tiers = 'tiers = [{ name = "dram", capacity = "64GiB", bandwidth = "50GB/s" }]'
    folder = write(f'prefix_reuse = true\nkeep = "300s"\n{tiers}', True)
    assert main(["serve", str(folder), "--json", "-o", str(folder / "plan")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["policies"]["router"] == "prefix-affinity"
    assert told["policies"]["keep_s"] == 300
    assert told["engines"][0]["hit_share"] > 0.5
    assert told["replay"]["reused_share"] > 0.5
    body: ServingPlan = load(folder / "plan").body
    assert body.hits is not None
    assert main(["verify", str(folder / "plan")]) == 0
    assert "of prompt tokens found" in (folder / "plan" / "report.html").read_text()


@pytest.mark.parametrize(
    ("serving", "hashes", "words"),
    [
        ("prefix_reuse = true", False, "TRD650"),
        ('keep = "5s"', True, "prefix_reuse"),
        ('prefix_reuse = true\nkeep = "5 parsecs"', True, "parsecs"),
        ('prefix_reuse = true\ntiers = [{ name = "dram", capacity = "0GiB", bandwidth = "1GB/s" }]', True, "dram"),
        (
            'prefix_reuse = true\ntiers = [{ name = "a", capacity = "1GiB", bandwidth = "1GB/s" }, '
            '{ name = "a", capacity = "1GiB", bandwidth = "1GB/s" }]',
            True,
            "same name",
        ),
    ],
)
def test_refusals(write: Write, capsys: pytest.CaptureFixture[str], serving: str, hashes: bool, words: str) -> None:
    assert main(["serve", str(write(serving, hashes))]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
