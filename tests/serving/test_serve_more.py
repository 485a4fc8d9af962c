"""Length classes, client mixes, GPU types, fronts, explanations and reports of serving plans; forged plans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.serving.test_serve import CONFIG, KINDS_OF_ENGINE, envelope, request
from treadle.cli.main import main
from treadle.driver.serve_request import classed, tightest
from treadle.frontends.client_mix import load_clients
from treadle.ir.certificate import Status
from treadle.ir.codec import encode
from treadle.ir.diagnostics import TreadleError
from treadle.ir.plan import from_data, load, to_data
from treadle.ir.serving.front import check_front
from treadle.ir.serving.pools import GpuPool, Objective, RequestClass
from treadle.ir.workload import LengthClass, Metric, ServiceLevel, ServingOptions
from treadle.solvers.serving.explain import explain_serving
from treadle.solvers.serving.fleet_plan import plan_serving
from treadle.solvers.serving.front import pareto_front
from treadle.solvers.serving.robust import robust_choice
from treadle.verification.core import review_plan

SPECIFICATION = """
model = "config.json"
workload = {{ clients = "mix.toml" }}
slo = {{ ttft_p90 = "600ms", tpot_p90 = "20ms" }}
goal = "{goal}"

[cluster]
gpu = "h200"

[serving]
roofline = true
pools = {pools}
speculation = {{ acceptance = 0.7, lengths = [2] }}
gpus = [ {{ gpu = "h200", count = 4, cost_per_hour = 3.0 }}, {{ gpu = "h100", count = 4, cost_per_hour = 2.0 }} ]
batching = "{batching}"

[[serving.classes]]
name = "short"
prompt_up_to = 1000

[[serving.classes]]
name = "long"
slo = {{ ttft_p95 = "3s" }}
"""
MIX = """
requests = 1500
[[clients]]
name = "chat"
rate = "20/s"
cv = 1.5
prompt = { mean = 500, cv = 1.0 }
output = { mean = 60, cv = 0.8 }
[[clients]]
name = "agents"
rate = "3/s"
family = "weibull"
cv = 2.0
prompt = { probability = [0.0, 0.5, 1.0], tokens = [2000, 4000, 9000] }
output = { mean = 100, cv = 0.5 }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "mix.toml").write_text(MIX)
    write(tmp_path)
    return tmp_path


def write(folder: Path, goal: str = "least-cost", pools: str = '["aggregated"]', batching: str = "chunked") -> None:
    (folder / "deployment.toml").write_text(SPECIFICATION.format(goal=goal, pools=pools, batching=batching))


def test_a_client_mix_keeps_rates_and_burstiness(folder: Path) -> None:
    requests = load_clients(folder / "mix.toml")
    assert requests == load_clients(folder / "mix.toml")
    span = requests[-1].arrival_s
    long = [one for one in requests if one.prompt_tokens >= 2000]
    assert len(requests) / span == pytest.approx(23, rel=0.25)
    assert sum(one.prompt_tokens for one in long) / len(long) > 3000


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('family = "weibull"', 'family = "weibul"', "weibull"),
        ('rate = "3/s"', 'rate = "0/s"', "rate"),
        ("tokens = [2000, 4000, 9000]", "tokens = [2000]", "tokens"),
        ("prompt = { mean = 500, cv = 1.0 }", "prompt = { cv = 1.0 }", "mean"),
    ],
)
def test_bad_client_mixes(folder: Path, old: str, new: str, words: str) -> None:
    (folder / "mix.toml").write_text(MIX.replace(old, new))
    with pytest.raises(TreadleError) as raised:
        load_clients(folder / "mix.toml")
    assert words in raised.value.render()


def test_classes_types_and_drafts_in_one_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, pools='["aggregated", "length-separated"]')
    plan = folder / "plan"
    assert main(["serve", str(folder), "--pareto", "--json", "-o", str(plan)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["classes"]] == ["short", "long"]
    assert told["levels"][0]["gap"] == 0
    assert told["replay"]["met"]
    assert any(name.startswith("long ttft_p95") for name in told["replay"]["percentiles_s"])
    assert len(told["pareto"]) >= 2
    assert [one["error"] for one in told["regret"]] == [0.1, 0.2]
    assert all(one["best_worst"] <= one["worst"] for one in told["regret"])
    assert main(["verify", str(plan)]) == 0
    page = (plan / "report.html").read_text()
    assert all(f'id="{anchor}"' in page for anchor in ("pools", "binds", "goodput", "latencies", "front"))
    capsys.readouterr()
    assert main(["explain", str(plan)]) == 0
    assert "no pools by length" in capsys.readouterr().out


@pytest.mark.parametrize(("pools", "batching"), [('["split"]', "chunked"), ('["aggregated"]', "sarathi")])
def test_other_pools_and_policies_are_planned_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str], pools: str, batching: str
) -> None:
    write(folder, "most-goodput", pools, batching)
    if pools == '["split"]':
        file = folder / "deployment.toml"
        file.write_text(file.read_text().replace("roofline = true", 'roofline = true\nsharing = "semi-pd"'))
    assert main(["serve", str(folder), "--json", "--no-robust", "-o", str(folder / "plan")]) in (0, 3)
    told = json.loads(capsys.readouterr().out)
    assert f"batching {batching}" in (page := (folder / "plan" / "report.html").read_text())
    assert ("sharing semi-pd" in page) == (pools == '["split"]')
    assert told["policies"].get("batching", "chunked") == batching
    assert told["policies"].get("sharing", "fixed") == ("semi-pd" if pools == '["split"]' else "fixed")
    assert told["findings"] == []
    assert {one["role"] for one in told["engines"]} == {"aggregated"}
    assert all(bool(one["prefill_share"]) == (pools == '["split"]') for one in told["engines"])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('batching = "chunked"', 'batching = "chunky"', "chunked"),
        ('batching = "chunked"', 'handover = "pull"', "distserve"),
        ('batching = "chunked"', 'sharing = "half"', "semi-pd"),
        ("prompt_up_to = 1000", "", "prompt_up_to"),
        ("acceptance = 0.7", "acceptance = 1.7", "acceptance"),
        ('pools = ["aggregated"]', 'pools = ["aggregate"]', "aggregated"),
        ("count = 4, cost_per_hour = 3.0", "count = 0", "count"),
    ],
)
def test_bad_serving_tables(folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str) -> None:
    file = folder / "deployment.toml"
    file.write_text(file.read_text().replace(old, new))
    assert main(["serve", str(folder)]) == 2
    message = capsys.readouterr().err
    assert "deployment.toml" in message
    assert words in message


def test_classes_cover_all_requests_and_runs_are_streams() -> None:
    asked = request()
    levels = (ServiceLevel(Metric.TTFT, 90, 0.2),)
    options = ServingOptions(classes=(LengthClass("a", 700), LengthClass("b", 1200, levels), LengthClass("c", None)))
    classes, streams = classed(asked.requests, asked.levels, options)
    assert sum(one.share for one in classes) == pytest.approx(1.0)
    assert {stream.classes for stream in streams} == {(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)}
    assert levels[0] in next(stream.levels for stream in streams if stream.classes == (1, 2))
    assert tightest((*levels, ServiceLevel(Metric.TTFT, 90, 0.5))) == levels


def test_fronts_rise_and_hold_their_own() -> None:
    body, _ = plan_serving(request())
    front = pareto_front(body.pools.problem)
    assert check_front(body.pools.problem, front) == []
    assert front[-1].rate_per_s == pytest.approx(float(body.pools.rate_per_s))
    dear = replace(
        body.pools.problem, gpus=(replace(body.pools.problem.gpus[0], cost_per_hour=2.0), GpuPool("x", (1,)))
    )
    searched = pareto_front(dear)
    assert check_front(dear, searched) == []
    assert [one.rate_per_s for one in searched] == pytest.approx([one.rate_per_s for one in front])
    better = (*front[:-1], replace(front[-1], rate_per_s=front[-1].rate_per_s * 1.01))
    assert [finding.code for finding in check_front(body.pools.problem, better)] == ["TRD458"]
    assert check_front(body.pools.problem, front[::-1])


def test_the_plan_best_in_the_worst_case_is_not_worse_there() -> None:
    body, _ = plan_serving(request())
    none, some = robust_choice(body.pools, 0.0), robust_choice(body.pools, 0.3)
    assert none.worst == pytest.approx(0.0, abs=1e-6)
    assert some.counts_worst <= some.worst


def test_explanations_agree_with_plans_made_anew() -> None:
    body, _ = plan_serving(request(Objective.FEWEST_GPUS))
    found = explain_serving(body)
    assert found.value == body.pools.gpus_used
    more = next(one for one in found.changes if one.change == "10 % more requests")
    assert more.value is None or more.value >= found.value
    assert {one.limit for one in found.bindings} >= {"GPUs", "engine time", "tpot p90"}


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all numbers below a value."""
    if isinstance(data, dict):
        return [leaf for key, value in data.items() for leaf in leaves(value, (*path, key))]
    if isinstance(data, list):
        return [leaf for index, value in enumerate(data) for leaf in leaves(value, (*path, index))]
    return [path] if isinstance(data, int | float) and not isinstance(data, bool) else []


REPORTED = {"product", "cost_per_hour", "watts", "prompt_tokens", "output_tokens", "price"}
"""Fields without a claim of their own here: prices that this goal does not use, the mean lengths of a class for people,
and the budget of a front's point (at a tenth of a GPU more, the same rate is still the highest)."""


def test_two_hundred_forged_plans_are_rejected() -> None:
    """Change one number of a full plan by 10 %, seal it again, and review it: nothing may pass."""
    body, certificate = plan_serving(request())
    body = replace(body, front=pareto_front(body.pools.problem))
    plan = envelope(body, certificate)
    assert review_plan(plan, None).findings == ()
    data = to_data(plan)
    claims = [path for path in leaves(data["body"]) if path[0] in ("pools", "front") and not REPORTED & set(path)]
    used = [index for index, count in enumerate(body.pools.pools.counts) if count]
    claims = [path for path in claims if path[:3] != ("pools", "problem", "engines") or path[3] in used]
    random = Random(0)
    passed: list[tuple[Any, ...]] = []
    tried = 0
    while tried < 200:
        path = random.choice(claims)
        changed = json.loads(json.dumps(data))
        place = changed["body"]
        for step in path[:-1]:
            place = place[step]
        value = place[path[-1]]
        if not value:
            continue
        place[path[-1]] = value + max(1, value // 10) if isinstance(value, int) else value * 1.1
        tried += 1
        try:
            forged = from_data(changed, "plan.json").sealed()
            if not review_plan(forged, None).findings:
                passed.append((*path, value))
        except TreadleError:
            continue
    assert passed == []


def test_one_gpu_fewer_than_an_engine_is_refused() -> None:
    with pytest.raises(TreadleError, match="smallest engine"):
        plan_serving(replace(request(), kinds=KINDS_OF_ENGINE[2:], gpus=(GpuPool("h200", (3,)),)))


def test_classes_are_solved_with_a_tree_and_reviewed(tmp_path: Path) -> None:
    asked = request()
    options = ServingOptions(classes=(LengthClass("a", 900), LengthClass("b", None)))
    classes, streams = classed(asked.requests, asked.levels, options)
    body, certificate = plan_serving(replace(asked, classes=classes, streams=streams))
    assert certificate.status is Status.OPTIMAL
    assert isinstance(body.pools.problem.classes[0], RequestClass)
    assert review_plan(envelope(body, certificate), None).findings == ()
    problem = body.pools.problem
    for end in (800, 1000):
        moved = (replace(problem.classes[0], prompt_up_to=end), problem.classes[1])
        forged = replace(body, pools=replace(body.pools, problem=replace(problem, classes=moved)))
        assert [one.code for one in review_plan(envelope(forged, certificate), None).findings] == ["TRD498"]
    from treadle.codegen.folder import write_plan

    write_plan(tmp_path / "plan", envelope(body, certificate), {})
    assert encode(load(tmp_path / "plan").body) == encode(body)
