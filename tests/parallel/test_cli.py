"""The verb: plan, verify, mutate, and every error of bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.ir.plan import Plan, load
from treadle.ir.training.plan import ParallelBody, StageLayout
from treadle.verification.core import review_plan, verify

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
SPEC = """model = "config.json"
[training]
global_batch = 32
sequence_tokens = 1024
[cluster]
gpu = "a100"
nodes = 2
gpus_per_node = 4
network = "25GB/s"
[search]
micro_batch = [1, 2]
most_virtual = 2
"""


def write(folder: Path, spec: str = SPEC) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    path = folder / "training.toml"
    path.write_text(spec)
    return path


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    assert main(["parallel", str(write(folder)), "-o", str(folder / "plan")]) == 0
    return folder / "plan"


def test_plan_is_verified_clean(planned: Path) -> None:
    review = verify(planned)
    assert review.findings == ()
    assert review.on_solver_word == 0
    assert (planned / "training" / "megatron_args.sh").exists()
    assert b"<svg" in (planned / "report.html").read_bytes()


def test_json_is_the_plan_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path)
    texts: list[str] = []
    for _ in range(2):
        assert main(["parallel", str(spec), "--json"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["kind"] == "parallel"


def mutated(plan: Plan, **changes: object) -> Plan:
    return replace(plan, body=replace(plan.body, **changes)).sealed()


def codes(plan: Plan) -> set[str]:
    return {finding.code for finding in review_plan(plan, None).findings}


def test_mutations_are_found(planned: Path) -> None:
    plan = load(planned)
    body: ParallelBody = plan.body
    degrees, layout = body.degrees, body.layout
    assert codes(mutated(plan, degrees=replace(degrees, data=2 * degrees.data))) & {"TRD430", "TRD434"}
    assert "TRD436" in codes(mutated(plan, layout=StageLayout((*layout.layers[:-1], layout.layers[-1] + 1))))
    assert codes(mutated(plan, stages=body.stages[::-1] if len(body.stages) > 1 else ())) == {"TRD425"}
    slower = replace(body.alternatives[0], step_time_us=body.alternatives[0].step_time_us * 0.9)
    assert "TRD424" in codes(mutated(plan, alternatives=(slower,)))
    worse = body.alternatives[-1]
    assert "TRD425" in codes(mutated(plan, degrees=worse.degrees, layout=worse.layout))


def test_false_certificates_are_found(planned: Path) -> None:
    plan = load(planned)
    certificate = plan.certificates[0]
    closed, wide = certificate.levels
    fewer = replace(closed, evidence={**closed.evidence, "candidates": 1})
    assert "TRD426" in codes(replace(plan, certificates=(replace(certificate, levels=(fewer, wide)),)).sealed())
    if wide.bound is not None and wide.bound < wide.value:
        raised = replace(wide, bound=(wide.bound + wide.value) / 2)
        assert "TRD426" in codes(replace(plan, certificates=(replace(certificate, levels=(closed, raised)),)).sealed())


def test_a_worse_plan_with_its_own_certificate_is_beaten(planned: Path, tmp_path: Path) -> None:
    plan = load(planned)
    narrow = write(tmp_path, SPEC.replace("micro_batch = [1, 2]", "micro_batch = [1, 2]\ntensor = [4]"))
    assert main(["parallel", str(narrow), "-o", str(tmp_path / "narrow")]) == 0
    other = load(tmp_path / "narrow")
    posed = replace(other, body=replace(other.body, spec=plan.body.spec)).sealed()
    assert {"TRD426", "TRD427"} <= codes(posed)


@pytest.mark.parametrize(
    ("old", "new", "code", "exit_code"),
    [
        ('gpu = "a100"', 'gpu = "a10"', "TRD150", 2),
        ('network = "25GB/s"', 'network = "0GB/s"', "TRD151", 2),
        ("micro_batch = [1, 2]", "data = [3]", "TRD104", 2),
        ('network = "25GB/s"', 'network = "25"', "TRD105", 2),
        ("global_batch = 32", "global_batch = 32\nbatch = 32", "TRD102", 2),
        ("sequence_tokens = 1024\n", "", "TRD103", 2),
        ("global_batch = 32", 'precision = "fp8"\nglobal_batch = 32', "TRD159", 2),
        ("nodes = 2", "nodes = 2\ndomain_gpus = -1", "TRD104", 2),
        ("nodes = 2", "nodes = 3\nconnections = [[0, 1]]", "TRD151", 2),
        ("nodes = 2", "nodes = 2\nconnections = [[0, 5]]", "TRD104", 2),
        ("nodes = 2", 'nodes = 2\nhost_memory = "128"', "TRD105", 2),
        ("micro_batch = [1, 2]", 'schedule = ["zb"]', "TRD104", 2),
        ("micro_batch = [1, 2]", 'trainer = "nemo"', "TRD104", 2),
        ('model = "config.json"', 'model = "nowhere.json"', "TRD001", 2),
        ("micro_batch = [1, 2]", "tensor = [8]", "TRD104", 2),
        ("micro_batch = [1, 2]", 'most_memory = "100MB"', "TRD320", 1),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, code: str, exit_code: int
) -> None:
    assert old in SPEC
    assert main(["parallel", str(write(tmp_path, SPEC.replace(old, new, 1)))]) == exit_code
    message = capsys.readouterr().err
    assert code in message
    assert "Traceback" not in message


def test_places_and_nearest_legal_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        ("micro_batch = [1, 2]", "data = [5]"): ("training.toml:11:1", "4 or 8"),
        ("nodes = 2", "nodes = 3\nconnections = [[0, 1]]"): ("training.toml:8:1", "add [0, 2] to `connections`"),
        ('gpu = "a100"', 'gpu = "a1000"'): ("training.toml:6:1", "did you mean `a100`?"),
        ("[search]", '[[cluster.groups]]\ngpu = "b300x"\nnodes = 2\n[search]'): ("training.toml:11:1", 'gpu = "b300x"'),
        ("sequence_tokens = 1024\n", ""): ("training.toml", "sequence_tokens"),
    }
    for (old, new), said in cases.items():
        assert main(["parallel", str(write(tmp_path, SPEC.replace(old, new, 1)))]) == 2
        message = capsys.readouterr().err
        for words in said:
            assert words in message, message


def test_a_configuration_with_missing_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({key: CONFIG[key] for key in CONFIG if key != "hidden_size"}))
    assert main(["parallel", str(spec)]) == 2
    message = capsys.readouterr().err
    assert "hidden_size" in message
    assert "config.json" in message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("size,busbw\n1024,5\n", "nccl.txt"),
        ("#  Rank  0 Group 0 Pid 1 on host device 0\n#  size count\n 1024 256 float sum\n", "nccl.txt:3:1"),
        ("#  Rank  0 Group 0 Pid 1 on host device 0\n 1024 256 float sum -1 1.0 x 5 0 1 1 1 0\n", "nccl.txt:2:1"),
        ('{"results": []}', "nccl.txt"),
    ],
)
def test_nccl_files_of_other_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, place: str) -> None:
    spec = write(tmp_path, SPEC + '[[cluster.measured]]\nfile = "nccl.txt"\noperation = "all_reduce"\n')
    (tmp_path / "nccl.txt").write_text(text)
    assert main(["parallel", str(spec)]) == 2
    message = capsys.readouterr().err
    assert "error TRD153" in message
    assert place in message
    assert "hint" in message


def test_unsupported_layers_and_nccl_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path, SPEC + '[[cluster.measured]]\nfile = "nccl.txt"\noperation = "all_reduce"\n')
    (tmp_path / "nccl.txt").write_text("hello\n")
    assert main(["parallel", str(spec)]) == 2
    assert "TRD153" in capsys.readouterr().err
