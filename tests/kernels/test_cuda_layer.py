"""What touches the GPU while measuring, over a stub of torch.cuda: events, queues, clocks, bandwidth, memory."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from treadle.driver.gpu import estimate, suite, timing  # noqa: E402 - torch is an extra
from treadle.driver.gpu.suite import Bench  # noqa: E402


class Gpu:
    """A queue: sleeps and runs advance its time, events note it when they are reached."""

    def __init__(self) -> None:
        self.now_us, self.log = 0.0, list[str]()

    def sleep(self, cycles: int) -> None:
        self.log.append("sleep")
        self.now_us += cycles / 2000

    def run(self, number: int) -> None:
        self.log.append(f"run {number}")
        self.now_us += 100.0 + number

    def synchronize(self) -> None:
        self.log.append("wait")

    def event(self, enable_timing: bool = False) -> Event:
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.at_us = gpu, 0.0

    def record(self) -> None:
        self.at_us = self.gpu.now_us

    def elapsed_time(self, later: Event) -> float:
        """Milliseconds, as torch gives them."""
        return (later.at_us - self.at_us) / 1e3


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr(torch.cuda, "_sleep", made.sleep)
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "synchronize", made.synchronize)
    return made


def test_runs_are_queued_behind_a_sleep_and_timed_alone(gpu: Gpu) -> None:
    times = timing.EventTimer().times_us(gpu.run, 3, 5)
    assert times == pytest.approx([105.0, 106.0, 107.0])
    assert gpu.log == ["sleep", "run 5", "run 6", "run 7", "wait"]


def test_the_clock_is_counted_behind_the_kernels_own_work(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def counted() -> float:
        gpu.log.append("clock")
        return 1.53

    monkeypatch.setattr(suite, "clock_ghz", counted)
    bench = Bench(tmp_path, 1, timing.EventTimer(), "cuda")
    assert bench.clock_mhz(gpu.run, 10_000.0) == pytest.approx(1530.0)
    assert gpu.log == [f"run {number}" for number in range(6)] + ["clock"]
    gpu.log.clear()
    bench.clock_mhz(gpu.run, 1.0)
    assert len(gpu.log) == 1001
    assert Bench(tmp_path, 1, timing.ClockTimer(), "cpu").clock_mhz(gpu.run, 1.0) is None


def test_bandwidth_that_cannot_be_measured_costs_no_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from treadle.driver.gpu import machine, run

    def full() -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(machine, "memory_bandwidth", full)
    assert run.bandwidth_gb_per_s() is None
    assert "bandwidth of memory not measured: OutOfMemoryError" in capsys.readouterr().err
    monkeypatch.setattr(machine, "memory_bandwidth", lambda: 4.2e12)
    assert run.bandwidth_gb_per_s() == pytest.approx(4200.0)


def test_a_suite_for_another_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from treadle.driver.gpu import run

    names = iter(["NVIDIA H200", "NVIDIA A100-SXM4-80GB"])

    def properties(_device: int) -> Any:
        return SimpleNamespace(name=next(names))

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    about = {"machine_name": "NVIDIA H200 SXM"}
    assert run.other_machine(about, "cuda") == ""
    assert "prepared for NVIDIA H200 SXM, this is NVIDIA A100-SXM4-80GB" in run.other_machine(about, "cuda")
    assert run.other_machine(about, "cpu") == ""


def test_words_that_name_no_row_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from treadle.driver.gpu import run

    (tmp_path / "suite.json").write_text(json.dumps({"rows": [{"case": "gemm small"}]}))
    assert run.main(tmp_path, ["--check", "--only", "gem5", "--out", str(tmp_path / "out")]) == 2
    assert "no row is called gem5; names are such as gemm small" in capsys.readouterr().err


def _rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"family": "gemm", "problem": f"p{at}", "language": "gluon", **more} for at in range(count)]


def test_processes_and_time_follow_the_machine() -> None:
    assert estimate.processes_for(141 << 30, 16) == 7
    assert estimate.processes_for(80 << 30, 16) == 4
    assert estimate.processes_for(24 << 30, 16) == 1
    assert estimate.processes_for(141 << 30, 2) == 1
    one, four = (estimate.estimate(_rows(8), processes)["check"] for processes in (1, 4))
    assert one == 4 * four
    assert estimate.estimate(_rows(8), 1, timed=False)["time"] == 0
    assert estimate.estimate(_rows(3, refused="no"), 1) == {"check": 0.0, "time": 0.0}
    assert "8 kernels" in estimate.estimate_line(_rows(8), 4, 420)
    assert "the last rows may not be reached" in estimate.estimate_line(_rows(200), 1, 420)


def test_the_standard_suite_fits_eight_minutes_on_an_h200() -> None:
    """By the estimate; what a run really took is in its record, beside it."""
    from treadle.driver.bench_cases import cases

    rows = [
        {"family": case.family, "problem": case.name, "language": language}
        for case in cases()
        for language, count in (("triton", case.top), ("gluon", case.gluon_top))
        if language in case.languages
        for _ in range(count)
    ]
    taken = estimate.estimate(rows, estimate.processes_for(141 << 30, 16))
    assert sum(taken.values()) < 480
    assert taken["check"] < 0.45 * 420
