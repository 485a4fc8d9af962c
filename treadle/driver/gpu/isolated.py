"""Rows of a suite in processes of their own: a kernel that hangs or spoils the device costs its row, not the run.

A measuring process answers one line of JSON for every row that it is asked for. One that does not answer in time is
ended and another one goes on with the next row; so is one whose device no longer works. Kernels are compiled and
checked by several processes side by side, then timed by one alone.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any, TextIO

import torch

from treadle.driver.gpu.estimate import CHECK_SHARE
from treadle.driver.gpu.suite import Bench, Row
from treadle.driver.gpu.timing import Deadline

ANSWER = "treadle-row "
"""What an answer begins with: whatever else a kernel's compiler prints is passed on."""
GRACE_S = 50.0
"""Seconds behind the deadline in which the last row may end."""
START_S = 90.0
"""Seconds in which a measuring process must be ready (import of torch, first use of the device)."""
READY = "ready"


def serve(bench: Bench, deadline: Deadline, questions: TextIO, answers: TextIO) -> None:
    """Measure the rows that are asked for, a line of JSON each, until there are no more or the device fails."""
    _answer(answers, READY)
    for line in questions:
        asked = json.loads(line)
        row = bench.measured(asked["row"], deadline, timed=asked["timed"])
        _answer(answers, row)
        if not _device_works(bench.device):
            return


def _answer(answers: TextIO, content: object) -> None:
    answers.write(f"{ANSWER}{json.dumps(content)}\n")
    answers.flush()


def _device_works(device: str) -> bool:
    """Whether the device takes work: after an illegal access every call fails."""
    try:
        torch.zeros(1, device=device).add_(1).cpu()
    except RuntimeError:
        return False
    return True


@dataclass
class Rows:
    """Measures rows by processes that `command` starts: one that times, and `processes` that check before."""

    bench: Bench
    command: Sequence[str]
    row_seconds: float
    processes: int = 1
    spent_s: dict[str, float] = field(default_factory=dict[str, float], init=False)
    """Seconds that checking and timing took."""

    def run(self, deadline: Deadline, only: Sequence[str] = ()) -> list[Row]:
        """Return a row for every chosen kernel of the suite, done or not."""
        rows = [row for row in self.bench.planned() if self.bench.is_chosen(row, only)]
        timed = self.bench.is_timed
        started = time.monotonic()
        if self.processes > 1:
            rows = self._checked(rows, deadline.part(CHECK_SHARE) if timed else deadline, timed=timed)
        self.spent_s["check"] = time.monotonic() - started
        if timed or self.processes == 1:
            rows = self._in_turn(rows, deadline, timed=timed)
        self.spent_s["time"] = time.monotonic() - started - self.spent_s["check"]
        return rows

    def _checked(self, rows: list[Row], deadline: Deadline, *, timed: bool) -> list[Row]:
        """Check rows side by side; those that are not reached stay as they are where they will be timed."""
        found = list(rows)
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(len(rows)):
            waiting.put(number)

        def work() -> None:
            lane = Lane(self.bench, self.command, self.row_seconds)
            try:
                while True:
                    number = waiting.get_nowait()
                    if timed and deadline.left_s() <= 0:
                        return
                    found[number] = lane.row(rows[number], deadline, timed=False)
                    self.bench.tell_row(found[number])
            except queue.Empty:
                return
            finally:
                lane.end()

        threads = [threading.Thread(target=work) for _ in range(min(self.processes, len(rows)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    def _in_turn(self, rows: list[Row], deadline: Deadline, *, timed: bool) -> list[Row]:
        lane = Lane(self.bench, self.command, self.row_seconds)
        found: list[Row] = []
        try:
            for row in rows:
                done = row.get("state") in ("wrong", "failed", "refused")
                found.append(row if done else lane.row(row, deadline, timed=timed))
                self.bench.tell_row(found[-1])
        finally:
            lane.end()
        return found


@dataclass
class Lane:
    """Measures rows by one process at a time."""

    bench: Bench
    command: Sequence[str]
    row_seconds: float
    worker: _Worker | None = field(default=None, init=False)

    def row(self, planned: Row, deadline: Deadline, *, timed: bool) -> Row:
        """Return a row with what became of it."""
        if planned.get("refused") or deadline.left_s() <= 0:
            return self.bench.measured(planned, deadline)
        try:
            if self.worker is None:
                self.worker = _Worker(self.command)
                self.worker.answer(START_S)
            self.worker.ask({"row": planned, "timed": timed})
            row: Row = self.worker.answer(min(self.row_seconds, deadline.left_s() + GRACE_S))
        except _NoAnswer as reason:
            self.end()
            return {**planned, "state": "failed", "reason": str(reason)}
        if self.worker.has_ended():
            self.end()
        return row

    def end(self) -> None:
        """End the process."""
        if self.worker is not None:
            self.worker.end()
        self.worker = None


class _NoAnswer(Exception):
    """A measuring process that hangs or has ended."""


class _Worker:
    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, stream: IO[str] | None) -> None:
        assert stream is not None
        for line in stream:
            if line.startswith(ANSWER):
                self.lines.put(line.removeprefix(ANSWER))
            else:
                sys.stderr.write(line)
        self.lines.put(None)

    def ask(self, question: object) -> None:
        """Ask for a row; raises _NoAnswer where the process is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{json.dumps(question)}\n")
            self.process.stdin.flush()
        except OSError as error:
            raise _NoAnswer(f"the measuring process is gone: {error}") from error

    def answer(self, seconds: float) -> Any:
        """Return the next answer; raises _NoAnswer."""
        try:
            line = self.lines.get(timeout=max(1.0, seconds))
        except queue.Empty:
            raise _NoAnswer(
                f"no answer within {seconds:.0f} s, as of a kernel that hangs: its process was ended"
            ) from None
        if line is None:
            raise _NoAnswer(f"the measuring process ended with status {self.process.wait()} in this row")
        return json.loads(line)

    def has_ended(self, seconds: float = 0.05) -> bool:
        """Whether the process has said its last: it ends itself where its device no longer works."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """End the process, whatever it does."""
        assert self.process.stdin is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
