"""What every benchmark shares: arguments, the record of commit, versions and machine, the table, the JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from treadle.ir.diagnostics import TreadleError

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("treadle", "ortools", "triton", "torch", "numpy", "aiconfigurator-core")


def arguments(description: str, data: str = "", **extra: dict[str, Any]) -> argparse.Namespace:
    """Parse `--data`, `--json` and the benchmark's own options.

    Args:
        description: one line of help.
        data: default path of the input data; empty when the benchmark needs none.
        extra: option name -> keyword arguments of `add_argument`.

    Exits with status 2 and a message when the data is not there.
    """
    parser = argparse.ArgumentParser(description=description)
    if data:
        parser.add_argument("--data", type=Path, default=Path(data), help=f"input data (default {data})")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as JSON")
    for name, options in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    chosen = parser.parse_args()
    if data and not chosen.data.exists():
        parser.error(f"{chosen.data} does not exist; docs/data.md says how to obtain it, --data names another place")
    return chosen


def guarded(main: Callable[[], int]) -> int:
    """Run a benchmark; a coded error is one message on stderr and its exit status, as of a verb."""
    try:
        return main()
    except TreadleError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code


def environment() -> dict[str, Any]:
    """Return where a result comes from: commit, date, versions, machine."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if _git("status", "--porcelain", "-uno") else ""),
        "date": date.today().isoformat(),
        "versions": versions,
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "system": platform.system()},
    }


def finish(name: str, figures: dict[str, Any], rows: Sequence[dict[str, Any]], out: Path | None) -> None:
    """Write `{benchmark, environment, figures, rows}` to `out` when one is given."""
    if out is None:
        return
    record = {"benchmark": name, "environment": environment(), "figures": figures, "rows": list(rows)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    print(f"wrote {out}", file=sys.stderr)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print an aligned text table: first column to the left, figures to the right."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for position, row in enumerate(cells):
        aligned = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  ".join(aligned).rstrip())
        if position == 0:
            print("  ".join("-" * width for width in widths))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the values do not exceed, interpolated."""
    if len(values) < 2:
        return values[0]
    cuts = statistics.quantiles(values, n=1000, method="inclusive")
    return cuts[min(998, max(0, round(share * 1000) - 1))]


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip()
