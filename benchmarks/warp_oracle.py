"""Claim: on 1,000 random small loops over two warp groups every level equals that of exhaustive search.

Two to seven operations on three units, dependences over iterations, handoffs that cost time and bytes, registers,
operations in flight. The certificates of all schedules are re-derived, and 300 changed schedules are given to the
checker. Every other loop has the level of exposed waits as well, after traffic.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.ir.certificate import Status
from treadle.ir.tile.assignments import DECIDED
from treadle.ir.tile.exhaustive_warps import Rank, TooLarge, best_rank
from treadle.ir.tile.loop import Dependence, Loop, Operation, Reader, Unit
from treadle.ir.tile.warp_claims import recheck_warps, value_of
from treadle.ir.tile.warps import (
    Crossing,
    FlightLimit,
    Issue,
    RegisterValue,
    WarpLimits,
    WarpLoop,
    WarpSchedule,
    check_warps,
)
from treadle.solvers.pipeline.errors import NoWarpSchedule, RegistersExceeded
from treadle.solvers.pipeline.solve import LEVELS, OBJECTIVE, Options, Solution, schedule

MOST_II = 20


def random_warps(draw: random.Random) -> WarpLoop:
    """Return a loop of two to seven operations over at most two groups."""
    count = draw.randint(2, 7)
    operations = tuple(
        Operation(f"o{i}", draw.choice("abc"), draw.randint(1, 2), draw.randint(1, 3)) for i in range(count)
    )
    dependences = [
        Dependence(f"o{draw.randrange(target)}", f"o{target}", draw.randint(0, 3)) for target in range(1, count)
    ]
    if draw.random() < 0.6:
        dependences.append(Dependence(f"o{count - 1}", "o0", draw.randint(1, 3), draw.randint(1, 2)))
    loop = Loop("random", tuple(Unit(name, 1) for name in "abc"), operations, tuple(dependences))
    role = draw.random() < 0.4
    issues = tuple(
        Issue(f"o{i}", draw.randint(0, 2), "load" if role and i == 0 else "", draw.random() < 0.5) for i in range(count)
    )
    crossings = tuple(
        Crossing(
            position,
            draw.randint(0, 2),
            draw.choice([0, 4, 8]),
            1,
            allowed=(role and "o0" in (d.source, d.target)) or draw.random() < 0.75,
            announced=draw.random() < 0.5,
        )
        for position, d in enumerate(dependences)
    )
    sources = dict.fromkeys(d.source for d in dependences if not (role and d.source == "o0"))
    values = tuple(
        RegisterValue(
            name,
            name,
            draw.randint(1, 3),
            tuple(Reader(d.target, draw.randint(0, 2), d.distance) for d in dependences if d.source == name),
            draw.randint(1, 3),
        )
        for name in sources
    )
    flown = tuple((f"o{i}", draw.randint(1, 2)) for i in range(count) if draw.random() < 0.5)
    flights = (FlightLimit("drawn", flown, draw.randint(2, 4), draw.random() < 0.7),) if flown else ()
    registers = draw.randint(5, 11)
    limits = WarpLimits(2, registers, 14, fixed_registers=1, role_registers=1, most_stages=2, flights=flights)
    return WarpLoop(loop, issues, crossings, values, limits)


def expected_rank(warps: WarpLoop, objective: tuple[str, ...]) -> Rank | None:
    """Return the least levels in their order; raises TooLarge."""
    return best_rank(warps, MOST_II, decided=tuple(name for name in objective if name in DECIDED))


def compare(warps: WarpLoop, expected: Rank | None, objective: tuple[str, ...] = OBJECTIVE) -> dict[str, Any]:
    """Solve one loop and return what differs from the oracle."""
    begin = time.process_time()
    try:
        solution = schedule(warps, Options(objective=objective))
    except (NoWarpSchedule, RegistersExceeded):
        return {"differs": expected is not None, "seconds": time.process_time() - begin, "kinds": [], "findings": 0}
    found = tuple(value_of(warps, solution.schedule, name) for name in objective)
    review = recheck_warps(warps, solution.schedule, solution.certificate)
    findings = [*check_warps(warps, solution.schedule), *review.findings]
    return {
        "differs": found != expected or solution.certificate.status is not Status.OPTIMAL,
        "found": found,
        "expected": expected,
        "kinds": [level.proof.value for level in solution.certificate.levels],
        "findings": len(findings),
        "accepted": accepted_mutants(warps, solution),
        "seconds": time.process_time() - begin,
    }


def accepted_mutants(warps: WarpLoop, solution: Solution) -> tuple[int, int]:
    """Return how many changed schedules were tried, and how many of them passed unnoticed."""
    tried = unnoticed = 0
    for mutant in mutants(solution.schedule):
        tried += 1
        unnoticed += not _rejected(warps, mutant, solution)
    return tried, unnoticed


def _rejected(warps: WarpLoop, mutant: WarpSchedule, solution: Solution) -> bool:
    if check_warps(warps, mutant):
        return True
    return bool(recheck_warps(warps, mutant, solution.certificate).findings)


def mutants(made: WarpSchedule) -> Iterator[WarpSchedule]:
    """Yield schedules with one start, register count, interval or group count changed."""
    starts = made.schedule.start_cycles
    for name in starts:
        yield replace(made, schedule=replace(made.schedule, start_cycles={**starts, name: -1}))
    yield replace(made, schedule=replace(made.schedule, ii_cycles=made.schedule.ii_cycles + 1))
    yield replace(made, schedule=replace(made.schedule, length_cycles=made.schedule.length_cycles - 1))
    yield replace(made, registers=(*made.registers[:-1], made.registers[-1] + 1))
    yield replace(made, registers=(made.registers[0] - 1, *made.registers[1:]))
    yield replace(made, registers=made.registers[:-1])


def main() -> int:
    """Run the benchmark; the exit status is 1 when anything differs."""
    chosen = arguments(
        __doc__ or "",
        loops={"type": int, "default": 1000, "help": "loops to compare (default 1000)"},
        seed={"type": int, "default": 1, "help": "seed of the loops"},
    )
    draw = random.Random(chosen.seed)
    rows: list[dict[str, Any]] = []
    drawn = 0
    while len(rows) < chosen.loops:
        warps = random_warps(draw)
        drawn += 1
        objective = LEVELS if len(rows) % 2 else OBJECTIVE
        try:
            expected = expected_rank(warps, objective)
        except TooLarge:
            continue
        rows.append({"operations": len(warps.loop.operations), **compare(warps, expected, objective)})
        if len(rows) % 100 == 0:
            print(f"{len(rows)} loops, {sum(row['differs'] for row in rows)} differ", file=sys.stderr)
    kinds = Counter(kind for row in rows for kind in row["kinds"])
    tried = [row["accepted"] for row in rows if "accepted" in row]
    figures = {
        "loops": len(rows),
        "drawn": drawn,
        "scheduled": sum("found" in row for row in rows),
        "differ": sum(row["differs"] for row in rows),
        "with_findings": sum(bool(row["findings"]) for row in rows),
        "mutants": sum(count for count, _ in tried),
        "mutants_unnoticed": sum(unnoticed for _, unnoticed in tried),
        "solve_seconds": round(sum(row["seconds"] for row in rows), 2),
        **{f"kind_{kind}": count for kind, count in sorted(kinds.items())},
    }
    table(("figure", "value"), ((name, str(value)) for name, value in figures.items()))
    finish("warp_oracle", figures, [row for row in rows if row["differs"] or row["findings"]], chosen.json)
    return 1 if figures["differ"] or figures["with_findings"] or figures["mutants_unnoticed"] else 0


if __name__ == "__main__":
    sys.exit(main())
