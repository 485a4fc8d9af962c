"""Every example deployment compiles, covers its hot loops, serves its traffic, has its pods placed, and verifies."""

from __future__ import annotations

import json
from importlib.util import find_spec
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


OWN = Path(__file__).parents[2] / "examples" / "own-kernels-h100"


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    command = ["kernel", *arguments, "--machine", "h100", "--no-compile", "--limit", "0.2", "--json"]
    assert main(command) in (ExitCode.DONE, ExitCode.LIMIT)
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    assert told["findings"] == []
    return told


def test_a_tile_program_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(tmp_path / "plan")
    told = planned(capsys, f"{OWN / 'softmax_product.py'}:heads_together", "--shape", "keys=4k", "-o", plan)
    assert told["ii_cycles"] == 1024  # two products of 64 x 128 x 128 multiply-adds at 2,048 a cycle
    assert told["group_names"] == ["load", "group 1", "group 2"]
    assert main(["verify", plan]) == ExitCode.DONE


@pytest.mark.skipif(find_spec("triton") is None, reason="extra `kernels`")
def test_a_triton_kernel_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    types = "a_ptr=*fp16 b_ptr=*fp16 c_ptr=*fp16 M=i32 N=i32 K=i32 BLOCK_M=128 BLOCK_N=128 BLOCK_K=64"
    kernel = f"{OWN / 'matmul.py'}:matmul"
    told = planned(capsys, kernel, "--shape", "K=4096 grid=1024 warps=8", "--arguments", types)
    assert told["ii_cycles"] == 512
