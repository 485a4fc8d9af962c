"""Claim: published pipelines come out of the search without hints; their timelines, beside what was published.

FlashAttention-3 on Hopper (a loading group, two groups that take turns on the tensor core, each one's products running
under the other's softmax); FlashAttention-4 on Blackwell (loading, two softmax groups, a correction group); attention
backward going from two to three groups when the registers are halved. Writes one SVG each.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.codegen.group_timeline import by_groups, group_names
from treadle.codegen.svg_timeline import standalone_svg
from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.frontends import programs
from treadle.ir.tile.kernel import KernelPlan, WarpPlan
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import WarpLoop, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.solve import Options, schedule

ATTENTION = {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128}
PAIR = {"block_m": 128, "block_n": 128, "sub_tiles": 2}
BACKWARD = {"block_m": 64, "block_n": 128, "sub_tiles": 1}
CASES: dict[str, tuple[str, dict[str, int], str, int]] = {
    "attention_h100": ("attention_fwd", PAIR, "h100", 1),
    "attention_b200": ("attention_fwd", PAIR, "b200", 1),
    "backward_b200": ("attention_bwd", BACKWARD, "b200", 1),
    "backward_b200_half_registers": ("attention_bwd", BACKWARD, "b200", 2),
}
"""Name -> family, tile sizes, machine, and what the registers are divided by."""


def with_fewer_registers(warps: WarpLoop, divisor: int) -> WarpLoop:
    """Return the loop on a machine with a share of the registers."""
    limits = warps.limits
    return replace(
        warps,
        limits=replace(
            limits,
            registers_per_group=limits.registers_per_group // divisor,
            registers_of_file=limits.registers_of_file // divisor,
        ),
    )


def solved(name: str, limits: Limits) -> tuple[KernelPlan, dict[str, Any]]:
    """Schedule one case; return the kernel to draw, and its figures."""
    family, sizes, machine_name, divisor = CASES[name]
    machine = load_machine(machine_name)
    program = programs.build(family, ATTENTION, sizes)
    warps = with_fewer_registers(lower_warps(program, machine), divisor)
    begin = time.process_time()
    solution = schedule(warps, Options(limits))
    seconds = time.process_time() - begin
    plan = WarpPlan(warps, solution.schedule, solution.certificate)
    loop = lower(program, machine)
    kernel = KernelPlan(name, loop, solution.schedule.schedule, solution.certificate, groups=plan)
    findings = [
        *check_warps(warps, solution.schedule),
        *recheck_warps(warps, solution.schedule, solution.certificate).findings,
    ]
    names = group_names(plan)
    figures = {
        "seconds": round(seconds, 2),
        "levels": {
            level.name: [level.value, level.bound, level.status.value, level.proof.value]
            for level in solution.certificate.levels
        },
        "groups": {
            names[group]: [operation for operation, home in solution.schedule.groups.items() if home == group]
            for group in range(solution.schedule.group_count)
        },
        "registers": list(solution.schedule.registers),
        "findings": [str(finding) for finding in findings],
    }
    return kernel, figures


def main() -> int:
    """Solve, check and draw every case; the exit status is 1 when a checker finds anything."""
    chosen = arguments(
        "Timelines of published pipelines as the search finds them.",
        limit={"type": float, "default": 1.0, "help": "deterministic seconds per question (default 1)"},
        figures={"type": Path, "default": Path("docs/figures"), "help": "folder for the SVG files"},
    )
    chosen.figures.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in CASES:
        kernel, figures = solved(name, Limits(deterministic_s=chosen.limit))
        (chosen.figures / f"{name}.svg").write_text(standalone_svg(by_groups(kernel)), encoding="utf-8")
        rows.append({"case": name, **figures})
    table(
        ("case", "interval", "groups", "registers", "CPU s"),
        (
            (
                row["case"],
                f"{row['levels']['ii'][0]} ({row['levels']['ii'][2]})",
                str(len(row["groups"])),
                str(max(row["registers"])),
                str(row["seconds"]),
            )
            for row in rows
        ),
    )
    figures = {
        "cases": len(rows),
        "with_findings": sum(bool(row["findings"]) for row in rows),
        **{f"groups_{row['case']}": len(row["groups"]) for row in rows},
    }
    finish("warp_timelines", figures, rows, chosen.json)
    return 1 if figures["with_findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
