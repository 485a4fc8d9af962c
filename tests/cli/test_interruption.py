"""Ctrl-C: a running search ends with its best plan, checked and written; a second one gives up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from ortools.sat.python import cp_model

from treadle.ir.certificate import Status
from treadle.solvers.backend import Limits, solve
from treadle.solvers.interruption import handled, requested, run_stoppable


@pytest.fixture(autouse=True)
def nothing_requested() -> Generator[None, None, None]:
    """Leave no request behind for other tests."""
    yield
    with handled(lambda: None):
        pass


def endless() -> cp_model.CpModel:
    """Return pigeons and holes: quickly stated, and undecided for hours without presolve."""
    model = cp_model.CpModel()
    seats = [[model.new_bool_var("") for _ in range(29)] for _ in range(30)]
    for row in seats:
        model.add(sum(row) == 1)
    for hole in range(29):
        model.add(sum(row[hole] for row in seats) <= 1)
    return model


def press_ctrl_c(after_s: float) -> None:
    """Send SIGINT to this process a little later."""

    def press() -> None:
        time.sleep(after_s)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


TUNING = {"cp_model_presolve": False, "linearization_level": 0, "symmetry_level": 0}


def test_first_signal_ends_the_search_and_none_begins() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with handled(lambda: told.append("stopping")):
        press_ctrl_c(0.3)
        assert solve(endless(), Limits(None, wall_s=60), tuning=TUNING).status is Status.UNKNOWN
        assert requested()
        later = solve(endless(), Limits(None, wall_s=60), tuning=TUNING)
    assert told == ["stopping"]
    assert later.report.raw_status == "NOT_STARTED"
    assert signal.getsignal(signal.SIGINT) is before


def test_second_signal_raises() -> None:
    with handled(lambda: None):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_library_user_sees_keyboard_interrupt_after_the_search_ended() -> None:
    press_ctrl_c(0.3)
    with pytest.raises(KeyboardInterrupt):
        solve(endless(), Limits(None, wall_s=60), tuning=TUNING)


def test_errors_of_the_search_arrive() -> None:
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run_stoppable(fail, lambda: None)


HARD = "examples/deepseek-v3-h200/deployment.toml"


@pytest.mark.slow
def test_interrupted_compile_writes_its_plan(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "treadle", "compile", HARD, "-o", str(tmp_path / "plan"), "--no-compile"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("lower")
        time.sleep(4)  # the schedule of its latent attention takes half a minute
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "stopping: the best plan so far" in messages
    assert (tmp_path / "plan" / "plan.json").exists()
