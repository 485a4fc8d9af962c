"""How long `import treadle` and `treadle --help` take, as a ratio to `python -c pass` in the same run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.common import arguments, finish, table

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import treadle": ["-c", "import treadle"],
    "treadle --help": ["-m", "treadle", "--help"],
    "treadle machines": ["-m", "treadle", "machines"],
}


def seconds(command: list[str]) -> float:
    """Return the wall time of one run of the interpreter with these arguments."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Run the commands in turn, so that drift of the machine hits all alike, and print medians of ratios."""
    chosen = arguments(__doc__ or "", runs={"type": int, "default": 15, "help": "rounds"})
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(chosen.runs + 1)][1:]
    base = "python -c pass"
    rows = [
        {
            "command": name,
            "median_s": statistics.median(one[name] for one in rounds),
            "ratio": statistics.median(one[name] / one[base] for one in rounds),
        }
        for name in COMMANDS
    ]
    table(("command", "median s", "ratio to pass"), [(r["command"], r["median_s"], r["ratio"]) for r in rows])
    finish("startup", {str(r["command"]): r["ratio"] for r in rows}, rows, chosen.json)


if __name__ == "__main__":
    main()
