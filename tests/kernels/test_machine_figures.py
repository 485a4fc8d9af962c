"""Figures of a machine: measured by a stub's counters, written to a file, and used by a plan that says so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from treadle.cli.main import main
from treadle.costmodels.machines import load_machine
from treadle.driver.gpu_machine import checked_record, measured_machine
from treadle.ir.diagnostics import TreadleError
from treadle.ir.plan import load

torch = pytest.importorskip("torch")

ENVIRONMENT = {
    "gpu": "NVIDIA H200", "capability": [9, 0], "driver_version": "580.159", "torch": "2.11.0", "triton": "3.6.0",
    "date": "2026-11-21", "multiprocessors": 132,
}  # fmt: skip


def _machine() -> Any:
    from treadle.driver.gpu import machine

    return machine


def _record(**figures: Any) -> dict[str, Any]:
    """What a run on an H200 may find: every figure of the mode a little off the known machine."""
    known = load_machine("h200")
    taken = {
        name: {"value": known.value(name) * (0.93 + 0.02 * (at % 7)), "unit": known.figure(name).unit}
        for at, name in enumerate(_machine().MEASUREMENTS)
    }
    return {"environment": ENVIRONMENT, "figures": {**taken, **figures}, "failed": {}}


def test_what_cannot_be_measured_stops_nothing_and_all_is_saved_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[list[str]] = []
    told: list[str] = []

    def save(record: dict[str, Any]) -> None:
        saved.append(list(record["figures"]))

    def hangs_the_compiler() -> Any:
        raise RuntimeError("no such instruction")

    measurements = {
        "mbarrier_cycles": lambda: (90.0, "cycle"),
        "mufu_per_cycle": hangs_the_compiler,
        "l2_latency_cycles": lambda: (float("nan"), "cycle"),
        "sm_count": lambda: (132.0, "SM"),
    }
    machine = _machine()
    found = machine.measure(told.append, save, measurements, "cpu")
    assert saved == [["mbarrier_cycles"], ["mbarrier_cycles"], ["mbarrier_cycles"], ["mbarrier_cycles", "sm_count"]]
    assert found["failed"]["mufu_per_cycle"] == "RuntimeError: no such instruction"
    assert "no plausible figure" in found["failed"]["l2_latency_cycles"]
    assert len(told) == 4


class Counter:
    """Stands for a kernel: cycles are a constant for each trip, and what lies outside the loop."""

    def __init__(self, each: float, outside: float) -> None:
        self.each, self.outside = each, outside
        self.trips: list[int] = []

    def __call__(self, cycles: Any, trips: int) -> None:
        self.trips.append(trips)
        cycles += int(self.outside + self.each * trips)


def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros: Any = torch.zeros

    def here(*size: int, **more: Any) -> Any:
        return zeros(*size, **{**more, "device": "cpu"})

    def nothing() -> None:
        pass

    monkeypatch.setattr(torch.cuda, "synchronize", nothing)
    monkeypatch.setattr(torch, "zeros", here)


def test_cycles_of_a_trip_are_free_of_what_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    _on_cpu(monkeypatch)
    counter = Counter(37.0, 900_000.0)
    assert _machine()._cycles_per_trip(counter, 4, 1000) == pytest.approx(37.0)
    assert counter.trips == [3000, 1000, 3000]
    with pytest.raises(ValueError, match="took 0 cycles more"):
        _machine()._cycles_per_trip(Counter(0.0, 5.0), 1, 10)


def test_latency_and_rate_are_told_apart_by_two_sizes() -> None:
    line = _machine().line_through
    assert line((16, 649 + 16 * 4.0), (128, 649 + 128 * 4.0)) == pytest.approx((649.0, 4.0))
    assert line((4, 3.0), (16, 30.0))[0] == 0.0


def test_every_measurement_is_a_figure_in_its_unit() -> None:
    machine = load_machine("h200")
    text = Path(_machine().__file__).read_text()
    for name in _machine().MEASUREMENTS:
        assert machine.figure(name).unit in text, name
    wanted = {"tensor_fma_per_cycle_bfloat16", "mufu_per_cycle", "shared_bytes_per_cycle", "l2_bytes_per_cycle",
              "memory_bandwidth_sustained_bytes_per_s", "tma_latency_base_cycles", "handoff_base_cycles",
              "handoff_cycles_per_kib"}  # fmt: skip
    assert wanted <= set(_machine().MEASUREMENTS)


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(list(arguments))
    found = capsys.readouterr()
    return status, found.out + found.err


def test_a_record_from_another_machine_becomes_a_file_that_plans_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `run.py --machine` wrote it where the GPU is; everything else needs none."""
    record, file, folder = tmp_path / "machine.json", tmp_path / "mine.toml", tmp_path / "plan"
    wrong = {"value": 900.0, "unit": "cycle"}
    record.write_text(json.dumps(_record(mbarrier_cycles=wrong)))
    status, text = _run(capsys, "bench", "--machine-file", str(file), "--measured", str(record))
    assert status == 0, text
    assert "hard to believe" in next(line for line in text.splitlines() if line.startswith("mbarrier_cycles"))
    assert "h200 has 92" in text
    shape, tiles = "batch=1 heads=8 seq=1024 head_dim=128", "block_m=128 block_n=64 sub_tiles=1"
    status, text = _run(
        capsys, "kernel", "attention_fwd", "--shape", shape, "--tiles", tiles, "--machine", str(file), "--no-warps",
        "--no-compile", "--limit", "0.05", "-o", str(folder),
    )  # fmt: skip
    assert status in (0, 3), text
    assert "NVIDIA H200 (measured)" in text
    plan = load(folder)
    (machine,) = (source for source in plan.inputs if source.role == "machine")
    assert machine.path == "h200-measured"
    assert plan.body.machine.figure("mbarrier_cycles").source.startswith("`treadle bench --machine-file` on NVIDIA")
    assert _run(capsys, "verify", str(folder))[0] == 0
    text = (folder / "plan.json").read_text()
    changed = re.sub(r'("value": ?)900\b', r"\g<1>90", text)
    assert changed != text
    (folder / "plan.json").write_text(changed)
    status, text = _run(capsys, "verify", str(folder))
    assert status != 0
    assert "TRD" in text


BAD: list[tuple[dict[str, Any], str]] = [
    ({"figures": {}}, "has no `environment` and `figures`"),
    (_record() | {"figures": {}, "failed": {"sm_count": "no GPU"}}, "nothing could be measured: sm_count: no GPU"),
    (_record(mbarrier_cycles={"value": -3.0, "unit": "cycle"}), "`figures.mbarrier_cycles` is -3.0"),
    (_record(mbarrier_cycles={"value": "fast", "unit": "cycle"}), "figures.mbarrier_cycles.value"),
    (_record(mbarrier_cycles={"value": 3.0}), "figures.mbarrier_cycles"),
    (_record() | {"environment": {"gpu": "x"}}, "`environment.capability` is missing"),
    (_record() | {"environment": {**ENVIRONMENT, "capability": 9}}, "expected two whole numbers"),
    (_record() | {"environment": {**ENVIRONMENT, "capability": [10, 0]}}, "is sm_100; `h200` is sm_90"),
    (_record(mbarrier_cycles={"value": 3.0, "unit": "us"}), "was measured in us; the machine has it in cycle"),
]


@pytest.mark.parametrize(("record", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_records_are_refused_with_their_place(
    record: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = tmp_path / "machine.json", tmp_path / "mine.toml"
    path.write_text(json.dumps(record))
    status, text = _run(capsys, "bench", "--machine-file", str(file), "--measured", str(path))
    assert status == 2
    assert words in text
    assert "TRD" in text
    assert not file.exists()


def test_text_that_is_no_record_and_names_that_are_no_machine_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "machine.json"
    path.write_text('{"environment": {')
    assert "TRD101" in _run(capsys, "bench", "--machine-file", "x.toml", "--measured", str(path))[1]
    path.write_text(json.dumps(_record()))
    assert "ends in .toml" in _run(capsys, "bench", "--machine-file", str(tmp_path / "x"), "--measured", str(path))[1]
    assert "is for a machine file" in _run(capsys, "bench", "--measured", str(path))[1]
    with pytest.raises(TreadleError):
        measured_machine(checked_record(_record(), "machine.json"), load_machine("b200"))
