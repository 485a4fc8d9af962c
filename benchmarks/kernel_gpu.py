"""Every kernel on the GPU of this machine: correct, how fast, beside what, and how far from its prediction.

As `treadle bench`; `--rehearse` runs all of it on the CPU at small shapes. With a folder from `treadle bench --prepare`
nothing is scheduled here. `--measured` takes the record of a run elsewhere, and `--planned` says of every row what is
predicted and that it is `not measured`: both need no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, arguments, finish, guarded
from treadle.cli.bench import chosen_cases
from treadle.driver.bench import make_suite
from treadle.driver.gpu.report import lines_of, lines_table, statistics_of
from treadle.driver.kernels import KernelOptions
from treadle.driver.measure import read_times, require_gpu, require_suite, run_suite
from treadle.solvers.backend import Limits


def main() -> int:
    """Run the benchmark; without a GPU the exit status is 2, and the rows stay `not measured`."""
    chosen = arguments(
        "Correctness, times and predictions of every kernel on this machine's GPU.",
        suite={"type": Path, "help": "a prepared suite"},
        machine={"default": "h200", "help": "machine the kernels are planned for"},
        seconds={"default": "420", "help": "no kernel begins after so many seconds"},
        only={"action": "append", "default": [], "help": "cases whose name contains this word"},
        rehearse={"action": "store_true", "help": "all that a run does, on the CPU at small shapes: no figures"},
        measured={"type": Path, "help": "kernel_gpu.json of a run elsewhere: its rows are the result"},
        planned={"action": "store_true", "help": "predictions alone: every row says `not measured`"},
    )
    if chosen.measured is not None:
        record = read_times(chosen.measured)
        figures = {**record["figures"], "lines": record["lines"], "gpu": record["environment"]}
        print(lines_table(record["lines"]))
    else:
        if not (chosen.rehearse or chosen.planned):
            require_gpu()
        with tempfile.TemporaryDirectory(prefix="treadle-bench-") as scratch:
            record = _planned(_suite(chosen, Path(scratch))) if chosen.planned else _run(chosen, Path(scratch))
        figures = {**record["figures"], "lines": record["lines"], "gpu": record["environment"]}
    finish("kernel_gpu", figures, record["rows"], chosen.json)
    return 0


def _suite(chosen: argparse.Namespace, scratch: Path) -> Path:
    """Return the folder of the suite that was named, or of one made here."""
    if chosen.suite is not None:
        require_suite(chosen.suite, chosen.only)
        return Path(chosen.suite)
    options = KernelOptions(Limits(deterministic_s=0.2))
    made = make_suite(chosen.machine, options, lambda line: print(line, file=sys.stderr), chosen_cases(chosen.only))
    made.write(scratch / "suite")
    return scratch / "suite"


def _run(chosen: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    more = ["--seconds", chosen.seconds, *(word for name in chosen.only for word in ("--only", name))]
    # What is rehearsed is no result.
    out = scratch / "rehearsed" if chosen.rehearse else RESULTS
    return run_suite(_suite(chosen, scratch), out, [*more, *(["--rehearse"] if chosen.rehearse else [])])


def _planned(folder: Path) -> dict[str, Any]:
    """Return the rows of a suite as those of a run in which nothing was measured."""
    manifest = json.loads((folder / "suite.json").read_text())
    rows = [{**row, "state": "refused" if "refused" in row else "not measured"} for row in manifest["rows"]]
    figures = statistics_of(rows)
    lines = lines_of(rows, figures)
    print(lines_table(lines))
    environment = {"gpu": "not measured", "prepared_with": manifest["versions"]}
    return {"rows": rows, "figures": figures, "lines": lines, "environment": environment}


if __name__ == "__main__":
    raise SystemExit(guarded(main))
