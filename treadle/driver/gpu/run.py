"""The command of a prepared suite: `python FOLDER/run.py --out results`, on a machine with torch, triton and a GPU."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.driver.gpu.estimate import estimate, estimate_line, processes_for

if TYPE_CHECKING:
    from treadle.driver.gpu.suite import Bench

STEP_NAMES = ("correctness", "times", "machine", "times_again")
NO_GPU = (
    "error TRD542: no CUDA device is here\n  the suite needs one; `--check` runs the kernels' correctness on the CPU"
)


def main(folder: Path, arguments: list[str] | None = None) -> int:
    """Run the suite in a folder; returns the exit status: 0 done, 1 a kernel is wrong or fails, 2 no GPU."""
    parser = argparse.ArgumentParser(prog="run.py", description="Check and time the kernels of this suite.")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for kernel_gpu.json, .txt and .svg")
    parser.add_argument("--seconds", type=float, default=420.0, help="no row begins after this many seconds")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random inputs")
    parser.add_argument("--only", action="append", default=[], help="cases whose name contains this word")
    parser.add_argument("--machine", action="store_true", help="measure the machine instead: writes machine.json")
    parser.add_argument("--check", action="store_true", help="only correctness (with TRITON_INTERPRET=1 on the CPU)")
    parser.add_argument("--rehearse", action="store_true", help="all of a run on the CPU, at small shapes: no figures")
    parser.add_argument("--row-seconds", type=float, default=75.0, help="a kernel that takes longer is ended")
    parser.add_argument("--processes", type=int, default=0, help="that check; 0: as cores and memory allow")
    parser.add_argument("--session", action="store_true", help="all of the above in half an hour: see session.json")
    parser.add_argument("--step", action="append", default=[], choices=STEP_NAMES, help="of a session, this alone")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    absent = [package for package in ("torch", "triton") if find_spec(package) is None]
    if absent:
        sys.stderr.write(f"error: {' and '.join(absent)} not installed; the suite needs torch and triton\n")
        return 2
    if chosen.rehearse:
        os.environ |= {"TRITON_INTERPRET": "1", "TORCHDYNAMO_DISABLE": "1"}
        if reason := _interpreter_fails():
            sys.stderr.write(f"error TRD562: {reason}\n")
            return 2
    import torch

    if not (torch.cuda.is_available() or chosen.check or chosen.rehearse):
        sys.stderr.write(NO_GPU + "\n")
        return 2
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.session:
        from treadle.driver.gpu.session import hold, steps_called

        more = [word for name in chosen.only for word in ("--only", name)]
        return hold(folder, chosen.out, more, rehearse=chosen.rehearse, steps=steps_called(chosen.step))
    if chosen.machine:
        return _machine(chosen.out)
    return _kernels(folder, chosen)


def _interpreter_fails() -> str:
    """Return why Triton's interpreter does not run here; empty where it does."""
    import numpy
    import triton

    own, numbers = (tuple(map(int, module.__version__.split(".")[:2])) for module in (triton, numpy))
    if own >= (3, 7) or numbers < (2, 4):
        return ""
    return (
        f"the interpreter of Triton {triton.__version__} does not run with numpy {numpy.__version__}\n"
        "  on a GPU nothing needs it; here install numpy below 2.4, or Triton 3.7 and newer"
    )


def _machine(out: Path) -> int:
    """Measure the machine; what is known is written after every figure."""
    from treadle.driver.gpu.machine import MEASUREMENTS, measure

    def save(found: dict[str, Any]) -> None:
        (out / "machine.json").write_text(json.dumps(found, indent=1) + "\n")

    found = measure(print, save, MEASUREMENTS)
    return int(not found["figures"])


def _kernels(folder: Path, chosen: argparse.Namespace) -> int:
    from treadle.driver.gpu.isolated import Rows, serve
    from treadle.driver.gpu.timing import Deadline

    deadline = Deadline(chosen.seconds)
    bench = _bench(folder, chosen)
    if chosen.worker:
        answers, sys.stdout = sys.stdout, sys.stderr
        serve(bench, deadline, sys.stdin, answers)
        return 0
    command = [sys.executable, str(folder / "run.py"), "--worker", *_passed_on(chosen)]
    limit_s = chosen.seconds if chosen.rehearse else chosen.row_seconds
    processes = chosen.processes or _processes(bench.device)
    rows = [row for row in bench.planned() if bench.is_chosen(row, chosen.only)]
    if not rows:
        names = ", ".join(list(dict.fromkeys(row["case"] for row in bench.planned()))[:4])
        sys.stderr.write(f"error TRD006: no row is called {' or '.join(chosen.only)}; names are such as {names}\n")
        return 2
    sys.stdout.write(
        other_machine(bench.about(), bench.device)
        + estimate_line(rows, processes, chosen.seconds, timed=bench.is_timed)
        + "\n"
    )
    sys.stdout.flush()
    measuring = Rows(bench, command, limit_s, processes)
    record = bench.record(measuring.run(deadline, chosen.only))
    record["bandwidth_gb_per_s"] = bandwidth_gb_per_s() if bench.device == "cuda" and bench.is_timed else None
    record["rehearsed"] = chosen.rehearse
    record["processes"] = processes
    record["estimate_s"] = estimate(rows, processes, timed=bench.is_timed)
    record["spent_s"] = measuring.spent_s
    return write(record, chosen.out)


def other_machine(about: Mapping[str, Any], device: str) -> str:
    """Return a line that says when the suite was prepared for another GPU than this one; empty where it is the one."""
    if device != "cuda":
        return ""
    import torch

    name, planned = torch.cuda.get_device_properties(0).name, str(about.get("machine_name", ""))
    if planned.startswith(name) or name.startswith(planned):
        return ""
    return f"warning: the suite was prepared for {planned}, this is {name}: predictions are not for it\n"


def _processes(device: str) -> int:
    """Return how many processes check kernels: on the CPU one, since kernels use all cores."""
    import torch

    return processes_for(torch.cuda.get_device_properties(0).total_memory) if device == "cuda" else 1


def bandwidth_gb_per_s() -> float | None:
    """Return what reads of device memory reach; None where that cannot be measured, which costs no row."""
    from treadle.driver.gpu.machine import memory_bandwidth

    try:
        return memory_bandwidth() / 1e9
    except Exception as error:  # the goals that are a share of it stay `not measured`
        sys.stderr.write(f"bandwidth of memory not measured: {type(error).__name__}: {error}\n")
        return None


def _bench(folder: Path, chosen: argparse.Namespace) -> Bench:
    """Return what measures: on a GPU, or on the CPU where only correctness or a rehearsal is asked for."""
    import torch

    from treadle.driver.gpu.suite import Bench
    from treadle.driver.gpu.timing import ClockTimer, EventTimer

    device = "cuda" if torch.cuda.is_available() and not chosen.rehearse else "cpu"
    return Bench(
        folder,
        chosen.seed,
        ClockTimer() if chosen.rehearse else EventTimer(),
        device,
        full_shapes=device == "cuda" or chosen.rehearse,
        timed=not chosen.check,
        rehearsed=chosen.rehearse,
    )


def _passed_on(chosen: argparse.Namespace) -> list[str]:
    """Return the arguments of a measuring process."""
    words = ["--out", str(chosen.out), "--seed", str(chosen.seed), "--seconds", str(chosen.seconds)]
    return [*words, *(f"--{name}" for name in ("check", "rehearse") if getattr(chosen, name))]


def finite(data: Any) -> Any:
    """Return JSON data with None in the place of numbers that JSON does not have."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write(record: dict[str, Any], out: Path) -> int:
    """Judge, print and write a record; returns the exit status."""
    from treadle.driver.gpu.plot import plot
    from treadle.driver.gpu.report import heading, judge, lines_of, lines_table, statistics_of, text_table

    rows = record["rows"]
    judge(rows, record.get("bandwidth_gb_per_s"))
    record["figures"] = statistics_of(rows)
    record["lines"] = lines_of(rows, record["figures"])
    table = f"{heading(record)}\n\n{text_table(rows)}\n\n{lines_table(record['lines'])}"
    sys.stdout.write(table + "\n")
    (out / "kernel_gpu.json").write_text(json.dumps(finite(record), indent=1, allow_nan=False) + "\n")
    (out / "kernel_gpu.txt").write_text(table + "\n")
    (out / "kernel_gpu.svg").write_text(plot(rows, record["environment"]))
    return int(any(row["state"] in ("wrong", "failed") for row in rows))
