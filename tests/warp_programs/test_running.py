"""Schedules whose programs do not run at their interval are replaced by ones that are kept, within the same levels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.warp_programs.cases import case
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_review import observed_starts
from treadle.frontends import programs
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import WarpSchedule, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.points import Point, warp_schedule
from treadle.solvers.pipeline.running import TOLERANCE, at_pace
from treadle.solvers.pipeline.solve import OBJECTIVE, Options, Solution, schedule

LIMITS = Limits(deterministic_s=1.0)
SHORT = Limits(deterministic_s=0.02)


def test_releases_that_come_late_are_scheduled_anew_within_all_levels() -> None:
    """A group gives the only slot of a load back behind a product: 3,405 cycles where 3,132 are scheduled."""
    machine = load_machine("mi300x")
    shape = {"m": 4096, "n": 4096, "k": 4096, "group": 128}
    program = programs.build("gemm_w4a16", shape, {"block_m": 128, "block_n": 128, "block_k": 128})
    warps = lower_warps(program, machine)

    def observe(made: WarpSchedule) -> tuple[int, dict[str, int]] | None:
        return observed_starts(warps, made, facts_of(program, machine, warps, made))

    solved = schedule(warps, Options(LIMITS))
    told: list[str] = []
    facts = facts_of(program, machine, warps, solved.schedule)
    kept = at_pace(warps, solved, facts, observe, LIMITS, told.append)
    seen, ii = observe(kept.schedule), kept.schedule.schedule.ii_cycles
    assert seen is not None
    assert abs(seen[0] / ii - 1) <= TOLERANCE
    assert check_warps(warps, kept.schedule) == []
    assert not recheck_warps(warps, kept.schedule, kept.certificate).findings
    assert kept.schedule.groups == solved.schedule.groups
    before, after = ({level.name: level.value for level in s.certificate.levels} for s in (solved, kept))
    assert all(after[name] <= before[name] for name in before)
    assert at_pace(warps, kept, facts, observe, LIMITS, told.append) == kept


def test_a_schedule_that_is_kept_or_never_runs_is_left_as_it_is() -> None:
    solved = case("pair", "h100")
    bound = Level("ii", "cycles", 1, 1, Status.OPTIMAL, ProofKind.COUNT, {})
    given = Solution(solved.made, Certificate("pipeline/pair", "cycles", (bound,)))
    told: list[str] = []
    ii = solved.made.schedule.ii_cycles
    seen: tuple[int, dict[str, int]] | None
    for seen in (None, (ii, {})):

        def observe(made: WarpSchedule, seen: tuple[int, dict[str, int]] | None = seen) -> Any:
            assert made == solved.made
            return seen

        assert at_pace(solved.warps, given, solved.facts, observe, LIMITS, told.append) is given
    assert told == []


def test_an_open_interval_that_is_run_faster_gets_shorter() -> None:
    solved = case("gemm", "a100")
    warps, facts, made = solved.warps, solved.facts, solved.made
    ii, network = made.schedule.ii_cycles, network_of(warps.loop)
    starts = tuple(2 * made.schedule.start_cycles[operation.name] for operation in warps.loop.operations)
    slack = warp_schedule(warps, network, 2 * ii, Point(starts, made.groups))
    levels = tuple(
        Level(name, "1", 2 * ii if name == "ii" else 10**6, ii, Status.FEASIBLE, ProofKind.COUNT, {})
        for name in OBJECTIVE
    )
    given = Solution(slack, Certificate("pipeline/slack", "cycles", levels))
    shorter = at_pace(warps, given, facts, lambda made: observed_starts(warps, made, facts), SHORT, lambda _: None)
    assert shorter.schedule.schedule.ii_cycles < 1.2 * ii
    assert check_warps(warps, shorter.schedule) == []
    assert shorter.certificate["ii"].value == shorter.schedule.schedule.ii_cycles
    proven = replace(given.certificate, levels=(replace(levels[0], bound=2 * ii, status=Status.OPTIMAL), *levels[1:]))
    least = Solution(slack, proven)
    assert (
        at_pace(warps, least, facts, lambda made: observed_starts(warps, made, facts), SHORT, lambda _: None) == least
    )
