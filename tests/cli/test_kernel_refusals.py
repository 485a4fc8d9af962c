"""What no machine can run: the smallest conflicting set, and the nearest tile that fits - and does fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.costmodels.machines import load_machine
from treadle.driver.nearest import nearest_tiles
from treadle.driver.own_program import Request
from treadle.frontends import programs
from treadle.ir.diagnostics import ExitCode

GEMM = ["kernel", "gemm", "--no-compile", "--shape", "m=4k n=4k k=4k"]
ATTENTION = ["kernel", "attention_fwd", "--no-compile", "--limit", "0.05"]


@pytest.mark.parametrize(
    ("arguments", "code", "conflict", "nearest"),
    [
        (
            [*GEMM, "--machine", "h200", "--tiles", "block_m=256 block_n=256 block_k=256"],
            "TRD510",
            "`load_a` (1 x 131072), `load_b` (1 x 131072)",
            "block_m=128 block_n=256 block_k=256",
        ),
        (
            [*ATTENTION, "--machine", "mi300x"],
            "TRD510",
            "`load_k` (1 x 32768), `load_v` (1 x 32768)",
            "block_m=128 block_n=64 sub_tiles=2",
        ),
        (
            [*ATTENTION, "--machine", "h100", "--tiles", "block_m=128 block_n=128 sub_tiles=1", "--warps"],
            "TRD303",
            "`weights`, `rescaled`, `acc` need 256 registers",
            "block_m=128 block_n=128 sub_tiles=2",
        ),
    ],
)
def test_the_nearest_tile_that_fits(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: str, conflict: str, nearest: str
) -> None:
    assert main(arguments) == ExitCode.UNMET
    message = capsys.readouterr().err
    assert f"error {code}" in message
    assert conflict in message
    found = re.search(r'--tiles "([^"]+)"', message)
    assert found is not None
    assert found[1] == nearest


def test_what_no_tile_can_mend_is_refused_for_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", "gemm_fp8", "--machine", "a100", "--no-compile"]) == ExitCode.USAGE
    message = capsys.readouterr().err
    assert "error TRD203" in message
    assert "float8_e4m3 cannot run" in message
    assert "smaller tiles" not in message


def test_without_room_for_groups_the_nearest_tile_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    tiles = ["--tiles", "block_m=128 block_n=256 block_k=64"]
    assert main([*GEMM, "--machine", "h200", *tiles]) == ExitCode.DONE
    assert 'the nearest tile that fits is --tiles "block_m=128 block_n=128 block_k=64"' in capsys.readouterr().out


def test_nothing_near_fits() -> None:
    sizes = {"block_m": 256, "block_n": 256, "block_k": 256}
    program = programs.build("gemm_fp8", {"m": 4096, "n": 4096, "k": 4096}, sizes)
    assert nearest_tiles(program, load_machine("a100"), over_groups=False) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mine.py:product", "--tiles", "block_m=64", "--dtype", "float16"], "--tiles, --dtype cannot be used"),
        (["mine.py:product", "--switches", "scales=row"], "--switches cannot be used"),
        (["gemm", "--arguments", "a=*fp16", "--resources", "x.xml"], "--arguments, --resources cannot be used"),
        (["loop.graphml", "--shape", "m=3", "--warps", "--top", "2"], "--shape, --warps, --top cannot be used"),
        (["loop.graphml", "--latency-percentile", "90"], "--latency-percentile cannot be used"),
        (["loop.graphml", "--objective", "ii,length"], "--objective cannot be used"),
        (["gemm", "--program", "swiglu"], "two programs are given: `gemm`, and `swiglu`"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["kernel", *arguments]) == ExitCode.USAGE
    message = capsys.readouterr().err
    assert "error TRD006" in message
    assert words in message


PROGRAM = """
from treadle.frontends.programs.operations import load, mma
from treadle.ir.tile.program import TileProgram

def product(m=256, n=256, k=64):
    tiles = load("a", (m, k), "float16"), load("b", (k, n), "float16")
    sizes = {"m": m, "n": n, "k": k}
    return TileProgram("product", "mine", (*tiles, mma("acc", ("a", "b", "acc@1"), (m, n), k)), 8, 1, {}, sizes)
"""


def test_the_nearest_blocks_of_a_users_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PROGRAM)
    command = ["kernel", f"{file}:product", "--machine", "h100", "--no-compile", "--limit", "0.05"]
    assert main([*command, "--warps"]) == ExitCode.UNMET
    message = capsys.readouterr().err
    assert "error TRD303" in message
    assert "it fits with m=128 n=128 in --shape" in message
    assert main([*command, "--shape", "m=1024 n=512 k=512"]) == ExitCode.UNMET
    assert "it fits with k=64 in --shape" in capsys.readouterr().err


def test_constants_that_are_block_sizes() -> None:
    words = {"BLOCK_M": "128", "BM": "64", "BN1": "32", "BLOCK_SIZE_K": "64", "TILE": "8", "HEAD_DIM": "128", "D": "64"}
    program = programs.build("gemm", {"m": 64, "n": 64, "k": 64})
    found = Request("mine.py:f", {}, {**words, "stride": "1", "BETA": "1", "BIAS": "True", "block": "i32"}).sizes(
        program
    )
    assert found == {"BLOCK_M": 128, "BM": 64, "BN1": 32, "BLOCK_SIZE_K": 64, "TILE": 8}
