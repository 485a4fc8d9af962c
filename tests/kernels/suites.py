"""What tests of suites and of tuning share."""

from __future__ import annotations

import os
import subprocess
import sys

from treadle.driver.kernels import KernelOptions
from treadle.solvers.backend import Limits

QUICK = KernelOptions(Limits(deterministic_s=0.02), compiled=False)


def quiet(_: str) -> None:
    pass


def invoke(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "treadle", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr
