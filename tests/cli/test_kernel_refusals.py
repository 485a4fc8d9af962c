"""What no machine can run: the smallest conflicting set, and the nearest tile that fits - and does fit."""

from __future__ import annotations

import re

import pytest

from treadle.cli.main import main
from treadle.costmodels.machines import load_machine
from treadle.driver.nearest import nearest_tiles
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
