"""Every example deployment compiles, covers its hot loops, serves its traffic, has its pods placed, and verifies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.ir.diagnostics import ExitCode

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/deployment.toml"))


@pytest.mark.parametrize("specification", EXAMPLES, ids=lambda path: path.parent.name)
def test_example(specification: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(tmp_path / "plan")
    status = main(["compile", str(specification), "-o", plan, "--no-compile", "--limit", "0.01", "--json"])
    assert status in (ExitCode.DONE, ExitCode.LIMIT)
    told = json.loads(capsys.readouterr().out)
    assert told["refused"] == {}
    assert told["findings"] == []
    assert len(told["kernels"]) >= 10
    assert {name: part["kind"] for name, part in told["parts"].items()} == {"packing": "packing", "serving": "serving"}
    assert [level["gap"] for level in told["parts"]["serving"]["levels"]] == [0]
    assert [level["gap"] for level in told["parts"]["packing"]["levels"]] == [0, 0, 0]
    assert main(["verify", plan]) == ExitCode.DONE
    assert {"kustomization.yaml"} < {path.name for path in (tmp_path / "plan" / "deploy").iterdir()}


def test_there_are_six() -> None:
    assert len(EXAMPLES) == 6
