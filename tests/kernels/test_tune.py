"""Tuning: candidates of both languages, the fastest that is correct, and records of other machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.suites import QUICK, invoke, quiet
from treadle.cli.kernel_report import measured_line
from treadle.cli.main import main as command_line
from treadle.codegen.folder import write_plan
from treadle.driver import measure
from treadle.driver.kernel import KernelRequest
from treadle.driver.tune import NothingMeasured, OtherKernels, candidates, measured_elsewhere, tune
from treadle.ir.tile.kernel import Measured
from treadle.verification.core import review_plan


def measured_as(times_us: list[float], **environment: str) -> Callable[[Path], dict[str, Any]]:
    def record(folder: Path) -> dict[str, Any]:
        rows = json.loads((folder / "suite.json").read_text())["rows"]
        for one, time_us in zip(rows, times_us, strict=True):
            one["state"], one["times_us"], one["clock_mhz"] = "measured", {"treadle": time_us}, 1500.0
            if one.get("refused"):
                one["state"] = "refused"
            elif time_us == 0:
                one["state"], one["check"] = "wrong", {"reason": "relative error 1e+00"}
        found = {"gpu": "Test GPU", "driver_version": "1.2", "torch": "2.11", "triton": "3.6", "date": "2026-11-21"}
        return {"rows": rows, "environment": {**found, **environment}, "figures": {}, "lines": []}

    return record


REQUEST = KernelRequest("gemm", "h200", {"m": 512, "n": 512, "k": 512})


def test_tuning_keeps_the_fastest_that_is_correct(tmp_path: Path) -> None:
    options = replace(QUICK, top=3)
    plan, files, rows = tune(REQUEST, options, tmp_path, measured_as([30.0, 20.0, 25.0]), quiet, ("triton",))
    (kernel,) = plan.body.kernels
    assert kernel.program.tile_sizes == rows[1]["tile_sizes"]
    assert kernel.measured == Measured(
        20.0, "Test GPU", "1.2", {"torch": "2.11", "triton": "3.6"}, "2026-11-21", 1500.0, kernel.measured.runners_up
    )
    assert sorted(kernel.measured.runners_up.values()) == [25.0, 30.0]
    assert kernel.prediction_error == pytest.approx(kernel.prediction("time").value / 20.0 - 1)
    assert set(files) == {"kernels/gemm.py", "timelines/gemm.json", "report.html"}
    assert review_plan(plan.sealed(), None).findings == ()


def test_wrong_candidates_never_win(tmp_path: Path) -> None:
    two = replace(QUICK, top=2)
    plan, _, rows = tune(REQUEST, two, tmp_path, measured_as([0.0, 20.0]), quiet, ("triton",))
    assert plan.body.kernels[0].program.tile_sizes == rows[1]["tile_sizes"]
    with pytest.raises(NothingMeasured, match="relative error"):
        tune(REQUEST, two, tmp_path / "other", measured_as([0.0, 0.0]), quiet, ("triton",))


def test_schedules_over_warp_groups_are_candidates_too(tmp_path: Path) -> None:
    """Both languages are timed in one run; a Gluon winner is written as it was measured, and its plan verifies."""
    request = replace(REQUEST, shape={"m": 2048, "n": 2048, "k": 512})
    times = measured_as([30.0, 26.0, 21.0, 25.0])
    plan, files, rows = tune(request, replace(QUICK, top=2), tmp_path, times, quiet)
    assert [row["language"] for row in rows] == ["triton", "triton", "gluon", "gluon"]
    assert len({row["schedule"] for row in rows}) == 4
    (kernel,) = plan.body.kernels
    assert (kernel.name, kernel.language) == ("gemm", "gluon")
    assert kernel.measured.predicted_us == rows[2]["predicted_us"]
    assert kernel.prediction_error == pytest.approx(rows[2]["predicted_us"] / 21.0 - 1)
    assert len(kernel.measured.runners_up) == 3
    written = write_plan(tmp_path / "plan", plan, files)
    assert review_plan(written, tmp_path / "plan").findings == ()
    assert "gluon.jit" in files["kernels/gemm.py"].decode()


def test_a_compiled_winner_has_the_binary_that_keeps_its_plan(tmp_path: Path) -> None:
    options = replace(QUICK, top=1, compiled=True)
    given = replace(REQUEST, tile_sizes={"block_m": 128, "block_n": 128, "block_k": 64})
    plan, files, _ = tune(given, options, tmp_path, measured_as([30.0, 20.0]), quiet)
    (kernel,) = plan.body.kernels
    assert kernel.language == "gluon"
    assert [binary.spill_bytes for binary in kernel.compiled] == [0]
    assert {binary.binary for binary in kernel.compiled} < set(files)
    written = write_plan(tmp_path / "plan", plan, files)
    assert review_plan(written, tmp_path / "plan").findings == ()


def test_what_has_no_frame_is_said_and_the_others_are_timed(tmp_path: Path) -> None:
    told: list[str] = []
    plan, _, rows = tune(
        KernelRequest("rms_norm", "h200", {"rows": 64, "columns": 128}), replace(QUICK, top=1), tmp_path,
        lambda folder: measured_as([5.0, 1.0])(folder), told.append,
    )  # fmt: skip
    assert plan.body.kernels[0].language == "triton"
    assert any("TRD550" in line for line in told)
    assert len(rows) == 2


def test_an_unknown_language_is_refused() -> None:
    for verb in (("bench", "--dry-run"), ("tune", "gemm")):
        status, text = invoke(*verb, "--language", "cuda")
        assert status == 2
        assert "no kernels are emitted in `cuda`" in text


def test_candidates_are_timed_elsewhere_and_the_record_is_that_of_the_same_kernels(tmp_path: Path) -> None:
    """Prepared here, run on another machine, and its record taken back here."""
    two = replace(QUICK, top=2)
    candidates(REQUEST, two, quiet, ("triton",)).write(tmp_path / "there")
    record = measured_as([30.0, 20.0])(tmp_path / "there")
    file = tmp_path / "kernel_gpu.json"

    def taken(**changed: Any) -> dict[str, Any]:
        file.write_text(json.dumps({**record, **changed}))
        return measured_elsewhere(file)(tmp_path / "there")

    other = [{**one, "kernel": "other"} for one in record["rows"]]
    assert len(taken(rows=[*record["rows"], *other])["rows"]) == 2
    with pytest.raises(OtherKernels, match="gemm_triton_1 is not in it"):
        taken(rows=other)
    with pytest.raises(OtherKernels, match="gemm_triton_2 has another source"):
        taken(rows=[record["rows"][0], {**record["rows"][1], "sha256": "0"}])
    with pytest.raises(measure.NoTimes, match="those of a rehearsal"):
        taken(rehearsed=True)
    with pytest.raises(measure.NoTimes, match="it has no `rows`"):
        taken(rows=None)
    file.write_text(json.dumps(record))
    plan, _, _ = tune(REQUEST, two, tmp_path / "here", measured_elsewhere(file), quiet, ("triton",))
    (kernel,) = plan.body.kernels
    assert (kernel.measured.time_us, kernel.measured.gpu) == (20.0, "Test GPU")


def test_two_ends_of_a_run_are_two_commands(tmp_path: Path) -> None:
    both = ["--prepare", str(tmp_path / "there"), "--measured", str(tmp_path / "x.json")]
    assert command_line(["tune", "gemm", *both]) == 2
    assert command_line(["tune", "gemm", "--shape", "m=512 n=512 k=512", *both[2:]]) == 2


def test_a_plan_says_whether_it_was_measured_and_where(tmp_path: Path) -> None:
    plan, _, _ = tune(REQUEST, replace(QUICK, top=1), tmp_path, measured_as([20.0]), quiet, ("triton",))
    (kernel,) = plan.body.kernels
    line = measured_line(kernel)
    assert line.startswith("measured 20 us on Test GPU (2026-11-21, driver 1.2, torch 2.11, triton 3.6), predicted ")
    assert measured_line(replace(kernel, measured=None)) == "not measured: its times are predictions"
