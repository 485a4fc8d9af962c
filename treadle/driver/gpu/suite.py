"""A prepared suite of kernels on this GPU: each is checked, then timed beside its contenders, until time is up.

A suite is a folder with `suite.json` and the emitted kernels. A row is a kernel at a shape, with what was predicted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from treadle.driver.gpu.contenders import WITHOUT, contenders, forget_graphs, inputs_bytes
from treadle.driver.gpu.correct import check_kernel, ragged_shape
from treadle.driver.gpu.emulator import emulate
from treadle.driver.gpu.families import FAMILIES, Source
from treadle.driver.gpu.report import reason_of
from treadle.driver.gpu.sampled import check_sample, trusted
from treadle.driver.gpu.timing import Deadline, EventTimer, Run, Timer, clock_ghz, medians_us, rotating_sets

CACHE_BYTES = 64 << 20
"""More than the second-level cache of the largest GPU here (50 MB on H100 and H200)."""
INPUT_BUDGET_BYTES = 24 << 30
ROUNDS = 5
"""How often contenders take turns."""
TENSOR_ALIGNMENT = 16

OUT_OF_TIME = "not measured (budget)"
"""State of a row that was not reached."""

Tell = Callable[[str], None]
Row = dict[str, Any]


@dataclass
class Bench:
    """One run over a suite."""

    folder: Path
    seed: int
    timer: Timer = field(default_factory=EventTimer)
    device: str = "cuda"
    tell: Tell = print
    full_shapes: bool = True
    """Whether kernels run at their own shapes too; otherwise they are only checked at ragged ones, as without a GPU."""
    timed: bool = True
    """Whether they are timed there."""
    rehearsed: bool = False
    """Whether kernels are timed at ragged shapes too: everything that a run does, on the CPU."""

    @property
    def is_timed(self) -> bool:
        """Whether this run times kernels."""
        return self.timed and self.full_shapes

    def run(self, deadline: Deadline, only: Sequence[str] = ()) -> dict[str, Any]:
        """Return the record of the run: environment, and a row for every kernel of the suite, done or not."""
        rows: list[Row] = []
        for planned in self.planned():
            if self.is_chosen(planned, only):
                rows.append(self.measured(planned, deadline))
                self.tell_row(rows[-1])
        return self.record(rows)

    def planned(self) -> list[Row]:
        """Return the rows of the suite as they were prepared."""
        rows: list[Row] = self._manifest()["rows"]
        return rows

    def about(self) -> dict[str, Any]:
        """Return for which machine, from which plan and with which versions the suite was prepared."""
        return {key: value for key, value in self._manifest().items() if key != "rows"}

    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.folder / "suite.json").read_text())
        return manifest

    @staticmethod
    def is_chosen(row: Row, only: Sequence[str]) -> bool:
        """Whether a row is among those asked for by words of its name."""
        return not only or any(word in row["case"] for word in only)

    def measured(self, planned: Row, deadline: Deadline, *, timed: bool = True) -> Row:
        """Return a row with what was measured, or why nothing was.

        Args:
            planned: as it was prepared; one that was checked before has the results of that, and is not checked again.
            deadline: nothing begins after it.
            timed: whether it is timed, or only checked.
        """
        row = dict(planned)
        self._measure(row, deadline, timed=timed)
        return row

    def tell_row(self, row: Row) -> None:
        """Say what became of a row."""
        self.tell(one_line(row))

    def record(self, rows: list[Row]) -> dict[str, Any]:
        """Return the record of a run."""
        return {
            "suite": self.about(),
            "environment": environment(self.device),
            "seed": self.seed,
            "rows": rows,
        }

    def _measure(self, row: Row, deadline: Deadline, *, timed: bool) -> None:
        """Fill in a row; what goes wrong is written into it and stops nothing else."""
        if row.get("refused"):
            row["state"] = "refused"
            return
        if deadline.left_s() <= 0:
            row["state"] = OUT_OF_TIME
            return
        started = time.perf_counter()
        try:
            module = self._module(row)
            self._check(row, module)
            if timed and self.is_timed and row["state"] == "checked":
                self._time(row, module)
                row["state"] = "measured"
        except Exception as error:  # a row that fails is a result: the others must still be measured
            row["state"] = "failed"
            row["reason"] = f"{type(error).__name__}: {error}"[:600]
        row["spent_s"] = round(row.get("spent_s", 0.0) + time.perf_counter() - started, 2)

    def _check(self, row: Row, module: ModuleType) -> None:
        """Check a row at a ragged shape, then some rows of its results at its own shape."""
        family, options, ragged = row["family"], row["options"], ragged_shape(row["family"], row["shape"])
        if "check" not in row:
            row["check"] = check_kernel(module, family, ragged, options, self.seed, self.device)
        shape = ragged if self.rehearsed else row["shape"]
        sample = row.get("sample") or {}
        if row["check"]["correct"] and self.full_shapes and sample.get("correct") is None:
            row["sample"] = check_sample(module, family, shape, options, self.seed + 1, self.device)
        right = row["check"]["correct"] and trusted(row.get("sample") or {})
        row["state"] = "checked" if right else "wrong"
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _module(self, row: Row) -> ModuleType:
        """Import a row's kernel; on the CPU the interpreter runs Triton, and the emulator Gluon."""
        path = self.folder / row["source"]
        if self.device != "cpu" or row.get("language") != "gluon":
            return load_module(path, row["sha256"])
        check_source(path, row["sha256"])
        return emulate(path.read_text(), self.seed)

    def _time(self, row: Row, module: ModuleType) -> None:
        family, shape, options = row["family"], row["shape"], row["options"]
        shape = ragged_shape(family, shape) if self.rehearsed else shape
        make = FAMILIES[family].inputs
        first = make(Source(self.seed, self.device, options["dtype"]), shape, options)
        count = 2 if self.rehearsed else rotating_sets(inputs_bytes(first), CACHE_BYTES, INPUT_BUDGET_BYTES)
        sets = [first]
        while len(sets) < count:
            sets.append(make(Source(self.seed + len(sets), self.device, options["dtype"]), shape, options))
        trusted = [_trusted(module, inputs) for inputs in sets]
        runs: dict[str, Run] = {
            "treadle": lambda number: module.launch(*sets[number % count], **trusted[number % count])
        }
        for name, call in contenders(family, shape, options, first).items():
            runs[name] = _over(call, sets)
        working = self._working(runs, row)
        row["times_us"] = medians_us(working, self.timer, rounds=1 if self.rehearsed else ROUNDS)
        row["clock_mhz"] = self.clock_mhz(working["treadle"], row["times_us"]["treadle"])
        row["input_sets"] = count
        row["without"] = WITHOUT.get(family, "")
        forget_graphs()
        _figures(row)

    def clock_mhz(self, run: Run, time_us: float) -> float | None:
        """Return the clock under the kernel's own work: behind 50 ms of it, without a pause."""
        if self.device != "cuda":
            return None
        for number in range(int(min(1000, 1 + 50_000 / time_us))):
            run(number)
        return 1e3 * clock_ghz()

    def _working(self, runs: Mapping[str, Run], row: Row) -> dict[str, Run]:
        """Return the contenders that run here and agree with the kernel; the kernel itself must run."""
        own = runs["treadle"](0)
        working: dict[str, Run] = {"treadle": runs["treadle"]}
        row["contenders_left_out"] = {}
        for name, run in runs.items():
            if name == "treadle":
                continue
            try:
                other = run(0)
            except Exception as error:  # a backend this torch or GPU does not have
                row["contenders_left_out"][name] = f"{type(error).__name__}: {error}"[:200]
                continue
            row.setdefault("differences", {})[name] = difference(own, other)
            working[name] = run
        return working


def _trusted(module: ModuleType, inputs: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """Return what spares a launch the checks that wait for the device, and copies that are made once."""
    takes = inspect.signature(module.launch).parameters
    trusted: dict[str, Any] = {"check": False} if "check" in takes else {}
    if "longest" in takes:
        trusted["longest"] = int((inputs[3][1:] - inputs[3][:-1]).max())
    if "scale_rows" in takes:
        trusted["scale_rows"] = inputs[2].t().contiguous()
    return trusted


def _over(call: Callable[..., Any], sets: list[tuple[torch.Tensor, ...]]) -> Run:
    return lambda number: call(*sets[number % len(sets)])


def difference(first: Any, second: Any) -> float | None:
    """Return the relative difference of two results in the Frobenius norm; None where they are not of one kind."""
    one = first[0] if isinstance(first, tuple) else first
    other = second[0] if isinstance(second, tuple) else second
    if one.shape != other.shape or not one.is_floating_point() or not other.is_floating_point():
        return None
    return float((one.float() - other.float()).norm() / other.float().norm().clamp_min(1e-30))


def _figures(row: Row) -> None:
    """Derive rates and ratios of a measured row."""
    own = row["times_us"]["treadle"]
    row["tflops"] = row["flops"] / own / 1e6
    row["gb_per_s"] = row["bytes"] / own / 1e3
    row["speedup"] = {name: time_us / own for name, time_us in row["times_us"].items() if name != "treadle"}
    row["prediction_error"] = row["predicted_us"] / own - 1
    row["predicted_cycles"] = row["predicted_us"] * row["predicted_clock_ghz"] * 1e3
    if row["clock_mhz"]:
        row["measured_cycles"] = own * row["clock_mhz"]
        row["cycles_error"] = row["predicted_cycles"] / row["measured_cycles"] - 1


def one_line(row: Row) -> str:
    """Return what became of a row, for the terminal."""
    head = f"{row['case']:<40} {row['state']:<12}"
    if row["state"] == "measured":
        others = "  ".join(f"{name} {ratio:.2f}x" for name, ratio in row["speedup"].items())
        rate = f"{row['tflops']:8.1f} TFLOP/s" if row["flops"] else f"{row['gb_per_s']:8.0f} GB/s"
        return f"{head} {row['times_us']['treadle']:10.1f} us {rate}  {others}"
    return f"{head} {reason_of(row)}"


def check_source(path: Path, sha256: str) -> None:
    """Raise ValueError when a file is not the one the suite names."""
    if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{path} is not the file that was prepared")


def load_module(path: Path, sha256: str = "") -> ModuleType:
    """Import an emitted kernel; raises ValueError when it is not the file the suite names."""
    check_source(path, sha256)
    specification = importlib.util.spec_from_file_location(f"treadle_suite_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def environment(device: str) -> dict[str, Any]:
    """Return versions, GPU, driver and clocks."""
    import triton

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "capability": list(torch.cuda.get_device_capability(0)),
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": _cudnn_version(),
            **smi("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit", "temperature.gpu"),
        }
    return found


def _cudnn_version() -> int | None:
    version: Any = torch.backends.cudnn.version
    found: int | None = version()
    return found


def smi(*fields: str) -> dict[str, str]:
    """Return what nvidia-smi says of the first GPU, by field; empty where it does not run."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "-i", "0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (word.strip() for word in answer.split(",")), strict=False))
