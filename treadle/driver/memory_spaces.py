"""`treadle layout buffers --machine`: a traced step, the machine's memory spaces -> least step time at the capacity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.codegen.step_timeline import step_timeline
from treadle.costmodels.machines import load_machine
from treadle.costmodels.space_replay import StepTime, replay
from treadle.costmodels.step_memory import Allowed, host_space, main_space, spaces_problem
from treadle.driver.versions import versions
from treadle.frontends.layout_spaces import read_spaces
from treadle.frontends.step_trace import trace_step
from treadle.ir.codec import encode
from treadle.ir.layout.space_modes import Way
from treadle.ir.layout.space_plan import SpacesPlan
from treadle.ir.plan import Plan, Prediction, input_from
from treadle.solvers.memory_spaces.solve import solve_spaces

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SpacesRequest:
    """What the step works on, and what may be done with its buffers.

    `capacity_bytes` and `host_bytes` of None: all of the machine's memory, a host without limit. `spaces`: a TOML file
    of further spaces, which takes the place of the host.
    """

    machine: str
    batch: int
    tokens: int
    capacity_bytes: int | None = None
    host_bytes: int | None = None
    spaces: str | None = None
    reruns: bool = True


def plan_spaces(path: Path, request: SpacesRequest, tell: Tell) -> Plan:
    """Plan the buffers of a training step over memory spaces.

    Raises:
        DoesNotFit, NoPlacementFound, MissingFigure, NotTraced; what reading the files raises.
    """
    machine = load_machine(request.machine)
    others = read_spaces(Path(request.spaces)) if request.spaces else (host_space(machine, request.host_bytes),)
    trace = trace_step(path, request.batch, request.tokens)
    tell(f"traced {len(trace.kernels)} kernels, {len(trace.storages)} buffers")
    main = main_space(machine, request.capacity_bytes)
    problem = spaces_problem(trace, machine, main, Allowed(others, request.reruns))
    body, certificate = solve_spaces(problem, progress=tell)
    file = path / "config.json" if path.is_dir() else path
    named = {"problem": file, **({"spaces": Path(request.spaces)} if request.spaces else {})}
    inputs = tuple(input_from(name, each) for name, each in named.items())
    predictions = tuple(Prediction(level.name, level.value, level.unit) for level in certificate.levels)
    return Plan("memory-spaces", inputs, encode(request), versions(), body, (certificate,), predictions)


def files(body: SpacesPlan) -> dict[str, bytes]:
    """Return the files of a plan folder: the timeline of kernels and copies, and the moves as a table."""
    return {"timeline.json": step_timeline(body, replay(body)).encode(), "moves.csv": moves_table(body).encode()}


def moves_table(body: SpacesPlan) -> str:
    """Return one line a decision: buffer, bytes, what is done, where, and between which kernels."""
    problem = body.problem
    rows = ["buffer,size_bytes,decision,space,after_section,out_until,in_from"]
    for move in body.moves:
        buffer, space = problem.buffers[move.buffer], problem.spaces[move.mode.space].name
        steps = f"{move.before},{move.mode.out_until},{move.mode.in_from}"
        rows.append(f"{buffer.id},{buffer.size_bytes},{move.mode.way.value},{space},{steps}")
    for home in body.homes:
        buffer = problem.buffers[home.buffer]
        rows.append(f"{buffer.id},{buffer.size_bytes},home,{problem.spaces[home.space].name},,,")
    for each in body.returns:
        buffer = problem.buffers[each.buffer]
        rows.append(f"{buffer.id},{buffer.size_bytes},rerun once,{problem.main.name},,,{each.section}")
    return "\n".join(rows) + "\n"


def summary(body: SpacesPlan) -> dict[str, Any]:
    """Return what the plan does, in figures: times in ns, bytes by way."""
    time: StepTime = replay(body)
    buffers = body.problem.buffers
    copied = [buffers[move.buffer].size_bytes for move in body.moves if move.mode.way is Way.COPY]
    again = [buffers[move.buffer].size_bytes for move in body.moves if move.mode.way is Way.RERUN]
    return {
        "step_ns": time.step_ns,
        "kernels_ns": time.kernels_ns,
        "rerun_ns": time.rerun_ns,
        "stall_ns": time.stall_ns,
        "copied_buffers": len(copied),
        "copied_bytes": sum(copied),
        "rerun_buffers": len(again) + len(body.returns),
        "rerun_bytes": sum(again),
        "on_chip_buffers": len(body.homes),
        "link_busy_ns": time.busy_ns,
    }
