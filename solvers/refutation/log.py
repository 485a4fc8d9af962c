"""Asks pumpkin-solver to refute a problem and to write down how; what comes back is replayed before it is believed."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from treadle.ir.proof_log.packed import LARGEST_CHARACTERS, packed
from treadle.ir.proof_log.problem import Problem
from treadle.ir.proof_log.replay import replay
from treadle.solvers.interruption import requested
from treadle.solvers.refutation.trim import trimmed
from treadle.solvers.refutation.worker import REFUTED

START_S = 10.0
"""What a process may take to start, and a search to notice that its time is up."""


def logged(problem: Problem, wall_s: float) -> str | None:
    """Return a packed DRCP proof that the problem has no solution, or None if none is found and checked in time.

    None also where pumpkin-solver is not installed, or the proof is too long for a certificate: whoever asks keeps the
    certificate of kind `solver`.
    """
    if requested() or find_spec("pumpkin_solver") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "proof.drcp")
        command = [sys.executable, "-m", "treadle.solvers.refutation.worker", str(path), str(wall_s)]
        try:
            done = subprocess.run(
                command, input=pickle.dumps(problem), capture_output=True, timeout=wall_s + START_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        if done.returncode != REFUTED:
            return None
        text = trimmed(path.read_text())
    line = packed(text)
    if len(line) > LARGEST_CHARACTERS:
        return None
    replay(problem, text)
    return line
