"""Claim: warp programs of schedules are legal at every trip count, compute what they should, and keep the pace.

For every program and machine: the schedule over warp groups is lowered, checked, interpreted under random interleavings
against float64 (arithmetic of the family, and uninterpreted functions), and run in the cycle simulator, whose steady
state is set against the schedule's interval. Damaged warp programs are all to be rejected.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from benchmarks.common import arguments, finish, table
from tests.warp_programs.cases import needed_slots
from tests.warp_programs.mutations import mutants
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_interpreter import differences, interpret, reference
from treadle.costmodels.warp_review import TOLERANCE, grid_cycles, review_schedule
from treadle.costmodels.warp_semantics import FamilySemantics, MixedSemantics
from treadle.frontends import programs
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.check import check_warp_program
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.program import Action, WarpProgram
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline import solve as pipeline

HEADS = {"heads": 32, "kv_heads": 8, "qk_head_dim": 128}
SQUARE = {"m": 4096, "n": 4096, "k": 4096}
TILE = {"block_m": 128, "block_n": 128, "block_k": 64}
PAIR = {"block_m": 128, "block_n": 128, "sub_tiles": 2}
PROGRAMS: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "attention 128x128 in 2": ("attention_fwd", {**HEADS, "seq": 4096}, PAIR),
    "attention 64x64": ("attention_fwd", {**HEADS, "seq": 4096}, {"block_m": 64, "block_n": 64, "sub_tiles": 1}),
    "attention backward 64x64": (
        "attention_bwd",
        {**HEADS, "seq": 4096},
        {"block_m": 64, "block_n": 64, "sub_tiles": 1},
    ),
    "attention decode": ("attention_decode", {**HEADS, "batch": 64, "kv_seq": 8192}, {}),
    "attention paged": ("attention_paged", {**HEADS, "batch": 64, "kv_seq": 8192}, {}),
    "gemm": ("gemm", SQUARE, TILE),
    "gemm persistent": ("gemm_persistent", SQUARE, TILE),
    "gemm fp8": ("gemm_fp8", SQUARE, {**TILE, "block_k": 128}),
    "gemm w4a16": ("gemm_w4a16", SQUARE, {"block_m": 128, "block_n": 128, "block_k": 128}),
    "dual gemm": ("dual_gemm", SQUARE, TILE),
    "swiglu": ("swiglu", SQUARE, TILE),
    "grouped gemm": ("grouped_gemm", {"experts": 64, "tokens": 8192, "top_k": 8, "n": 2048, "k": 4096}, TILE),
    "rms norm + gemm": ("rms_norm_gemm", SQUARE, TILE),
    "rms norm": ("rms_norm", {"rows": 4096, "columns": 4096}, {}),
    "layer norm": ("layer_norm", {"rows": 4096, "columns": 4096}, {}),
    "k-means": ("kmeans_assign", {"points": 65536, "centroids": 1024, "dimension": 128}, {}),
}
MACHINES = ("h100", "h200", "b200")
TRIPS = (0, 1, 2, 5)
SEEDS = 3


@dataclass(frozen=True)
class Case:
    """A loop of a program, scheduled."""

    program: TileProgram
    warps: WarpLoop
    made: WarpSchedule
    facts: Facts


def solved(program: TileProgram, machine: Machine, limits: Limits) -> Case:
    """Schedule a loop over warp groups."""
    warps = lower_warps(program, machine)
    made = pipeline.schedule(warps, pipeline.Options(limits)).schedule
    return Case(program, warps, made, facts_of(program, machine, warps, made))


def wrong_results(case: Case, lowered: WarpProgram) -> int:
    """Return how many interpretations differ from the reference, over trip counts, seeds and both semantics."""
    wrong = 0
    for semantics in (MixedSemantics(), FamilySemantics(case.program)):
        for trips in TRIPS:
            expected = reference(case.facts, trips, semantics)
            for seed in range(SEEDS):
                wrong += bool(differences(interpret(lowered, trips, semantics, seed), expected))
    return wrong


def barriers(lowered: WarpProgram) -> int:
    """Return the waits at barriers per iteration: gets, acquires and turns."""
    waiting = (Action.GET, Action.ACQUIRE, Action.TAKE)
    return sum(instruction.action in waiting for group in lowered.groups for instruction in group.steady)


def measure(name: str, program: TileProgram, machine: Machine, limits: Limits, each: int) -> dict[str, Any]:
    """Return one row; `refused` says why there is no warp program."""
    row: dict[str, Any] = {"program": name, "machine": machine.id}
    try:
        case = solved(program, machine, limits)
    except TreadleError as error:
        return {**row, "refused": f"{error.code}: {error}"}
    begin = time.perf_counter()
    review = review_schedule(case.warps, case.made, case.facts)
    seconds = time.perf_counter() - begin
    if review.program is None:
        return {**row, "refused": str(review.findings[0])}
    row["findings"] = [str(finding) for finding in review.findings if finding.code != "TRD538"]
    if review.pace is None:
        return row
    kinds, missed = damaged(case, review.program, each)
    ii, pace = case.made.schedule.ii_cycles, review.pace
    return {
        **row,
        "ii_cycles": ii,
        "steady_cycles": round(pace.steady_cycles, 2),
        "off": round(pace.steady_cycles / ii - 1, 4),
        "fill_and_drain_cycles": round(pace.overhead_cycles),
        "short_cycles": list(pace.short_cycles),
        "grid_cycles": round(grid_cycles(program, machine, pace)),
        "registers": list(case.made.registers),
        "turns": [f"{turn.unit} x {len(turn.holders)}" for turn in review.program.turns],
        "stages": [group.stages for group in review.program.groups],
        "barrier_waits": barriers(review.program),
        "interpretations": 2 * len(TRIPS) * SEEDS,
        "wrong_results": wrong_results(case, review.program),
        "damaged": sum(kinds.values()),
        "not_rejected": missed,
        "review_s": round(seconds, 3),
    }


def damaged(case: Case, lowered: WarpProgram, each: int) -> tuple[Counter[str], list[str]]:
    """Return the kinds of damage tried with their counts, and those that the checker let through."""
    kinds: Counter[str] = Counter()
    missed: list[str] = []
    for kind, other in mutants(lowered, needed_slots(case.warps, case.made), each):
        kinds[kind] += 1
        if not check_warp_program(other, case.warps, case.made, case.facts):
            missed.append(kind)
    return kinds, missed


def main() -> int:
    """Run the benchmark; the exit status is 1 when a program is illegal or wrong, or damage goes unnoticed."""
    chosen = arguments(
        "Warp programs: legality, results under random interleavings, simulated pace, damage.",
        limit={"type": float, "default": 0.5, "help": "deterministic seconds per question (default 0.5)"},
        machines={"default": ",".join(MACHINES), "help": f"default {','.join(MACHINES)}"},
        each={"type": int, "default": 3, "help": "damaged programs of every kind and program (default 3)"},
    )
    limits = Limits(deterministic_s=chosen.limit)
    rows: list[dict[str, Any]] = []
    for machine_name in chosen.machines.split(","):
        machine = load_machine(machine_name)
        for name, (family, shape, sizes) in PROGRAMS.items():
            row = measure(name, programs.build(family, shape, sizes or None), machine, limits, chosen.each)
            rows.append(row)
            print(
                f"{name}, {machine_name}: {row.get('steady_cycles', row.get('refused'))}", file=sys.stderr, flush=True
            )
    figures = summary(rows)
    _show(rows)
    print()
    table(("figure", "value"), ((name, str(value)) for name, value in figures.items()))
    finish("warp_programs", {**figures, "limit_deterministic_s": chosen.limit}, rows, chosen.json)
    bad = figures["illegal"] + figures["wrong_results"] + figures["not_rejected"]
    return 1 if bad else 0


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all rows."""
    timed = [row for row in rows if "steady_cycles" in row]
    return {
        "programs": len(rows),
        "refused": sum("refused" in row for row in rows),
        "lowered": len(timed),
        "illegal": sum(bool(row.get("findings")) for row in rows),
        "steady_within_1_percent": sum(abs(row["off"]) <= TOLERANCE for row in timed),
        "slower_than_interval": sum(row["off"] > TOLERANCE for row in timed),
        "faster_than_interval": sum(row["off"] < -TOLERANCE for row in timed),
        "interpretations": sum(row["interpretations"] for row in timed),
        "wrong_results": sum(row["wrong_results"] for row in timed),
        "damaged": sum(row["damaged"] for row in timed),
        "not_rejected": sum(len(row["not_rejected"]) for row in timed),
        "review_s_median": sorted(row["review_s"] for row in timed)[len(timed) // 2] if timed else 0,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    header = ("program", "machine", "II", "steady", "off", "fill+drain", "groups", "waits", "wrong", "damage found")
    table(
        header,
        (
            (row["program"], row["machine"], *(("refused",) + ("",) * 7))
            if "steady_cycles" not in row
            else (
                row["program"],
                row["machine"],
                row["ii_cycles"],
                row["steady_cycles"],
                f"{row['off']:+.2%}",
                row["fill_and_drain_cycles"],
                "+".join(map(str, row["registers"])),
                row["barrier_waits"],
                f"{row['wrong_results']}/{row['interpretations']}",
                f"{row['damaged'] - len(row['not_rejected'])}/{row['damaged']}",
            )
            for row in rows
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
