"""Claim: warp programs of schedules are legal at every trip count, compute what they should, and keep the pace.

For every program and machine: the schedule over warp groups is lowered, checked, interpreted under random interleavings
against float64 (arithmetic of the family, and uninterpreted functions), and run in the cycle simulator, whose steady
state is set against the schedule's interval; where they differ by more than 1 %, the row says why. Damaged schedules
and damaged warp programs are all to be rejected.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.warp_cases import CASES, MACHINES, Solved, solve
from tests.warp_programs.cases import needed_slots
from tests.warp_programs.damaged_schedules import damaged_schedules
from tests.warp_programs.mutations import mutants
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_interpreter import differences, interpret, reference
from treadle.costmodels.warp_lowering import TOLERANCE
from treadle.costmodels.warp_pace import why_off
from treadle.costmodels.warp_review import grid_cycles, review_schedule
from treadle.costmodels.warp_semantics import FamilySemantics, MixedSemantics
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpLoop, WarpSchedule, check_warps
from treadle.ir.warp.check import check_warp_program
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.program import Action, WarpProgram

TRIPS = (0, 1, 2, 5, 16)
SEEDS = 3


@dataclass(frozen=True)
class Case:
    """A loop of a program, scheduled."""

    program: TileProgram
    warps: WarpLoop
    made: WarpSchedule
    facts: Facts


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


def measure(solved: Solved, each: int) -> dict[str, Any]:
    """Return one row; `refused` says why there is no warp program."""
    row: dict[str, Any] = {"program": solved.name, "machine": solved.machine.id}
    if solved.plan is None or solved.program is None:
        return {**row, "refused": solved.refused}
    warps, made = lower_warps(solved.program, solved.machine), solved.plan.schedule
    case = Case(solved.program, warps, made, facts_of(solved.program, solved.machine, warps, made))
    begin = time.perf_counter()
    review = review_schedule(case.warps, case.made, case.facts)
    seconds = time.perf_counter() - begin
    if review.program is None:
        return {**row, "refused": str(review.findings[0])}
    row["findings"] = [str(finding) for finding in review.findings if finding.code != "TRD538"]
    if review.pace is None:
        return row
    kinds, missed = damaged(case, review.program, each)
    schedules = list(damaged_schedules(case.warps, case.made, each))
    unnoticed = [kind for kind, wrong in schedules if not check_warps(case.warps, wrong)]
    ii, pace = made.schedule.ii_cycles, review.pace
    bound = int(solved.plan.certificate["ii"].bound or 0)
    return {
        **row,
        "ii_cycles": ii,
        "ii_bound": bound,
        "steady_cycles": round(pace.steady_cycles, 2),
        "off": round(pace.steady_cycles / ii - 1, 4),
        "reason": why_off(review.program, warps, made, case.facts, pace.steady_cycles, bound),
        "fill_and_drain_cycles": round(pace.overhead_cycles),
        "short_cycles": list(pace.short_cycles),
        "grid_cycles": round(grid_cycles(case.program, solved.machine, pace)),
        "registers": list(case.made.registers),
        "turns": [f"{turn.unit} x {len(turn.holders)}" for turn in review.program.turns],
        "stages": [group.stages for group in review.program.groups],
        "barrier_waits": barriers(review.program),
        "interpretations": 2 * len(TRIPS) * SEEDS,
        "wrong_results": wrong_results(case, review.program),
        "damaged": sum(kinds.values()),
        "not_rejected": missed,
        "damaged_schedules": len(schedules),
        "schedules_not_rejected": unnoticed,
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
        limit={"type": float, "default": 1.0, "help": "deterministic seconds per question (default 1)"},
        wall={"type": float, "default": 60.0, "help": "seconds after which a search ends with what it has (60)"},
        programs={"default": "", "help": "only those whose names contain this"},
        machines={"default": ",".join(MACHINES), "help": f"default {','.join(MACHINES)}"},
        solutions={"type": Path, "default": None, "help": "folder that keeps schedules"},
        each={"type": int, "default": 2, "help": "damaged ones of every kind and program (default 2)"},
    )
    rows: list[dict[str, Any]] = []
    for machine in chosen.machines.split(","):
        for name in (name for name in CASES if chosen.programs in name):
            rows.append(measure(solve(name, machine, chosen.limit, chosen.wall, chosen.solutions), chosen.each))
            told = rows[-1].get("steady_cycles", rows[-1].get("refused"))
            print(f"{name}, {machine}: {told}", file=sys.stderr, flush=True)
    figures = summary(rows)
    _show(rows)
    print()
    table(
        ("off by more than 1 %", "why"),
        (
            (f"{row['program']}, {row['machine']}: {row['off']:+.2%}", row["reason"])
            for row in rows
            if row.get("reason")
        ),
    )
    print()
    table(("figure", "value"), ((name, str(value)) for name, value in figures.items()))
    finish("warp_programs", {**figures, "limit_deterministic_s": chosen.limit}, rows, chosen.json)
    unnoticed = figures["not_rejected"] + figures["schedules_not_rejected"]
    return 1 if figures["illegal"] + figures["wrong_results"] + unnoticed else 0


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all rows."""
    timed = [row for row in rows if "steady_cycles" in row]
    slower = [row for row in timed if row["off"] > TOLERANCE]
    faster = [row for row in timed if row["off"] < -TOLERANCE]
    return {
        "programs": len(rows),
        "refused": sum("refused" in row for row in rows),
        "lowered": len(timed),
        "illegal": sum(bool(row.get("findings")) for row in rows),
        "steady_within_1_percent": len(timed) - len(slower) - len(faster),
        "slower_than_interval": len(slower),
        "faster_than_an_interval_not_proven_least": sum(row["ii_bound"] < row["ii_cycles"] for row in faster),
        "faster_than_the_least_interval": sum(row["ii_bound"] == row["ii_cycles"] for row in faster),
        "interpretations": sum(row["interpretations"] for row in timed),
        "wrong_results": sum(row["wrong_results"] for row in timed),
        "damaged": sum(row["damaged"] for row in timed),
        "not_rejected": sum(len(row["not_rejected"]) for row in timed),
        "damaged_schedules": sum(row["damaged_schedules"] for row in timed),
        "schedules_not_rejected": sum(len(row["schedules_not_rejected"]) for row in timed),
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
