"""Claim: the hot loops of attention and its neighbours are scheduled over warp groups with every level proven.

For every program and machine: interval, traffic, barriers, groups, registers, length, each schedule checked and each
certificate re-derived without a solver.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.frontends import programs
from treadle.ir.certificate import Certificate, Status
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo import solve as modulo
from treadle.solvers.pipeline import solve as pipeline

ATTENTION = {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128}
MATRIX = {"m": 4096, "n": 4096, "k": 4096}
SQUARE = {"block_m": 128, "block_n": 128, "block_k": 64}
PAIR = {"block_m": 128, "block_n": 128, "sub_tiles": 2}
PROGRAMS: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "attention pair hd128": ("attention_fwd", ATTENTION, PAIR),
    "attention pair hd64": ("attention_fwd", {**ATTENTION, "qk_head_dim": 64}, PAIR),
    "attention pair hd256": ("attention_fwd", {**ATTENTION, "qk_head_dim": 256}, {**PAIR, "block_n": 64}),
    "attention pair causal": ("attention_fwd", {**ATTENTION, "causal": 1}, PAIR),
    "attention 128x128 in 1": ("attention_fwd", ATTENTION, {**PAIR, "sub_tiles": 1}),
    "attention 64x64 in 1": ("attention_fwd", ATTENTION, {"block_m": 64, "block_n": 64, "sub_tiles": 1}),
    "attention varlen": ("attention_varlen", {"batch": 16, "tokens": 65536, "heads": 32, "qk_head_dim": 128}, {}),
    "attention decode": ("attention_decode", {"batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 8192,
                                              "qk_head_dim": 128, "v_head_dim": 128}, {}),
    "attention paged": ("attention_paged", {"batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 8192,
                                            "qk_head_dim": 128, "v_head_dim": 128}, {}),
    "attention backward": ("attention_bwd", ATTENTION, {}),
    "gemm": ("gemm", MATRIX, SQUARE),
    "gemm persistent": ("gemm_persistent", MATRIX, {}),
    "gemm fp8": ("gemm_fp8", MATRIX, {}),
    "gemm w4a16": ("gemm_w4a16", {"m": 16, "n": 14336, "k": 4096, "group": 128}, {}),
    "swiglu": ("swiglu", {"m": 4096, "n": 14336, "k": 4096}, SQUARE),
    "grouped gemm": ("grouped_gemm", {"experts": 64, "tokens": 8192, "top_k": 6, "n": 1408, "k": 2048}, {}),
    "dual gemm": ("dual_gemm", MATRIX, {}),
    "norm and gemm": ("rms_norm_gemm", MATRIX, {}),
    "k-means assignment": ("kmeans_assign", {"points": 1048576, "centroids": 4096, "dimension": 128}, {}),
    "layer norm": ("layer_norm", {"rows": 8192, "columns": 4096}, {}),
    "rms norm": ("rms_norm", {"rows": 8192, "columns": 4096}, {}),
}  # fmt: skip
"""Program, shape and tile sizes; with sizes left out, or on a machine they do not fit, those that a candidate of the
program has that some interval fits, the largest product of sizes first."""
MACHINES = ("a100", "h100", "h200", "b200", "mi300x")


def program_for(name: str, machine: Machine) -> TileProgram:
    """Return a program at its sizes, or at the largest sizes for which no bound refuses groups on the machine.

    Raises the refusal of the last candidate when there is none.
    """
    family, shape, sizes = PROGRAMS[name]
    others = sorted(programs.candidates(family, shape), key=lambda program: -prod(program.tile_sizes.values()))
    refusal: TreadleError | None = None
    for program in [*([programs.build(family, shape, sizes)] if sizes else []), *others]:
        try:
            pipeline.refuse_impossible(lower_warps(program, machine))
            modulo.schedule(lower(program, machine), modulo.Options(Limits(deterministic_s=0.02), levels=1))
        except TreadleError as error:
            refusal = error
            continue
        return program
    assert refusal is not None
    raise refusal


def measure(solve: Callable[[], tuple[Certificate, list[Finding]]]) -> dict[str, Any]:
    """Return levels, kinds, findings and seconds of one schedule, or why there is none."""
    begin = time.process_time()
    try:
        certificate, findings = solve()
    except TreadleError as error:
        return {"refused": f"{error.code}: {error}", "seconds": round(time.process_time() - begin, 3)}
    return {
        "levels": {
            level.name: [level.value, level.bound, level.status.value, level.proof.value]
            for level in certificate.levels
        },
        "proven": certificate.status is Status.OPTIMAL,
        "checkable": certificate.status is Status.OPTIMAL
        and all(level.proof.checkable for level in certificate.levels),
        "findings": [str(finding) for finding in findings],
        "seconds": round(time.process_time() - begin, 3),
    }


def with_groups(program: TileProgram, machine: str, limits: Limits) -> tuple[Certificate, list[Finding]]:
    """Schedule the loop with warp groups."""
    warps = lower_warps(program, load_machine(machine))
    solution = pipeline.schedule(warps, pipeline.Options(limits))
    review = recheck_warps(warps, solution.schedule, solution.certificate)
    return solution.certificate, [*check_warps(warps, solution.schedule), *review.findings]


def _row(name: str, machine: str, limits: Limits) -> dict[str, Any]:
    """Return the figures of one program on one machine; the sizes are those it was solved at."""
    begin = time.process_time()
    try:
        program = program_for(name, load_machine(machine))
    except TreadleError as error:
        return {"refused": f"{error.code}: {error}", "seconds": round(time.process_time() - begin, 3)}
    row = measure(partial(with_groups, program, machine, limits))
    return {"tile_sizes": program.tile_sizes, "operations": len(program.operations), **row}


def main() -> int:
    """Run the benchmark; the exit status is 1 when a checker finds anything."""
    chosen = arguments(
        "Loops of tile programs with and without warp groups: levels, kinds of proof, seconds.",
        limit={"type": float, "default": 1.0, "help": "deterministic seconds per question (default 1)"},
        programs={"default": "", "help": "only those whose names contain this"},
        machines={"default": ",".join(MACHINES), "help": f"default {','.join(MACHINES)}"},
    )
    limits = Limits(deterministic_s=chosen.limit)
    rows: list[dict[str, Any]] = []
    for name in (name for name in PROGRAMS if chosen.programs in name):
        for machine in chosen.machines.split(","):
            rows.append({"program": name, "machine": machine, **_row(name, machine, limits)})
            print(f"{name}, {machine}: {_levels(rows[-1])}, {rows[-1]['seconds']} s", file=sys.stderr)
    solved = [row for row in rows if "levels" in row]
    figures = {
        "problems": len(rows),
        "refused": len(rows) - len(solved),
        "all_levels_proven": sum(row["proven"] for row in solved),
        "all_levels_checkable": sum(row["checkable"] for row in solved),
        "interval_proven": sum(row["levels"]["ii"][2] == "optimal" for row in solved),
        "interval_checkable": sum(
            row["levels"]["ii"][2] == "optimal" and row["levels"]["ii"][3] != "solver" for row in solved
        ),
        "median_seconds": sorted(row["seconds"] for row in solved)[len(solved) // 2] if solved else None,
        "with_findings": sum(bool(row["findings"]) for row in solved),
        "limit_deterministic_s": chosen.limit,
    }
    table(
        ("program", "machine", "levels (value, * unproven)", "CPU s"),
        ((row["program"], row["machine"], _levels(row), str(row["seconds"])) for row in rows),
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
