"""Every benchmark module loads, explains itself, and its committed result has the common form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
# peer_candidates is a script for another environment; its parent, serving_peer, runs it.
RUNNABLE = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if '__name__ == "__main__"' in path.read_text() and path.stem != "peer_candidates"
)
RESULTS = sorted((FOLDER / "results").glob("*.json"))


def test_every_benchmark_explains_itself() -> None:
    code = (
        "import importlib, runpy, sys, contextlib, io\n"
        f"for name in {RUNNABLE!r}:\n"
        "    sys.argv = [name, '--help']\n"
        "    out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out):\n"
        "        try: runpy.run_module(f'benchmarks.{name}', run_name='__main__')\n"
        "        except SystemExit as stop: assert not stop.code, (name, stop.code)\n"
        "    assert 'usage' in out.getvalue().lower(), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=FOLDER.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("result", RESULTS, ids=lambda path: path.stem)
def test_results_say_where_they_are_from(result: Path) -> None:
    record = json.loads(result.read_text())
    assert record["figures"] or record["rows"]
    assert {"commit", "date", "versions", "machine"} <= set(record["environment"])


def test_startup_measures(tmp_path: Path) -> None:
    out = tmp_path / "startup.json"
    command = [sys.executable, "-m", "benchmarks.startup", "--runs", "1", "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=FOLDER.parent)
    assert json.loads(out.read_text())["figures"]["python -c pass"] == 1.0
