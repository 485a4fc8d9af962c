"""Rows in a process of their own: kernels that hang or end the process, and rehearsals of a whole run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from treadle.driver.bench import make_suite
from treadle.driver.bench_cases import Case
from treadle.driver.gpu import session
from treadle.driver.gpu.run import STEP_NAMES
from treadle.driver.gpu.session import Step
from treadle.driver.kernels import KernelOptions
from treadle.solvers.backend import Limits

pytest.importorskip("torch")

QUICK = KernelOptions(Limits(deterministic_s=0.02), compiled=False)
NORM = Case("layer_norm small", "layer_norm", {"rows": 9, "columns": 40}, languages=("triton",))
HANGS = "\n\ndef launch(*_, **__):\n    import time\n\n    time.sleep(600)\n"
ENDS = "\n\ndef launch(*_, **__):\n    import os\n\n    os._exit(7)\n"


STANDS_IN = """
import subprocess, sys, time
from pathlib import Path

out = Path(sys.argv[2])
out.with_suffix(".txt").write_text(" ".join(sys.argv))
if out.name == "slow":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    out.with_suffix(".pid").write_text(str(child.pid))
    time.sleep(60)
raise SystemExit(int("--check" in sys.argv))
"""


def _quiet(_: str) -> None:
    pass


def _prepared(folder: Path, *chosen: Case) -> Path:
    made = make_suite("h200", QUICK, _quiet, chosen)
    made.write(folder)
    return folder


def _run(folder: Path, out: Path, *more: str, status: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-P", str(folder / "run.py"), "--out", str(out), "--seed", "5", *more]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    record: dict[str, Any] = json.loads((out / "kernel_gpu.json").read_text())
    return record


def _spoil(folder: Path, row: dict[str, Any], text: str) -> None:
    """Give a row's kernel another launch, as the suite then names it."""
    path = folder / row["source"]
    path.write_text(path.read_text() + text)
    row["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()


def test_kernels_that_hang_or_end_the_process_cost_their_row_alone(tmp_path: Path) -> None:
    names = ("hangs", "ends", "works")
    folder = _prepared(tmp_path / "suite", *(Case(f"norm {name}", *_of(NORM)) for name in names))
    manifest = json.loads((folder / "suite.json").read_text())
    for row, text in zip(manifest["rows"], (HANGS, ENDS), strict=False):
        _spoil(folder, row, text)
    (folder / "suite.json").write_text(json.dumps(manifest))
    rows = _run(folder, tmp_path / "out", "--check", "--row-seconds", "9", "--processes", "2", status=1)["rows"]
    assert [row["state"] for row in rows] == ["failed", "failed", "checked"]
    assert "no answer within 9 s" in rows[0]["reason"]
    assert "ended with status 7" in rows[1]["reason"]
    assert rows[2]["check"]["correct"]


def _of(case: Case) -> tuple[str, dict[str, int], dict[str, Any], dict[str, int], dict[str, Any], int, tuple[str, ...]]:
    return case.family, case.shape, case.switches, case.tile_sizes, case.goal, case.top, case.languages


def runs(process: Path) -> bool:
    """Whether a process, given its folder of /proc, is there and no zombie."""
    try:
        return "(zombie)" not in (process / "status").read_text()
    except OSError:
        return False


def test_a_session_goes_through_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "run.py").write_text(STANDS_IN)
    steps = (
        Step("good", (), 9),
        Step("bad", ("--check",), 9),
        Step("gpu", ("--machine",), 9, True),
        Step("slow", (), 9),
    )
    monkeypatch.setattr(session, "SPARE_S", -1.0)
    assert session.hold(folder, tmp_path, ["--only", "gemm"], rehearse=True, steps=steps) == 1
    found = {outcome["name"]: outcome for outcome in json.loads((tmp_path / "session.json").read_text())}
    assert [outcome["status"] for outcome in found.values()] == [0, 1, None, None]
    assert found["gpu"]["note"] == session.LEFT_OUT
    assert found["slow"]["note"] == "ended after 8 s"
    child = Path("/proc") / (tmp_path / "slow.pid").read_text()
    # A killed process takes a moment to go.
    until_s = time.monotonic() + 20
    while runs(child) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not runs(child), "what it started still runs"
    assert (tmp_path / "good.txt").read_text().split()[-3:] == ["--only", "gemm", "--rehearse"]
    assert sum(step.seconds + 60 for step in session.STEPS) <= 30 * 60
    assert tuple(step.name for step in session.STEPS) == STEP_NAMES
    again = session.steps_called(["machine"])
    assert [step.name for step in again] == ["machine"]
    assert session.hold(folder, tmp_path, rehearse=True, steps=again) == 0
    names = [outcome["name"] for outcome in json.loads((tmp_path / "session.json").read_text())]
    assert names == ["good", "bad", "gpu", "slow", "machine"]


def test_a_rehearsal_does_all_that_a_run_does(tmp_path: Path) -> None:
    """Gluon kernels by the emulator, Triton by the interpreter; times of the host are no figures of the kernel."""
    gluon = Case(
        "swiglu small",
        "swiglu",
        {"m": 256, "n": 256, "k": 256},
        tile_sizes={"block_m": 128, "block_n": 64, "block_k": 64},
        languages=("gluon",),
    )
    folder = _prepared(tmp_path / "suite", NORM, gluon)
    record = _run(folder, tmp_path / "out", "--rehearse", "--processes", "2")
    assert record["rehearsed"]
    assert all(row["sample"]["correct"] and row["sample"]["rows"] > 1 for row in record["rows"])
    assert record["spent_s"]["check"] > 0 < record["estimate_s"]["check"]
    assert [row["state"] for row in record["rows"]] == ["measured", "measured"], record["rows"]
    assert all(row["times_us"]["treadle"] > 0 and row["check"]["correct"] for row in record["rows"])
    for name in ("kernel_gpu.txt", "kernel_gpu.svg"):
        assert (tmp_path / "out" / name).read_text()
