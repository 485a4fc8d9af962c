"""Rows of a suite in a process of their own: a kernel that hangs or spoils the device costs its row, not the run.

The measuring process answers one line of JSON for every row number it reads. One that does not answer in time is ended
and another one goes on with the next row; so is one whose device no longer works.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any, TextIO

import torch

from treadle.driver.gpu.suite import Bench, Row
from treadle.driver.gpu.timing import Deadline

ANSWER = "treadle-row "
"""What an answer begins with: whatever else a kernel's compiler prints is passed on."""
GRACE_S = 50.0
"""Seconds behind the deadline in which the last row may end."""
START_S = 60.0
"""Seconds in which a measuring process must be ready (import of torch, first use of the device)."""
READY = "ready"


def serve(bench: Bench, deadline: Deadline, numbers: TextIO, answers: TextIO) -> None:
    """Measure the rows whose numbers come in, one a line, until there are no more or the device fails."""
    planned = bench.planned()
    _answer(answers, READY)
    for line in numbers:
        row = bench.measured(planned[int(line)], deadline)
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
    """Measures rows by processes that `command` starts, one at a time."""

    bench: Bench
    command: Sequence[str]
    row_seconds: float
    worker: _Worker | None = field(default=None, init=False)

    def run(self, deadline: Deadline, only: Sequence[str] = ()) -> list[Row]:
        """Return a row for every chosen kernel of the suite, done or not."""
        rows: list[Row] = []
        try:
            for number, planned in enumerate(self.bench.planned()):
                if self.bench.is_chosen(planned, only):
                    rows.append(self._row(number, planned, deadline))
                    self.bench.tell_row(rows[-1])
        finally:
            self._end()
        return rows

    def _row(self, number: int, planned: Row, deadline: Deadline) -> Row:
        if planned.get("refused") or deadline.left_s() <= 0:
            return self.bench.measured(planned, deadline)
        try:
            if self.worker is None:
                self.worker = _Worker(self.command)
                self.worker.answer(START_S)
            self.worker.ask(number)
            row: Row = self.worker.answer(min(self.row_seconds, deadline.left_s() + GRACE_S))
        except _NoAnswer as reason:
            self._end()
            return {**planned, "state": "failed", "reason": str(reason)}
        if self.worker.has_ended():
            self._end()
        return row

    def _end(self) -> None:
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

    def ask(self, number: int) -> None:
        """Send a row's number; raises _NoAnswer where the process is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{number}\n")
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
