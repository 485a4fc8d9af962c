"""Claim: the hot loops of attention and its neighbours are scheduled over warp groups with every level proven.

For every program and machine: the loop alone (interval, length, ring bytes) and with warp groups (interval, traffic,
barriers, groups, registers, length), each schedule checked and each certificate re-derived without a solver.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.frontends import programs
from treadle.ir.certificate import Certificate, Status
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.tile.claims import recheck
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.schedule import check
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo import solve as modulo
from treadle.solvers.pipeline import solve as pipeline

ATTENTION = {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128}
PROGRAMS: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "attention 128x128 in 2": ("attention_fwd", ATTENTION, {"block_m": 128, "block_n": 128, "sub_tiles": 2}),
    "attention 128x128 in 1": ("attention_fwd", ATTENTION, {"block_m": 128, "block_n": 128, "sub_tiles": 1}),
    "attention 64x64": ("attention_fwd", ATTENTION, {"block_m": 64, "block_n": 64, "sub_tiles": 1}),
    "gemm 128x128x64": ("gemm", {"m": 4096, "n": 4096, "k": 4096}, {"block_m": 128, "block_n": 128, "block_k": 64}),
    "swiglu 128x128x64": (
        "swiglu",
        {"m": 4096, "n": 14336, "k": 4096},
        {"block_m": 128, "block_n": 128, "block_k": 64},
    ),
}
MACHINES = ("h100", "b200")
"""The others take minutes with warp groups so far: `--machines a100,h100,b200,mi300x`."""


def measure(solve: Callable[[], tuple[Certificate, list[Finding]]]) -> dict[str, Any]:
    """Return levels, kinds, findings and seconds of one schedule, or why there is none."""
    begin = time.perf_counter()
    try:
        certificate, findings = solve()
    except TreadleError as error:
        return {"refused": f"{error.code}: {error}", "seconds": round(time.perf_counter() - begin, 3)}
    return {
        "levels": {
            level.name: [level.value, level.bound, level.status.value, level.proof.value]
            for level in certificate.levels
        },
        "proven": certificate.status is Status.OPTIMAL,
        "checkable": all(level.proof.checkable for level in certificate.levels),
        "findings": [str(finding) for finding in findings],
        "seconds": round(time.perf_counter() - begin, 3),
    }


def loop_alone(program: TileProgram, machine: str, limits: Limits) -> tuple[Certificate, list[Finding]]:
    """Schedule the loop without warp groups."""
    loop = lower(program, load_machine(machine))
    solution = modulo.schedule(loop, modulo.Options(limits))
    review = recheck(loop, solution.schedule, solution.certificate)
    return solution.certificate, [*check(loop, solution.schedule), *review.findings]


def with_groups(program: TileProgram, machine: str, limits: Limits) -> tuple[Certificate, list[Finding]]:
    """Schedule the loop with warp groups."""
    warps = lower_warps(program, load_machine(machine))
    solution = pipeline.schedule(warps, pipeline.Options(limits))
    review = recheck_warps(warps, solution.schedule, solution.certificate)
    return solution.certificate, [*check_warps(warps, solution.schedule), *review.findings]


def main() -> int:
    """Run the benchmark; the exit status is 1 when a checker finds anything."""
    chosen = arguments(
        "Loops of tile programs with and without warp groups: levels, kinds of proof, seconds.",
        limit={"type": float, "default": 2.0, "help": "deterministic seconds per question (default 2)"},
        machines={"default": ",".join(MACHINES), "help": f"default {','.join(MACHINES)}"},
    )
    limits = Limits(deterministic_s=chosen.limit)
    rows: list[dict[str, Any]] = []
    for name, (family, shape, sizes) in PROGRAMS.items():
        for machine in chosen.machines.split(","):
            program = programs.build(family, shape, sizes)
            for kind, solve in (("loop", loop_alone), ("groups", with_groups)):
                row = measure(partial(solve, program, machine, limits))
                rows.append({"program": name, "machine": machine, "problem": kind, **row})
                print(f"{name}, {machine}, {kind}: {_levels(row)}, {row['seconds']} s", file=sys.stderr)
    solved = [row for row in rows if "levels" in row]
    figures = {
        "problems": len(rows),
        "refused": len(rows) - len(solved),
        "all_levels_proven": sum(row["proven"] for row in solved),
        "all_levels_checkable": sum(row["checkable"] for row in solved),
        "interval_proven": sum(row["levels"]["ii"][2] == "optimal" for row in solved),
        "interval_checkable": sum(row["levels"]["ii"][3] != "solver" for row in solved),
        "with_findings": sum(bool(row["findings"]) for row in solved),
        "limit_deterministic_s": chosen.limit,
    }
    table(
        ("program", "machine", "problem", "levels (value, * unproven)", "s"),
        ((row["program"], row["machine"], row["problem"], _levels(row), row["seconds"]) for row in rows),
    )
    print()
    table(("figure", "value"), ((name, str(value)) for name, value in figures.items()))
    finish("warp_pipelines", figures, rows, chosen.json)
    return 1 if figures["with_findings"] else 0


def _levels(row: dict[str, Any]) -> str:
    if "refused" in row:
        return str(row["refused"])[:70]
    return " ".join(
        f"{name} {value}{'' if status == 'optimal' else '*'}" for name, (value, _, status, _) in row["levels"].items()
    )


if __name__ == "__main__":
    sys.exit(main())
