"""`--resume`: a kernel cut short by its limit is continued, and a proven one is not searched again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.driver.resume import earlier_schedules
from treadle.ir.certificate import Status
from treadle.ir.diagnostics import ExitCode

COMMAND = ["kernel", "attention_fwd", "--machine", "b200", "--no-warps", "--no-compile", "--json"]


def test_a_kernel_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "plan")
    assert main([*COMMAND, "-o", folder, "--limit", "0.01"]) == ExitCode.LIMIT
    short = json.loads(capsys.readouterr().out)
    assert main([*COMMAND, "-o", folder, "--limit", "0.01", "--resume"]) == ExitCode.LIMIT
    again = json.loads(capsys.readouterr().out)
    assert again["ii_cycles"] <= short["ii_cycles"]
    assert main([*COMMAND, "-o", folder, "--resume"]) == ExitCode.DONE
    whole = json.loads(capsys.readouterr().out)
    assert whole["ii_cycles"] == 1024
    ((solution,),) = [list(earlier_schedules(tmp_path / "plan").values())]
    assert solution.certificate.status is Status.OPTIMAL


def test_nothing_to_continue_is_a_fresh_start(tmp_path: Path) -> None:
    assert earlier_schedules(tmp_path / "nowhere") == {}


def test_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "-o", str(tmp_path), "--resume"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "TRD004"


def test_a_schedule_that_is_not_legal_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plan"
    assert main(["kernel", "gemm", "--no-compile", "-o", str(folder)]) == ExitCode.DONE
    capsys.readouterr()
    plan = json.loads((folder / "plan.json").read_text())
    starts = plan["body"]["kernels"][0]["schedule"]["start_cycles"]
    starts[next(iter(starts))] += 10**6
    (folder / "plan.json").write_text(json.dumps(plan))
    assert earlier_schedules(folder) == {}
