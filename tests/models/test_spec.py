"""Deployment specifications: what they mean, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.conftest import DEPLOYMENTS, EXAMPLES
from treadle.frontends.spec import load_deployment, load_quantiles
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.workload import Goal, Metric, ServiceLevel

GOOD = """\
model    = "config.json"
workload = { trace = "t.csv", format = "azure-2023", rate = "12/s" }
slo      = { ttft_p90 = "600ms", tpot_p99_9 = "30ms" }
goal     = "most-goodput"

[cluster]
gpu   = "h200"
gpus  = 8
nodes = "nodes.json"

[precision]
weights = "float8_e4m3"

[kernels]
decode_batch = 32
"""

TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:48.68,20,5\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "nodes.json").write_text("{}")
    (tmp_path / "t.csv").write_text(TRACE)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    file = folder / "deployment.toml"
    file.write_text(text)
    return file


def test_everything_is_resolved(folder: Path) -> None:
    deployment = load_deployment(write(folder, GOOD))
    assert deployment.model_path == str(folder / "config.json")
    assert deployment.service_levels == (
        ServiceLevel(Metric.TTFT, 90.0, 0.6),
        ServiceLevel(Metric.TPOT, 99.9, 0.03),
    )
    assert deployment.goal is Goal.MOST_GOODPUT
    assert deployment.workload.rate_per_s == 12
    assert len(deployment.workload.requests) == 2
    assert deployment.workload.lengths.prompt(1.0) == 374
    assert deployment.cluster.nodes_path == str(folder / "nodes.json")
    assert (deployment.weight_dtype, deployment.kv_dtype, deployment.decode_batch) == ("float8_e4m3", "", 32)


def test_the_rate_of_a_trace_is_its_own_when_none_is_given(folder: Path) -> None:
    deployment = load_deployment(write(folder, GOOD.replace(', rate = "12/s"', "")))
    assert deployment.workload.rate_per_s == 0.5


def test_inline_quantiles(folder: Path) -> None:
    inline = "quantiles = { probability = [0.5, 0.9], prompt_tokens = [10, 20], output_tokens = [1, 2] }"
    text = GOOD.replace('trace = "t.csv", format = "azure-2023", rate = "12/s"', inline)
    deployment = load_deployment(write(folder, text))
    assert deployment.workload.lengths.prompt(0.9) == 20
    assert deployment.workload.rate_per_s is None


@pytest.mark.parametrize("folder_name", DEPLOYMENTS)
def test_examples(folder_name: str) -> None:
    deployment = load_deployment(EXAMPLES / folder_name)
    lengths = deployment.workload.lengths
    assert lengths == load_quantiles(EXAMPLES / folder_name / "lengths.toml")
    assert lengths.source
    if folder_name == "kimi-k2-b200":  # the fixed lengths of an issue of its own
        assert (lengths.prompt(0.1), lengths.prompt(0.99)) == (8192, 8192)
        return
    assert lengths.requests == 19_366
    assert "Azure" in lengths.source
    assert lengths.licence == "CC-BY 4.0"
    assert lengths.prompt(0.5) == 1020


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "says"),
    [
        ('goal     = "most-goodput"', 'gaol = "most-goodput"', "TRD102", 4, "did you mean `goal`"),
        ("gpus  =", "gpuss  =", "TRD102", 8, "did you mean `gpus`"),
        ('rate = "12/s"', 'rat = "12/s"', "TRD102", 2, "did you mean `rate`"),
        ("ttft_p90", "ttf_p90", "TRD102", 3, "did you mean `ttft_p90`"),
        ('model    = "config.json"\n', "", "TRD103", 0, "model"),
        ('gpu   = "h200"\n', "", "TRD103", 6, "gpu"),
        (', format = "azure-2023"', "", "TRD103", 2, "azure-2023, mooncake"),
        ("gpus  = 8", 'gpus  = "8"', "TRD104", 8, "integer"),
        ("gpus  = 8", "gpus  = -8", "TRD104", 8, "greater than"),
        ("decode_batch = 32", "decode_batch = 0", "TRD104", 15, "greater than"),
        ('rate = "12/s"', 'rate = "0/s"', "TRD104", 2, "above zero"),
        ('rate = "12/s"', 'rate = "12 ms"', "TRD105", 2, "12/s"),
        ('rate = "12/s"', 'rate = "12"', "TRD105", 2, "rate"),
        ('"600ms"', '"600"', "TRD105", 3, "600ms"),
        ('"600ms"', '"-600ms"', "TRD105", 3, "time"),
        ("tpot_p99_9", "tpot_p101", "TRD104", 3, "percentile"),
        ('gpu   = "h200"', 'gpu   = "h20"', "TRD007", 7, "h200"),
        ('"most-goodput"', '"most-throughput"', "TRD007", 4, "fewest-gpus"),
        ('"azure-2023"', '"azure"', "TRD007", 2, "azure-2023"),
        ('"float8_e4m3"', '"fp8"', "TRD007", 12, "float8_e4m3"),
        ('"config.json"', '"configs.json"', "TRD001", 1, "no such file"),
        ('"t.csv"', '"u.csv"', "TRD001", 2, "no such file"),
        ('"nodes.json"', '"node.json"', "TRD001", 9, "no such file"),
        ('trace = "t.csv", format = "azure-2023", ', "", "TRD126", 2, "one of"),
        ('trace = "t.csv"', 'quantiles = "t.csv"', "TRD126", 2, "belongs to a trace"),
        ("[cluster]", "[cluster", "TRD101", 6, "not TOML"),
        ('goal     = "most-goodput"', "goal = ", "TRD101", 4, "not TOML"),
    ],
)
def test_wrong_specifications(folder: Path, old: str, new: str, code: str, line: int, says: str) -> None:
    assert old in GOOD
    file = write(folder, GOOD.replace(old, new))
    with pytest.raises(TreadleError) as caught:
        load_deployment(file)
    error = caught.value
    assert error.code == code
    assert error.exit_code is ExitCode.USAGE
    assert error.place is not None
    assert error.place.file == str(file)
    assert error.place.line == line
    assert says in error.render()


@pytest.mark.parametrize(
    ("lists", "code"),
    [
        ("probability = [0.5]\nprompt_tokens = [1, 2]\noutput_tokens = [1]", "TRD126"),
        ("probability = [0.9, 0.5]\nprompt_tokens = [1, 2]\noutput_tokens = [1, 2]", "TRD006"),
        ("probability = [0.5]\nprompt_tokens = [0]\noutput_tokens = [1]", "TRD006"),
        ("probability = [0.5]\nprompt_tokens = [1.5]\noutput_tokens = [1]", "TRD104"),
        ("probability = []\nprompt_tokens = []\noutput_tokens = []", "TRD104"),
    ],
)
def test_wrong_quantiles(tmp_path: Path, lists: str, code: str) -> None:
    file = tmp_path / "lengths.toml"
    file.write_text(lists)
    with pytest.raises(TreadleError) as caught:
        load_quantiles(file)
    assert caught.value.code == code
    assert caught.value.place is not None
    assert caught.value.place.line > 0
