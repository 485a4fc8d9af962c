"""Claim: published pipelines come out of the search without hints; their timelines, beside what was published.

FlashAttention-3 on Hopper (a loading group, two groups that take turns on the tensor core, each one's products running
under the other's softmax); FlashAttention-4 on Blackwell (loading, two softmax groups, a correction group); attention
backward going from two to three groups when the registers are halved. Writes one SVG each, and the figures of
docs/pipelines.md.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, environment, finish, table
from benchmarks.pipelines_page import with_figures
from treadle.codegen.group_timeline import by_groups, group_names
from treadle.codegen.svg_timeline import standalone_svg
from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.costmodels.warp_review import review_warp_program
from treadle.frontends import programs
from treadle.ir.certificate import Certificate, Level, Status
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan, WarpPlan
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import WarpLoop, barriers, check_warps, traffic_bytes
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.bounds import interval_bound
from treadle.solvers.pipeline.compaction import compacted
from treadle.solvers.pipeline.points import Point, warp_schedule
from treadle.solvers.pipeline.solve import Options, schedule, schedule_groups

ATTENTION = {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128}
PAIR = {"block_m": 128, "block_n": 128, "sub_tiles": 2}
BACKWARD_PAIR = {"block_m": 64, "block_n": 128, "sub_tiles": 2}
FEW_KEYS = {"block_m": 64, "block_n": 32, "sub_tiles": 1}
SMALL = {"block_m": 32, "block_n": 32, "sub_tiles": 1}
CASES: dict[str, tuple[str, dict[str, int], str, int]] = {
    "attention_h100": ("attention_fwd", PAIR, "h100", 1),
    "attention_b200": ("attention_fwd", PAIR, "b200", 1),
    "backward_h100": ("attention_bwd", BACKWARD_PAIR, "h100", 1),
    "backward_b200": ("attention_bwd", FEW_KEYS, "b200", 1),
    "backward_b200_half_registers": ("attention_bwd", FEW_KEYS, "b200", 2),
    "backward_small_h100": ("attention_bwd", SMALL, "h100", 1),
    "backward_small_h100_half_registers": ("attention_bwd", SMALL, "h100", 2),
}
"""Name -> family, tile sizes, machine, and what the registers are divided by."""
PUBLISHED = ("attention_h100", "attention_b200")
"""Cases that are drawn once more with the groups as published."""
MOST_STEPS = 12
"""Longer intervals at which published groups are tried, each longer by a hundredth."""


def published_group(operation: str, machine: str) -> int:
    """Return the warp group of an operation of attention in two sub-tiles as it was published.

    FlashAttention-3 (arXiv 2407.08608): one producer, and a group for each query sub-tile. FlashAttention-4 (arXiv
    2603.05451): load, one warp for all products, two softmax groups, and a correction group that rescales.
    """
    base, _, move = operation.partition(".")
    stem, _, part = base.rpartition("_")
    if base.startswith("load") and not move:
        return 0
    if machine == "h100":
        return 1 + int(part)
    if stem == "rescaled" or (stem == "acc" and move):
        return 4
    return 1 if stem in ("scores", "acc") and not move else 2 + int(part)


def as_published(name: str, limits: Limits) -> tuple[KernelPlan, dict[str, Any]]:
    """Schedule the groups of a published pipeline at the least interval found; return the kernel and its figures."""
    family, sizes, machine_name, _ = CASES[name]
    machine = load_machine(machine_name)
    program = programs.build(family, ATTENTION, sizes)
    warps = lower_warps(program, machine)
    groups = {issue.operation: published_group(issue.operation, machine_name) for issue in warps.issues}
    network = network_of(warps.loop)
    bound = interval_bound(warps, network)
    begin = time.process_time()
    tried = (bound.value + step * bound.value // 100 for step in range(MOST_STEPS))
    found = ((ii, schedule_groups(warps, ii, groups, Options(limits))) for ii in tried)
    ii, made = next((ii, made) for ii, made in found if made is not None)
    starts = tuple(made.schedule.start_cycles[operation.name] for operation in warps.loop.operations)
    ii, point = compacted(warps, network, ii, Point(starts, made.groups), bound.value)
    made = warp_schedule(warps, network, ii, point)
    status = Status.OPTIMAL if ii == bound.value else Status.FEASIBLE
    level = Level("ii", "cycles", ii, bound.value, status, bound.proof, bound.evidence)
    plan = WarpPlan(warps, made, Certificate(f"published/{name}", "groups as published", (level,)))
    figures = {
        "seconds": round(time.process_time() - begin, 2),
        "levels": {"ii": [ii, bound.value, status.value, bound.proof.value]},
        **figures_of(program, machine, plan),
        "findings": [str(finding) for finding in check_warps(warps, made)],
    }
    loop = lower(program, machine)
    return KernelPlan(name, loop, made.schedule, plan.certificate, groups=plan), figures


def figures_of(program: TileProgram, machine: Machine, plan: WarpPlan) -> dict[str, Any]:
    """Return what any schedule over groups is worth, and what it takes in the simulator."""
    made, names = plan.schedule, group_names(plan)
    pace = review_warp_program(program, machine, plan.warps, made).pace
    return {
        "groups": {
            names[group]: [operation for operation, home in made.groups.items() if home == group]
            for group in range(made.group_count)
        },
        "registers": list(made.registers),
        "traffic_bytes": traffic_bytes(plan.warps, made.groups),
        "barriers": barriers(plan.warps, made.groups),
        "length_cycles": made.schedule.length_cycles,
        "simulated_cycles": None if pace is None else round(pace.steady_cycles, 1),
    }


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
    figures = {
        "seconds": round(seconds, 2),
        "levels": {
            level.name: [level.value, level.bound, level.status.value, level.proof.value]
            for level in solution.certificate.levels
        },
        **figures_of(program, machine, plan),
        "findings": [str(finding) for finding in findings],
    }
    return kernel, figures


def merged(made: dict[str, dict[str, Any]], kept: Path | None) -> list[dict[str, Any]]:
    """Return the rows of this run with those that an earlier one has of other cases, in the order of the cases."""
    rows = dict(made)
    if kept is not None and kept.is_file():
        record = json.loads(kept.read_text(encoding="utf-8"))
        for row in record["rows"]:
            rows.setdefault(row["case"], {"commit": record["environment"]["commit"], **row})
    order = (*CASES, *(f"{name}_published" for name in PUBLISHED))
    return [rows[name] for name in order if name in rows]


def main() -> int:
    """Solve, check and draw every case; the exit status is 1 when a checker finds anything."""
    chosen = arguments(
        "Timelines of published pipelines as the search finds them.",
        limit={"type": float, "default": 1.0, "help": "deterministic seconds per question (default 1)"},
        cases={"default": ",".join(CASES), "help": f"some of {', '.join(CASES)} (default all)"},
        page={"type": Path, "default": Path("docs/pipelines.md"), "help": "page whose figures are printed again"},
        figures={"type": Path, "default": Path("docs/figures"), "help": "folder for the SVG files"},
    )
    chosen.figures.mkdir(parents=True, exist_ok=True)
    wanted, commit = chosen.cases.split(","), environment()["commit"]
    made: dict[str, dict[str, Any]] = {}
    for name in (name for name in CASES if name in wanted):
        try:
            kernel, figures = solved(name, Limits(deterministic_s=chosen.limit))
        except TreadleError as error:
            made[name] = {"case": name, "commit": commit, "refused": f"{error.code}: {error}"}
            continue
        (chosen.figures / f"{name}.svg").write_text(standalone_svg(by_groups(kernel)), encoding="utf-8")
        made[name] = {"case": name, "commit": commit, **figures}
    for name in (name for name in PUBLISHED if name in wanted):
        kernel, figures = as_published(name, Limits(deterministic_s=chosen.limit))
        (chosen.figures / f"{name}_published.svg").write_text(standalone_svg(by_groups(kernel)), encoding="utf-8")
        made[f"{name}_published"] = {"case": f"{name}_published", "commit": commit, **figures}
    rows = merged(made, chosen.json)
    drawn = [row for row in rows if "refused" not in row]
    chosen.page.write_text(with_figures(chosen.page.read_text(encoding="utf-8"), rows), encoding="utf-8")
    table(
        ("case", "interval", "groups", "registers", "bytes", "barriers", "length", "simulated", "CPU s"),
        (
            (
                row["case"],
                f"{row['levels']['ii'][0]} ({row['levels']['ii'][2]})",
                str(len(row["groups"])),
                str(max(row["registers"])),
                str(row["traffic_bytes"]),
                str(row["barriers"]),
                str(row["length_cycles"]),
                str(row["simulated_cycles"]),
                str(row["seconds"]),
            )
            for row in drawn
        ),
    )
    figures = {
        "cases": len(rows),
        "refused": len(rows) - len(drawn),
        "with_findings": sum(bool(row["findings"]) for row in drawn),
        **{f"groups_{row['case']}": len(row["groups"]) for row in drawn},
    }
    finish("warp_timelines", figures, rows, chosen.json)
    return 1 if figures["with_findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
