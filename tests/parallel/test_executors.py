"""The same plan wherever the search runs: this process, a pool, a Dask cluster, with workers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.parallel.test_cli import write
from treadle.cli.main import main
from treadle.driver.executors import opened
from treadle.driver.parallel import Options, Workers, plan_parallel, read_problem, setting_for
from treadle.ir.diagnostics import ExitCode
from treadle.ir.errors import InvalidValue
from treadle.solvers.parallel.solve import search


@pytest.fixture(scope="module")
def specification(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("executors"))


def test_parts_give_the_same_plan(specification: Path) -> None:
    problem = read_problem(specification)
    alone = plan_parallel(problem, Options())
    assert plan_parallel(problem, Options(), workers=Workers(jobs=2)) == alone


def die(_: int) -> None:
    """End the worker as a kill from outside would."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_loses_nothing(specification: Path) -> None:
    setting = setting_for(read_problem(specification))
    told: list[str] = []
    with ProcessPoolExecutor(2) as pool:
        pool.submit(die, 0)
        found = search(setting, 3, told.append, pool, 4)
    assert found.best == search(setting, 3).best
    assert any("a worker was lost" in line for line in told)


def _started(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments, "--no-dashboard"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def scheduler() -> Generator[tuple[str, list[subprocess.Popen[bytes]]], None, None]:
    """Start a Dask scheduler and two workers as processes of their own."""
    pytest.importorskip("distributed", reason="extra `dask`")
    port = 40000 + os.getpid() % 20000
    place = f"127.0.0.1:{port}"
    processes = [_started("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-jupyter")]
    processes += [_started("dask_worker", f"tcp://{place}", "--nthreads", "1", "--no-nanny") for _ in range(2)]
    try:
        yield f"dask://{place}", processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_dask_cluster_that_loses_a_worker(
    specification: Path, scheduler: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = scheduler
    problem = read_problem(specification)
    _wait_for_workers(address)
    setting = setting_for(problem)
    with opened(1, address) as (executor, parts):
        assert executor is not None
        assert parts == 8
        busy = [executor.submit(time.sleep, 1.0) for _ in range(2)]  # what the parts of the search wait behind
        threading.Timer(0.5, workers[0].kill).start()
        found = search(setting, 6, None, executor, parts)
    assert workers[0].wait(timeout=10) != 0
    assert len(busy) == 2
    assert found.best == search(setting, 6).best
    assert plan_parallel(problem, Options(), workers=Workers(executor=address)) == plan_parallel(problem, Options())


def _wait_for_workers(address: str) -> None:
    client_type: Any = import_module("distributed").Client
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with client_type(address.replace("dask://", "tcp://"), timeout="2s") as client:
                client.wait_for_workers(2, timeout=30)
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the cluster did not start")


def test_wrong_addresses(specification: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidValue, match="is not an executor"), opened(1, "ray://here:1"):
        pass
    pytest.importorskip("distributed", reason="extra `dask`")
    assert main(["parallel", str(specification), "--executor", "dask://127.0.0.1:9"]) == ExitCode.USAGE
    assert "error TRD009: no Dask scheduler answers" in capsys.readouterr().err
