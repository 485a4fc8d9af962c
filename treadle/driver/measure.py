"""Runs a suite on the GPU of this machine, in a process of its own, and reads what came out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.errors import InvalidValue, MissingExtra
from treadle.ir.plan import parse_json, read_text

BAD_INPUT_STATUS = 2
"""Exit status of a suite's `run.py` where it cannot run: no GPU, above all."""


class NoGpu(TreadleError):
    """A command that measures, on a machine without a CUDA device."""

    code = "TRD542"
    template = "no CUDA device is here: nothing can be measured"
    hint = "`treadle bench --prepare FOLDER` writes a suite; on a GPU machine with torch and triton run FOLDER/run.py"


class InterpreterFails(TreadleError):
    """A rehearsal with a Triton whose interpreter does not run with the numpy that is installed."""

    code = "TRD562"
    template = "nothing can be rehearsed: {reason}"
    hint = "on a GPU nothing needs the interpreter; here install numpy below 2.4, or Triton 3.7 and newer"


class FailedRun(TreadleError):
    """A suite that ended without results."""

    code = "TRD543"
    template = "the suite in {path} ended with status {status} and no results"
    hint = "its messages are above"
    exit_code = ExitCode.UNMET


def require_gpu() -> None:
    """Raise NoGpu without a CUDA device, MissingExtra without torch or triton."""
    for package in ("torch", "triton"):
        if find_spec(package) is None:
            raise MissingExtra(package=package, purpose="measuring kernels", extra="kernels,torch")
    import torch

    if not torch.cuda.is_available():
        raise NoGpu


def require_suite(folder: Path, only: Sequence[str] = ()) -> None:
    """Raise InvalidValue where a folder is no prepared suite, or none of its rows is called by the words.

    Raises also UnreadableFile, MalformedText.
    """
    hint = "`treadle bench --prepare FOLDER` writes one"
    if not (folder / "run.py").is_file() or not (folder / "suite.json").is_file():
        raise InvalidValue(message=f"{folder} is no prepared suite", expected="run.py and suite.json in it", hint=hint)
    manifest: Any = parse_json(read_text(folder / "suite.json"), str(folder / "suite.json"))
    names = dict.fromkeys(row["case"] for row in manifest["rows"])
    if only and not any(word in name for word in only for name in names):
        message = f"no row of {folder} is called {' or '.join(only)}"
        raise InvalidValue(message=message, expected=f"words of names such as {', '.join(list(names)[:4])}")


class NoTimes(TreadleError):
    """A file that is not the record of a run on a GPU."""

    code = "TRD563"
    template = "{path} is no record of times on a GPU: {reason}"
    hint = "`python SUITE/run.py --out FOLDER` writes FOLDER/kernel_gpu.json on a machine with a GPU"


def read_times(path: Path) -> dict[str, Any]:
    """Return the record of a run on a GPU; raises UnreadableFile, MalformedText, NoTimes."""
    record: Any = parse_json(read_text(path), str(path))
    if not isinstance(record, dict) or not isinstance(record.get("rows"), list):
        raise NoTimes(path=path, reason="it has no `rows`")
    for key in ("environment", "figures", "lines"):
        if key not in record:
            raise NoTimes(path=path, reason=f"it has no `{key}`")
    if record.get("rehearsed") or not record["environment"].get("gpu"):
        raise NoTimes(path=path, reason="its times are those of a rehearsal or of no GPU")
    found: dict[str, Any] = record
    return found


def run_suite(folder: Path, out: Path, more: Sequence[str] = (), result: str = "kernel_gpu.json") -> dict[str, Any]:
    """Run a suite and return its record.

    Args:
        folder: a prepared suite.
        out: folder for the results.
        more: further arguments of `run.py`.
        result: the file that is read back.

    Raises:
        MissingExtra: torch or triton is not installed. NoGpu. InterpreterFails. FailedRun.
    """
    for package in ("torch", "triton"):
        if find_spec(package) is None:
            raise MissingExtra(package=package, purpose="measuring kernels", extra="kernels,torch")
    command = [sys.executable, str(folder / "run.py"), "--out", str(out), *more]
    run = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if run.returncode == BAD_INPUT_STATUS and NoGpu.code in run.stderr:
        raise NoGpu
    if run.returncode == BAD_INPUT_STATUS and InterpreterFails.code in run.stderr:
        raise InterpreterFails(reason=run.stderr.partition(f"{InterpreterFails.code}: ")[2].splitlines()[0])
    sys.stderr.write(run.stderr)
    file = out / result
    if not file.is_file():
        raise FailedRun(path=str(folder), status=run.returncode)
    record: dict[str, Any] = json.loads(file.read_text())
    return record
