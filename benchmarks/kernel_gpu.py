"""Every kernel on the GPU of this machine: correct, how fast, beside what, and how far from its prediction.

As `treadle bench`; `--rehearse` runs all of it on the CPU at small shapes. With a folder from `treadle bench --prepare`
nothing is scheduled here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.common import RESULTS, arguments, finish
from treadle.cli.bench import chosen_cases
from treadle.driver.bench import make_suite
from treadle.driver.kernels import KernelOptions
from treadle.driver.measure import require_gpu, run_suite
from treadle.ir.diagnostics import TreadleError
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
    )
    more = ["--seconds", chosen.seconds, *(word for name in chosen.only for word in ("--only", name))]
    with tempfile.TemporaryDirectory(prefix="treadle-bench-") as scratch:
        folder = chosen.suite or Path(scratch) / "suite"
        try:
            if not chosen.rehearse:
                require_gpu()
            if chosen.suite is None:
                options = KernelOptions(Limits(deterministic_s=0.2))
                wanted = chosen_cases(chosen.only)
                make_suite(chosen.machine, options, lambda line: print(line, file=sys.stderr), wanted).write(folder)
            # What is rehearsed is no result.
            out = Path(scratch) / "rehearsed" if chosen.rehearse else RESULTS
            record = run_suite(folder, out, [*more, *(["--rehearse"] if chosen.rehearse else [])])
        except TreadleError as error:
            print(error.render(), file=sys.stderr)
            return error.exit_code
    figures = {**record["figures"], "gpu": record["environment"]}
    finish("kernel_gpu", figures, record["rows"], chosen.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
