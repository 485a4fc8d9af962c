"""Training steps whose buffers do not fit: least step time by copies and reruns, against its bound.

Run: `python -m benchmarks.memory_spaces --json OUT`. Needs PyTorch (CPU build); shapes below, no weights.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.step_buffers import LLAMA_8B
from treadle.costmodels.machines import load_machine
from treadle.costmodels.space_replay import replay
from treadle.costmodels.step_memory import Allowed, host_space, main_space, spaces_problem
from treadle.frontends.step_trace import trace_step
from treadle.ir.layout.space_modes import offered
from treadle.ir.layout.space_plan import check
from treadle.ir.layout.space_program import Program
from treadle.solvers.memory_spaces.solve import solve_spaces

CASES = ((4, 4096, 0.9, True), (4, 4096, 0.75, True), (4, 4096, 0.75, False), (32, 4096, None, True))
"""Layers, tokens, capacity as a share of the peak (None: the machine's memory), reruns."""

MACHINE = "h100"


def row(layers: int, tokens: int, share: float | None, reruns: bool) -> dict[str, Any]:
    """Trace, plan and replay one step."""
    machine = load_machine(MACHINE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps({**LLAMA_8B, "num_hidden_layers": layers}))
        trace = trace_step(path, 1, tokens)
    problem = spaces_problem(trace, machine, main_space(machine), Allowed((host_space(machine),), reruns))
    peak = max(Program(offered(problem)).base_bytes)
    if share is not None:
        main = replace(problem.main, capacity_bytes=int(peak * share))
        problem = replace(problem, spaces=(main, *problem.spaces[1:]))
    started = time.perf_counter()
    plan, certificate = solve_spaces(problem)
    seconds = time.perf_counter() - started
    level, took = certificate["step time"], replay(plan)
    assert level.bound is not None
    return {
        "layers": layers, "tokens": tokens, "peak_gib": peak / 2**30,
        "capacity_gib": (problem.main.capacity_bytes or 0) / 2**30, "reruns": reruns,
        "unlimited_ms": sum(problem.base_ns) / 1e6, "step_ms": level.value / 1e6, "bound_ms": level.bound / 1e6,
        "gap": level.gap, "stall_ms": took.stall_ns / 1e6, "rerun_ms": took.rerun_ns / 1e6,
        "findings": len(check(plan)), "seconds": round(seconds, 1),
    }  # fmt: skip


def main() -> None:
    """Run all cases and print the table."""
    options = arguments("Steps over memory spaces")
    rows = [row(*case) for case in CASES]
    table(tuple(rows[0]), [tuple(each.values()) for each in rows])
    figures = {"largest_gap": max(each["gap"] for each in rows), "note": NOTE}
    finish("memory_spaces", figures, rows, options.json)


NOTE = (
    "Steps of plain PyTorch operators with AdamW at the end; host behind PCIe at the vendor's rate; bounds hold for "
    "the copy windows that are offered. Small steps are compared with all combinations in tests/memory_spaces."
)

if __name__ == "__main__":
    main()
