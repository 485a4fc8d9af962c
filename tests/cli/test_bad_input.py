"""Bad input on the command line: one message with code, place and way out, the right status, nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.ir.diagnostics import ExitCode

EXAMPLE = Path(__file__).parents[2] / "examples" / "llama-3.1-8b-h200"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["kernel"], "TRD006", "no program given"),
        (["kernel", "gemmm"], "TRD500", "did you mean `gemm`"),
        (["kernel", "gemm", "--shape", "m=1 n=2"], "TRD50", "k"),
        (["kernel", "gemm", "--shape", "m=-1 n=2 k=3"], "TRD101", "--shape:1:1"),
        (["kernel", "gemm", "--shape", "m=0 n=2 k=3"], "TRD50", "m"),
        (["kernel", "gemm", "--shape", "m=8 m=8"], "TRD101", "given twice"),
        (["kernel", "gemm", "--machine", "h300"], "TRD007", "did you mean"),
        (["kernel", "gemm", "--machine", "./none.toml"], "TRD001", "none.toml"),
        (["kernel", "gemm", "--dtype", "float17"], "TRD50", "float17"),
        (["kernel", "gemm", "--tiles", "block_q=3"], "TRD50", "block_q"),
        (["kernel", "attention_fwd", "--shape", "heads=7 kv_heads=3 seq=64 head_dim=64"], "TRD50", "heads"),
        (["kernel", "none.graphml"], "TRD", "none"),
        (["compile", "none.toml", "-o", "out"], "TRD001", "none.toml"),
        (["verify", "none"], "TRD001", "none"),
        (["explain", "none"], "TRD001", "none"),
        (["show", "none"], "TRD001", "none"),
        (["diff", "none", "none"], "TRD001", "none"),
        (["machines", "h300"], "TRD007", "h300"),
    ],
)
def test_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], code: str, words: str) -> None:
    status, message = run(capsys, *arguments)
    assert status == ExitCode.USAGE
    assert f"error {code}" in message
    assert words in message


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("config.json", "{", "", "config.json:"),
        ("config.json", '"hidden_size": 4096', '"hidden_size": -4096', "hidden_size"),
        ("config.json", '"hidden_size": 4096', '"hidden_size": "wide"', "hidden_size"),
        ("config.json", '"num_hidden_layers": 32,', "", "num_hidden_layers"),
        ("deployment.toml", "gpu", "gpuu", "deployment.toml"),
        ("deployment.toml", '"h200"', '"h300"', "h300"),
        ("deployment.toml", "[cluster]", "[cluster", "deployment.toml:"),
        ("deployment.toml", "ms", "MB", "deployment.toml"),
    ],
)
def test_specifications(
    capsys: pytest.CaptureFixture[str], example: Path, file: str, old: str, new: str, words: str
) -> None:
    text = (example / file).read_text()
    assert old in text
    (example / file).write_text(text.replace(old, new, 1))
    target = example / "plan"
    status, message = run(capsys, "compile", str(example / "deployment.toml"), "-o", str(target))
    assert status == ExitCode.USAGE
    assert "error TRD" in message
    assert words in message
    assert not target.exists()


def test_an_unknown_architecture(capsys: pytest.CaptureFixture[str], example: Path) -> None:
    text = (example / "config.json").read_text()
    changed = text.replace("LlamaForCausalLM", "SquirrelForCausalLM").replace('"llama"', '"squirrel"')
    (example / "config.json").write_text(changed)
    status, message = run(capsys, "compile", str(example / "deployment.toml"), "-o", str(example / "plan"))
    assert status == ExitCode.USAGE
    assert "squirrel" in message.lower()
    assert "config.json" in message


def test_a_foreign_folder_is_not_touched(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    status, message = run(capsys, "kernel", "gemm", "--no-compile", "-o", str(tmp_path))
    assert status == ExitCode.USAGE
    assert "TRD002" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_machine_without_a_needed_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[2] / "costmodels" / "data" / "machines" / "h200.toml").read_text()
    lines = [
        line for line in shipped.splitlines() if not line.startswith("tma_") and "global_latency_cycles" not in line
    ]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    status, message = run(capsys, "kernel", "gemm", "--machine", str(tmp_path / "mine.toml"))
    assert status != ExitCode.DONE
    assert "has no figure" in message


def test_plans_of_another_version_and_changed_plans(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    assert main(["kernel", "gemm", "--no-compile", "-o", str(folder)]) == ExitCode.DONE
    data = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**data, "format": "treadle-plan/99"}))
    status, message = run(capsys, "verify", str(folder))
    assert (status, "TRD003" in message) == (ExitCode.USAGE, True)
    data["body"]["kernels"][0]["schedule"]["ii_cycles"] -= 1
    (folder / "plan.json").write_text(json.dumps(data))
    assert main(["verify", str(folder)]) == ExitCode.UNMET


def test_without_a_compiler(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from importlib.metadata import PackageNotFoundError

    from treadle.codegen.triton import compile as compiler

    def missing(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", missing)
    compiler._triton_version.cache_clear()  # pyright: ignore[reportPrivateUsage]  # the answer is kept per process
    status, message = run(capsys, "kernel", "gemm", "-o", str(tmp_path / "plan"))
    compiler._triton_version.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert status == ExitCode.USAGE
    assert "TRD005" in message
    assert "treadle[kernels]" in message
