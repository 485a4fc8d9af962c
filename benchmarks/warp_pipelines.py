"""Claim: the hot loops of attention and its neighbours are scheduled over warp groups with every level proven.

For every program and machine: interval, traffic, barriers, groups, registers, length, each schedule checked and each
certificate re-derived without a solver; what proofs weigh and how long checking them takes; what attention loses
without query sub-tiles. With `--solutions` schedules are kept in a folder, and a stopped run goes on where it was.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.warp_cases import CASES, MACHINES, Solved, solve
from treadle.codegen.report.words import text_size
from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.frontends import programs
from treadle.ir.certificate import Certificate, Status
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo import solve as modulo
from treadle.solvers.pipeline.solve import refuse_impossible


def row_of(solved: Solved) -> dict[str, Any]:
    """Return levels, kinds, findings and seconds of one schedule, or why there is none."""
    row: dict[str, Any] = {"program": solved.name, "machine": solved.machine.id, "seconds": round(solved.cpu_s, 2)}
    if solved.plan is None or solved.program is None:
        return {**row, "refused": solved.refused, "impossible": solved.impossible, "stopped": solved.stopped}
    begin = time.process_time()
    warps, made, certificate = solved.plan.warps, solved.plan.schedule, solved.plan.certificate
    findings = [*check_warps(warps, made), *recheck_warps(warps, made, certificate).findings]
    return {
        **row,
        "tile_sizes": solved.program.tile_sizes,
        **_instead_of(solved),
        "operations": len(warps.loop.operations),
        "levels": {
            level.name: [level.value, level.bound, level.status.value, level.proof.value]
            for level in certificate.levels
        },
        "proven": certificate.status is Status.OPTIMAL,
        "checkable": certificate.status is Status.OPTIMAL
        and all(level.proof.checkable for level in certificate.levels),
        "stopped": solved.stopped,
        "findings": [str(finding) for finding in findings],
        "proof_bytes": proof_bytes(certificate),
        "check_seconds": round(time.process_time() - begin, 3),
    }


def _instead_of(solved: Solved) -> dict[str, Any]:
    """Return the sizes that the case asks for and why no interval lets them run, where others stand in for them."""
    wanted = CASES[solved.name]
    if not wanted.sizes or solved.program is None or wanted.sizes == solved.program.tile_sizes:
        return {}
    whole = programs.build(wanted.family, wanted.shape, wanted.sizes, dict(wanted.switches))
    loops = [loop for loop in (whole, *whole.siblings) if loop.name == (wanted.sibling or whole.name)]
    return {"instead_of": {"tile_sizes": whole.tile_sizes, "refused": refusal(loops[0], solved.machine)}}


def proof_bytes(certificate: Certificate) -> int:
    """Return the characters of all proof logs in a certificate, compressed as a plan holds them."""
    return sum(text_size(level.evidence.get("logs", ())) for level in certificate.levels)


def sub_tiling(rows: list[dict[str, Any]], machine: str) -> dict[str, Any]:
    """Return the intervals of attention with two query sub-tiles and without, as a loop alone and over groups."""
    found = {row["program"]: row for row in rows if row["machine"] == machine}
    shape, described = CASES["attention pair hd128"].shape, load_machine(machine)
    figures: dict[str, Any] = {"machine": machine}
    for name, parts in (("two_sub_tiles", 2), ("one", 1)):
        program = programs.build("attention_fwd", shape, {"block_m": 128, "block_n": 128, "sub_tiles": parts})
        figures[name] = _alone(program, described)
        row = found.get("attention pair hd128" if parts == 2 else "attention 128x128 in 1", {})
        same = row.get("tile_sizes") == program.tile_sizes
        figures[f"{name}_over_groups"] = row["levels"]["ii"][:3] if same else refusal(program, described)
    if isinstance(figures["one"], int) and isinstance(figures["two_sub_tiles"], int):
        figures["loss"] = round(figures["one"] / figures["two_sub_tiles"] - 1, 4)
    pair, whole = figures["two_sub_tiles_over_groups"], figures["one_over_groups"]
    if isinstance(pair, list) and isinstance(whole, list):
        figures["loss_over_groups"] = round(whole[0] / pair[0] - 1, 4)
        figures["loss_over_groups_at_least"] = round(whole[1] / pair[0] - 1, 4)
    return figures


def _alone(program: TileProgram, machine: Machine) -> int | str:
    try:
        options = modulo.Options(Limits(deterministic_s=1.0), levels=1)
        return modulo.schedule(lower(program, machine), options).schedule.ii_cycles
    except TreadleError as error:
        return f"{error.code}: {error}"


def refusal(program: TileProgram, machine: Machine) -> str:
    """Return why a program does not run over warp groups, without a search."""
    try:
        refuse_impossible(lower_warps(program, machine))
    except TreadleError as error:
        return f"{error.code}: {error}"
    return "not refused, and not among the rows"


def main() -> int:
    """Run the benchmark; the exit status is 1 when a checker finds anything."""
    chosen = arguments(
        "Loops of tile programs over warp groups: levels, kinds of proof, seconds.",
        limit={"type": float, "default": 1.0, "help": "deterministic seconds per question (default 1)"},
        wall={"type": float, "default": 60.0, "help": "seconds after which a search ends with what it has (60)"},
        programs={"default": "", "help": "only those whose names contain this"},
        machines={"default": ",".join(MACHINES), "help": f"default {','.join(MACHINES)}"},
        solutions={"type": Path, "default": None, "help": "folder that keeps schedules"},
    )
    rows: list[dict[str, Any]] = []
    machines = chosen.machines.split(",")
    for name in (name for name in CASES if chosen.programs in name):
        for machine in machines:
            rows.append(row_of(solve(name, machine, chosen.limit, chosen.wall, chosen.solutions)))
            print(f"{name}, {machine}: {_levels(rows[-1])}, {rows[-1]['seconds']} s", file=sys.stderr, flush=True)
    figures = {
        **summary(rows),
        "without_sub_tiles": [sub_tiling(rows, machine) for machine in machines] if not chosen.programs else [],
        "limit_deterministic_s": chosen.limit,
        "limit_wall_s": chosen.wall,
    }
    table(
        ("program", "machine", "levels (value, * unproven)", "CPU s"),
        ((row["program"], row["machine"], _levels(row), str(row["seconds"])) for row in rows),
    )
    print()
    table(("figure", "value"), ((name, str(value)) for name, value in figures.items()))
    finish("warp_pipelines", figures, rows, chosen.json)
    return 1 if figures["with_findings"] else 0


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all rows; shares are of all problems that bounds do not refuse, solved or not."""
    solved = [row for row in rows if "levels" in row]
    impossible = sum(row.get("impossible", False) for row in rows)
    count = max(1, len(rows) - impossible)
    intervals = [row["levels"]["ii"] for row in solved]
    checkable = sum(ii[2] == "optimal" and ii[3] != "solver" for ii in intervals)
    seconds = sorted(row["seconds"] for row in solved) or [0.0]
    proofs = sorted(row["proof_bytes"] for row in solved if row["proof_bytes"]) or [0]
    checks = sorted(row["check_seconds"] for row in solved) or [0.0]
    return {
        "problems": len(rows),
        "impossible": impossible,
        "without_schedule": len(rows) - len(solved) - impossible,
        "interval_proven": sum(ii[2] == "optimal" for ii in intervals),
        "interval_checkable": checkable,
        "interval_checkable_share": round(checkable / count, 4),
        "all_levels_proven": sum(row["proven"] for row in solved),
        "all_levels_proven_share": round(sum(row["proven"] for row in solved) / count, 4),
        "all_levels_checkable": sum(row["checkable"] for row in solved),
        "all_levels_checkable_share": round(sum(row["checkable"] for row in solved) / count, 4),
        "median_seconds": median(seconds),
        "slowest_seconds": seconds[-1],
        "stopped_at_the_wall_limit": sum(row["stopped"] for row in rows),
        "with_proof_logs": len([row for row in solved if row["proof_bytes"]]),
        "median_proof_bytes": median(proofs),
        "largest_proof_bytes": proofs[-1],
        "median_check_seconds": median(checks),
        "slowest_check_seconds": checks[-1],
        "with_findings": sum(bool(row["findings"]) for row in solved),
    }


def _levels(row: dict[str, Any]) -> str:
    if "refused" in row:
        return str(row["refused"])[:70]
    return " ".join(
        f"{name} {value}{'' if status == 'optimal' else '*'}" for name, (value, _, status, _) in row["levels"].items()
    )


if __name__ == "__main__":
    sys.exit(main())
