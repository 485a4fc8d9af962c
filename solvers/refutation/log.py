"""Asks pumpkin-solver to refute problems and to write down how; what comes back is replayed before it is believed."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from treadle.ir.proof_log.packed import LARGEST_CHARACTERS, packed
from treadle.ir.proof_log.problem import Problem
from treadle.ir.proof_log.replay import replay
from treadle.solvers.interruption import requested
from treadle.solvers.refutation.trim import trimmed

START_S = 10.0
"""What a process may take to start, and a search to notice that its time is up."""
LARGEST_FILE_BYTES = 32_000_000
"""Largest proof that is read back at all."""


def logged(problem: Problem, wall_s: float) -> str | None:
    """Return a packed DRCP proof that the problem has no solution, or None if none is found and checked in time.

    None also where pumpkin-solver is not installed, or the proof is too long for a certificate: whoever asks keeps the
    certificate of kind `solver`.
    """
    found = logged_all([problem], wall_s)
    return found[0] if found else None


def logged_all(problems: Sequence[Problem], wall_s: float) -> list[str]:
    """Return packed proofs of the first problems, in order, up to the first one that has none within `wall_s`."""
    if requested() or not problems or find_spec("pumpkin_solver") is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "treadle.solvers.refutation.worker", folder, str(wall_s)]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command,
                input=pickle.dumps(list(problems)),
                capture_output=True,
                timeout=wall_s * len(problems) + START_S,
                check=False,
            )
        return _read(problems, Path(folder))


def _read(problems: Sequence[Problem], folder: Path) -> list[str]:
    lines: list[str] = []
    for position, problem in enumerate(problems):
        path = folder / f"{position}.drcp"
        if not (folder / f"{position}.done").exists() or path.stat().st_size > LARGEST_FILE_BYTES:
            break
        text = trimmed(path.read_text())
        line = packed(text)
        if len(line) > LARGEST_CHARACTERS:
            break
        replay(problem, text)
        lines.append(line)
    return lines
