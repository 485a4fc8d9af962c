"""The command line as a whole: exit statuses, streams, messages, start-up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.samples import kernel_plan
from treadle.cli.main import main
from treadle.cli.verbs import VERBS
from treadle.codegen.folder import write_plan
from treadle.ir.diagnostics import ExitCode


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("treadle ")
    assert main(["--help"]) == 0
    help_text = capsys.readouterr().out
    for verb, (_, summary) in VERBS.items():
        assert verb in help_text
        assert summary[:30] in " ".join(help_text.split())


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"Usage: treadle {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nonsense"], ["verify"], ["verify", "a", "b"], ["verify", "--nonsense", "x"]])
def test_bad_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error" in captured.err


@pytest.mark.parametrize("arguments", [["verify", "--json"], ["verify", "--nonsense", "x", "--json"], ["no", "--json"]])
def test_bad_usage_is_data_on_request(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == "TRD008"
    assert "Usage: treadle" in captured.err


def test_missing_plan_is_2_with_a_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["verify", str(tmp_path / "nowhere")]) == ExitCode.USAGE
    assert "error TRD001: cannot read" in capsys.readouterr().err


def test_json_errors_are_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["verify", str(tmp_path), "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "TRD004"


def test_defects_are_101_and_leave_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("treadle.cli.verify.verify", fail)
    assert main(["verify", str(tmp_path)]) == ExitCode.INTERNAL
    message = capsys.readouterr().err
    assert "TRD099" in message
    assert "Traceback" not in message
    Path(message.split("traceback is in ")[1].split("\n")[0]).unlink()
    assert main(["verify", str(tmp_path), "--json"]) == ExitCode.INTERNAL
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "TRD099"
    Path(error["message"].split("traceback is in ")[1]).unlink()


def test_diff_of_equal_and_different_plans(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from dataclasses import replace

    write_plan(tmp_path / "old", kernel_plan(), {})
    write_plan(tmp_path / "new", replace(kernel_plan(), options={"seed": 1}), {})
    assert main(["diff", str(tmp_path / "old"), str(tmp_path / "old")]) == ExitCode.DONE
    assert main(["diff", str(tmp_path / "old"), str(tmp_path / "new")]) == ExitCode.UNMET
    assert "option seed" in capsys.readouterr().out


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from treadle.cli.main import main; main(['--help']);"
        "print(sorted({'ortools','sympy','numpy','networkx','torch','triton','matplotlib','pydantic','jinja2'}"
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip().endswith("[]")
