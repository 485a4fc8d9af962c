"""A session on a borrowed GPU: correctness, times, the machine's figures, and times again, each step within its limit.

`python FOLDER/run.py --session --out results` takes at most 30 minutes; `--step NAME` takes steps alone, where a
command may not take as long. What a step leaves lies in a folder of its own; a step that fails or is ended stops no
other. `session.json` says what became of each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SPARE_S = 60.0
"""What a step may take beyond the seconds in which it begins rows."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a session: arguments of `run.py`, and how long it begins rows."""

    name: str
    arguments: tuple[str, ...]
    seconds: float
    needs_gpu: bool = False

    @property
    def limit_s(self) -> float:
        """Seconds after which it is ended."""
        return self.seconds + SPARE_S


STEPS = (
    Step("correctness", ("--check",), 420),
    Step("times", (), 420),
    Step("machine", ("--machine",), 120, needs_gpu=True),
    Step("times_again", (), 420),
)
"""27 minutes with all their spare time. Two runs with other inputs show how far times differ between runs."""


def steps_called(names: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps of some names, in order; all of them for no names."""
    return tuple(step for step in STEPS if not names or step.name in names)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step."""

    name: str
    command: tuple[str, ...]
    status: int | None
    """Exit status: 0 done, 1 a kernel is wrong or fails; None where it was ended or left out."""
    spent_s: float
    note: str = ""


def hold(
    folder: Path, out: Path, more: Sequence[str] = (), *, rehearse: bool = False, steps: Sequence[Step] = STEPS
) -> int:
    """Run the steps and write `session.json`; returns 0 where all were done, else 1.

    Steps that were run before keep their outcome.
    """
    file = out / "session.json"
    before: dict[str, Any] = {one["name"]: one for one in json.loads(file.read_text())} if file.is_file() else {}
    outcomes: list[Outcome] = []
    for step in steps:
        sys.stdout.write(f"== {step.name}: rows begin within {step.seconds:.0f} s\n")
        sys.stdout.flush()
        outcomes.append(_outcome(step, folder, out / step.name, more, rehearse=rehearse))
        before[step.name] = asdict(outcomes[-1])
        file.write_text(json.dumps(list(before.values()), indent=1) + "\n")
    for found in outcomes:
        state = found.note or ("done" if found.status == 0 else f"status {found.status}")
        sys.stdout.write(f"{found.name:<14} {found.spent_s:7.1f} s  {state}\n")
    return int(any(found.status != 0 for found in outcomes if found.note != LEFT_OUT))


LEFT_OUT = "left out of a rehearsal: it needs a GPU"


def _outcome(step: Step, folder: Path, out: Path, more: Sequence[str], *, rehearse: bool) -> Outcome:
    seconds = ("--seconds", f"{step.seconds:.0f}")
    command = (sys.executable, str(folder / "run.py"), "--out", str(out), *seconds, *step.arguments, *more)
    if rehearse and step.needs_gpu:
        return Outcome(step.name, command, None, 0.0, LEFT_OUT)
    command = (*command, "--rehearse") if rehearse else command
    started = time.monotonic()
    # A group of its own: what hangs in a measuring process of the step is ended with it.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status: int | None = process.wait(step.limit_s)
        note = ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        status, note = None, f"ended after {step.limit_s:.0f} s"
    return Outcome(step.name, command, status, round(time.monotonic() - started, 1), note)
