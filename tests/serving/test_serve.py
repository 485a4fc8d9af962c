"""`treadle serve` and `treadle layout` end to end: plans, reviews, manifests, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from jsonschema.validators import validator_for

from tests.serving.schemas import ENGINES, KINDS
from treadle.cli.main import main
from treadle.codegen.serving.files import serving_files
from treadle.ir.certificate import Status
from treadle.ir.errors import Unmet
from treadle.ir.plan import Plan, load
from treadle.ir.serving.plan import KindOfEngine, ServingPlan
from treadle.ir.serving.pools import GpuPool, Objective, Pools, Role, Shape
from treadle.ir.serving.profile import Profile
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import Metric, Request, ServiceLevel
from treadle.solvers.serving.fleet_plan import ServingRequest, plan_serving
from treadle.verification.core import review_plan

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
SPECIFICATION = """
model = "config.json"
workload = {{ trace = "trace.csv", format = "azure-2023", rate = "{rate}/s" }}
slo = {{ ttft_p90 = "{ttft}", tpot_p90 = "{tpot}" }}
goal = "{goal}"

[cluster]
gpu = "h200"
gpus = {gpus}
gpus_per_node = 8
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    rows = [
        f"2023-11-16 18:15:{second:02d}.{tenth}000000,{400 + 37 * second},{20 + tenth}"
        for second in range(50)
        for tenth in range(10)
    ]
    (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")

    def written(**values: object) -> Path:
        defaults = {"rate": 20, "ttft": "400ms", "tpot": "20ms", "goal": "fewest-gpus", "gpus": 8}
        file = tmp_path / "deployment.toml"
        file.write_text(SPECIFICATION.format(**{**defaults, **values}))
        return file

    return written


@pytest.mark.parametrize("goal", ["fewest-gpus", "most-goodput", "least-cost"])
def test_serve_writes_a_plan_that_verifies(
    write: Write, tmp_path: Path, goal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["serve", str(write(goal=goal, gpus=2)), "--roofline", "--json", "-o", str(tmp_path / "plan")])
    report = json.loads(capsys.readouterr().out)
    assert status == 0, report
    assert report["status"] == "optimal"
    assert report["replay"]["met"]
    assert report["levels"][0]["gap"] == 0
    assert main(["verify", str(tmp_path / "plan")]) == 0


def test_same_inputs_give_the_same_bytes(write: Write, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(["serve", str(write()), "--roofline", "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "one" / "plan.json").read_bytes() == (tmp_path / "two" / "plan.json").read_bytes()


@pytest.mark.parametrize(
    ("values", "code", "status", "words"),
    [
        ({"tpot": "1us"}, "TRD342", 1, "nearest that can: tpot_p90 <="),
        ({"rate": 100000}, "TRD344", 1, "at most"),
        ({"goal": "quickest"}, "TRD", 2, "quickest"),
    ],
)
def test_requests_that_cannot_be_met(
    write: Write, capsys: pytest.CaptureFixture[str], values: dict[str, object], code: str, status: int, words: str
) -> None:
    assert main(["serve", str(write(**values)), "--roofline"]) == status
    message = capsys.readouterr().err
    assert code in message
    assert words in message


def test_unmeasured_model_is_refused_without_roofline(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**CONFIG, "head_dim": 96, "num_attention_heads": 8}
    file = write()
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["serve", str(file)]) == 2
    assert "TRD144" in (message := capsys.readouterr().err)
    assert "--roofline" in message


def test_layout_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "b.csv"
    file.write_text("id,lower,upper,size\na,0,4,4\nb,2,6,4\n")
    assert main(["layout", "buffers", str(file), "--capacity", "8", "--json", "-o", str(tmp_path / "p")]) == 0
    assert json.loads(capsys.readouterr().out)["placement"]["height_bytes"] == 8
    assert main(["verify", str(tmp_path / "p")]) == 0
    assert main(["layout", "buffers", str(file), "--capacity", "7"]) == 1
    assert main(["layout", "buffers", str(tmp_path / "none.csv")]) == 2


# --- plans made directly, without a model ---------------------------------------------------------------------------

PROFILE = Profile((1, 64, 1024, 8192), (0.004, 0.005, 0.03, 0.22), 1e-9, 2e-8)
REQUESTS = tuple(Request(0.05 * i, 500 + 13 * (i % 90), 20 + i % 150) for i in range(600))
KINDS_OF_ENGINE = tuple(
    KindOfEngine(
        "h200", Shape(n), n, 200_000 * n, replace(PROFILE, linear_s=tuple(t / n**0.8 for t in PROFILE.linear_s))
    )
    for n in (1, 2, 4)
)


def request(objective: Objective = Objective.MOST_REQUESTS, **limits: float) -> ServingRequest:
    levels = (
        ServiceLevel(Metric.TTFT, 90, limits.get("ttft", 0.5)),
        ServiceLevel(Metric.TPOT, 90, limits.get("tpot", 0.02)),
    )
    return ServingRequest(
        "model", "served", "given", 1000.0, 5e10, REQUESTS, 30.0, levels, KINDS_OF_ENGINE,
        (GpuPool("h200", (8,)),), objective, Lengths.of(REQUESTS),
    )  # fmt: skip


def envelope(body: ServingPlan, certificate: Any) -> Plan:
    return Plan("serving", (), {}, {}, body, (certificate,)).sealed()


def test_plan_meets_levels_in_the_replay_and_reviews_clean() -> None:
    body, certificate = plan_serving(request())
    assert certificate.status is Status.OPTIMAL
    assert body.replay is not None
    assert body.replay.met
    assert review_plan(envelope(body, certificate), None).findings == ()


def test_headroom_found_by_bisection_costs_no_more_gpus_than_needed() -> None:
    asked = replace(request(Objective.FEWEST_GPUS, ttft=0.12, tpot=0.012), rate_per_s=60.0)
    body, _ = plan_serving(asked)
    assert body.replay is not None
    assert body.replay.met
    fewer = replace(asked, gpus=(GpuPool("h200", (body.pools.gpus_used - 1,)),))
    try:
        smaller, _ = plan_serving(fewer)
    except Unmet:
        return
    assert smaller.replay is not None
    assert not smaller.replay.met


def test_no_candidate_holds_more_than_its_cache_at_p99() -> None:
    tight = tuple(replace(kind, kv_tokens=9_000 * kind.gpus) for kind in KINDS_OF_ENGINE)
    body, _ = plan_serving(replace(request(), kinds=tight))
    assert body.pools.problem.engines
    for engine in body.pools.problem.engines:
        assert engine.kv_tokens_needed <= engine.kv_tokens
    assert body.replay is not None
    assert body.replay.preemptions == 0


def test_mutations_of_a_serving_plan_are_found() -> None:
    body, certificate = plan_serving(request())
    engines = body.pools.problem.engines

    def codes(changed: ServingPlan) -> set[str]:
        return {finding.code for finding in review_plan(envelope(changed, certificate), None).findings}

    faster = tuple(replace(engine, seconds=(engine.seconds[0] * 0.9,)) for engine in engines)
    assert "TRD498" in codes(
        replace(body, pools=replace(body.pools, problem=replace(body.pools.problem, engines=faster)))
    )
    more = tuple(count + 20 for count in body.pools.pools.counts)
    assert "TRD453" in codes(replace(body, pools=replace(body.pools, pools=replace(body.pools.pools, counts=more))))
    slower = tuple((rate[0] * 0.9,) for rate in body.pools.pools.routing_per_s)
    halved = replace(body, pools=replace(body.pools, pools=Pools(body.pools.pools.counts, slower)))
    assert "TRD457" in codes(halved)
    tighter = replace(body, levels=(replace(body.levels[0], limit_s=0.001), body.levels[1]))
    assert "TRD498" in codes(tighter)


def disaggregated_plan() -> ServingPlan:
    """Force prefill and decode pools by leaving out aggregated candidates' engines."""
    body, _ = plan_serving(request())
    engines = body.pools.problem.engines
    counts = tuple(int(engine.role is not Role.AGGREGATED) for engine in engines)
    return replace(body, pools=replace(body.pools, pools=replace(body.pools.pools, counts=counts)))


@pytest.mark.parametrize("split", [False, True])
def test_every_emitted_file_passes_its_schema(split: bool) -> None:
    body = disaggregated_plan() if split else plan_serving(request())[0]
    files = serving_files(body, "llm")
    assert ("deploy/disaggregatedset.yaml" in files) is split
    for path, data in files.items():
        documents = list(yaml.safe_load_all(data))
        assert documents, path
        assert data.startswith(b"{" if path.endswith(".json") else b"# ")
        for document in documents:
            if path.startswith("engines/"):
                jsonschema.validate(document, ENGINES[path.split(".")[-2]])
            elif "kind" in document:
                jsonschema.validate(document, KINDS[document["kind"]])
    assert {"deploy/deployments.yaml", "deploy/dynamo.yaml", "deploy/kserve.yaml"} <= set(files)


BIG = Path(__file__).parents[3] / "shared" / "data" / "schemas"


@pytest.mark.skipif(not BIG.is_dir(), reason="the published schemas are not there; the small ones were used")
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", ["llm-d", "production-stack", "lws_leaderworkersets", "lws_disaggregatedsets"])
def test_emitted_files_pass_the_published_schemas(split: bool, name: str) -> None:
    files = serving_files(disaggregated_plan() if split else plan_serving(request())[0])
    if name.startswith("lws"):
        crd = yaml.load((BIG / f"{name}.yaml").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        schema = _plain(crd["spec"]["versions"][-1]["schema"]["openAPIV3Schema"])
        path = f"deploy/{name.removeprefix('lws_')}.yaml".replace("disaggregatedsets", "disaggregatedset")
    else:
        file = "llm-d-modelservice_values" if name == "llm-d" else "production-stack_values"
        schema, path = json.loads((BIG / f"{file}.schema.json").read_text()), f"deploy/{name}.values.yaml"
    assert (path in files) == (split or name != "lws_disaggregatedsets"), "only split pools have a DisaggregatedSet"
    for document in yaml.safe_load_all(files.get(path, b"")):
        validator_for(schema)(schema).validate(document)


def _plain(schema: Any) -> Any:
    """Drop Kubernetes extensions that JSON Schema does not know."""
    if isinstance(schema, dict):
        if schema.get("x-kubernetes-int-or-string"):
            return {"type": ["integer", "string"]}
        return {key: _plain(value) for key, value in schema.items() if not key.startswith("x-kubernetes")}
    return [_plain(one) for one in schema] if isinstance(schema, list) else schema


def test_plan_json_round_trips(tmp_path: Path) -> None:
    body, certificate = plan_serving(request(Objective.FEWEST_GPUS))
    from treadle.codegen.folder import write_plan

    write_plan(tmp_path / "plan", Plan("serving", (), {}, {}, body, (certificate,)), serving_files(body))
    assert load(tmp_path / "plan").body == body
