"""`treadle kernel` over warp groups: figures, verification, drawings, alternatives, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.ir.diagnostics import ExitCode

SHAPE = ["--shape", "m=2048 n=2048 k=2048", "--tiles", "block_m=128 block_n=128 block_k=64"]
GEMM = ["kernel", "gemm", "--machine", "h100", "--no-compile", *SHAPE]


def data_of(capsys: pytest.CaptureFixture[str], *command: str, code: ExitCode = ExitCode.DONE) -> dict[str, object]:
    assert main([*command, "--json"]) == code
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_groups_are_planned_verified_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plan"
    data = data_of(capsys, *GEMM, "-o", str(folder))
    assert data["ii_cycles"] == 512
    assert [level["name"] for level in data["levels"]][:2] == ["ii", "traffic_bytes"]  # type: ignore[attr-defined]
    assert data["group_names"] == ["load", "group 1"]
    assert set(data["solve_seconds"]) == {"gemm"}  # type: ignore[call-overload]
    assert (folder / "timelines" / "gemm.groups.svg").is_file()
    assert main(["verify", str(folder)]) == ExitCode.DONE
    assert main(["show", str(folder), "--kernel", "gemm"]) == ExitCode.DONE
    assert "group 1" in capsys.readouterr().out
    assert main(["explain", str(folder)]) == ExitCode.DONE
    assert "half the registers" in capsys.readouterr().out


def test_a_changed_group_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plan"
    data_of(capsys, *GEMM, "-o", str(folder))
    plan = json.loads((folder / "plan.json").read_text())
    plan["body"]["kernels"][0]["groups"]["schedule"]["groups"]["load_b"] = 1
    (folder / "plan.json").write_text(json.dumps(plan))
    assert main(["verify", str(folder)]) == ExitCode.UNMET


def test_without_groups(capsys: pytest.CaptureFixture[str]) -> None:
    data = data_of(capsys, *GEMM, "--no-warps")
    assert "groups" not in data
    assert data["solve_seconds"] == {}


def test_more_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["--shape", "heads=4 seq=512 qk_head_dim=128", "--tiles", "block_m=64 block_n=64 sub_tiles=1"]
    command = ["kernel", "attention_fwd", "--machine", "h100", "--no-compile", "--top", "2", "--limit", "0.2", *shape]
    assert main([*command, "--json"]) in (ExitCode.DONE, ExitCode.LIMIT)
    kernels = json.loads(capsys.readouterr().out)["kernels"]
    assert len(kernels) == 2
    assert kernels[0]["groups"] != kernels[1]["groups"]
    assert kernels[0]["ii_cycles"] == kernels[1]["ii_cycles"]


@pytest.mark.parametrize("objective", ["speed", "ii,groups,groups", "length,ii"])
def test_an_unknown_objective(objective: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GEMM, "--objective", objective, "--json"]) == ExitCode.USAGE
    assert "objective" in json.loads(capsys.readouterr().out)["error"]["message"]
