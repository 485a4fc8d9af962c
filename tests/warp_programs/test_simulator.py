"""The simulator confirms intervals and lengths, and sees what costs time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.warp_programs.cases import CASES, PROGRAMS, case
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.costmodels.warp_interpreter import Stuck
from treadle.costmodels.warp_pace import why_off
from treadle.costmodels.warp_review import compare_pace, grid_cycles, review_schedule, review_warp_program
from treadle.costmodels.warp_simulator import Pace, Port, measure_pace, simulate
from treadle.frontends import programs
from treadle.ir.diagnostics import Severity
from treadle.ir.warp.program import Action
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline import solve as pipeline


@pytest.mark.parametrize(("name", "machine"), CASES)
def test_the_steady_state_is_not_slower_than_the_interval(name: str, machine: str) -> None:
    solved = case(name, machine)
    review = review_warp_program(solved.program, solved.machine, solved.warps, solved.made)
    assert [finding for finding in review.findings if finding.code != "TRD538"] == []
    assert review.pace is not None
    assert review.pace.steady_cycles <= 1.01 * solved.made.schedule.ii_cycles
    assert review.pace.short_cycles[0] == 0


def test_the_attention_pair_on_blackwell_keeps_the_pace_of_its_schedule() -> None:
    """Softmax of one sub-tile beside the correction of the other: late announcements once cost a tenth (1,125)."""
    machine = load_machine("b200")
    program = programs.build(*PROGRAMS["pair"])
    warps = lower_warps(program, machine)
    solved = pipeline.schedule(warps, pipeline.Options(Limits(deterministic_s=1.0)))
    levels = {level.name: level.value for level in solved.certificate.levels}
    assert levels == {
        "ii": 1024, "traffic_bytes": 512, "barriers": 8, "groups": 3, "registers": 196, "length": 4296,
    }  # fmt: skip
    review = review_warp_program(program, machine, warps, solved.schedule)
    assert review.findings == ()
    assert review.pace is not None
    assert review.pace.steady_cycles == 1024


@pytest.mark.parametrize("machine", ["h100", "b200"])
def test_one_iteration_of_gemm_takes_the_length_of_the_schedule(machine: str) -> None:
    solved = case("gemm", machine)
    run = simulate(solved.lowered, solved.warps, solved.facts, 1)
    assert run.cycles == solved.made.schedule.length_cycles
    pace = measure_pace(solved.lowered, solved.warps, solved.facts)
    ii, length = solved.made.schedule.ii_cycles, solved.made.schedule.length_cycles
    assert pace.steady_cycles == ii
    assert pace.total_cycles(50) == length + 49 * ii


def test_too_few_slots_slow_the_loop_down() -> None:
    solved = case("gemm", "h100")
    two = replace(solved.lowered, buffers=tuple(replace(b, slots=2) for b in solved.lowered.buffers))
    pace = measure_pace(two, solved.warps, solved.facts)
    assert pace.steady_cycles > 1.01 * solved.made.schedule.ii_cycles
    found = compare_pace("gemm", pace, solved.made.schedule.ii_cycles)
    assert [(finding.code, finding.severity) for finding in found] == [("TRD538", Severity.WARNING)]
    assert "slower" in found[0].message


def test_groups_that_wait_for_each_other_are_named() -> None:
    solved = case("gemm", "h100")
    load, consumer = solved.lowered.groups
    kept = tuple(i for i in consumer.steady if i.action is not Action.RELEASE)
    held = replace(solved.lowered, groups=(load, replace(consumer, steady=kept)))
    with pytest.raises(Stuck, match=r"acquire load_[ab]"):
        simulate(held, solved.warps, solved.facts, 20)


def test_a_faster_pace_is_a_warning() -> None:
    assert "faster" in compare_pace("p", Pace(90.0, 0.0, (0,)), 100)[0].message
    assert compare_pace("p", Pace(100.5, 0.0, (0,)), 100) == ()


def test_waves_over_the_grid() -> None:
    solved = case("gemm", "h100")
    pace = Pace(100.0, 50.0, (0, 140))
    program = replace(solved.program, instances=133, trips=10)
    assert grid_cycles(program, solved.machine, pace) == 2 * 1050
    assert grid_cycles(replace(program, trips=1, instances=132), solved.machine, pace) == 140


def test_a_schedule_without_a_program_is_a_finding() -> None:
    solved = case("gemm", "h100")
    capacities = tuple(replace(c, capacity_bytes=c.fixed_bytes) for c in solved.warps.loop.capacities)
    warps = replace(solved.warps, loop=replace(solved.warps.loop, capacities=capacities))
    review = review_schedule(warps, solved.made, solved.facts)
    assert [finding.code for finding in review.findings] == ["TRD539"]
    assert review.program is None


def test_a_product_waits_for_the_port_that_it_reads_its_operands_through() -> None:
    solved = case("gemm", "h100")
    loop = solved.warps.loop
    slow = tuple(replace(o, occupancy_cycles=700) if o.name.endswith(".operands") else o for o in loop.operations)
    assert slow != loop.operations
    warps = replace(solved.warps, loop=replace(loop, operations=slow))
    assert measure_pace(solved.lowered, warps, solved.facts).steady_cycles == 700


def test_the_accesses_of_warps_go_before_what_products_fetch_ahead() -> None:
    port = Port()
    port.fetch(100, 60)
    for begin in (100, 120, 150):
        port.accesses.append((begin, begin + 10))
    assert port.through(110) == 190
    assert port.through(300) == 300
    port.fetch(300, 5)
    assert port.through(0) == 305


def test_a_pace_off_the_interval_has_a_reason() -> None:
    solved = case("pair", "h100")
    ii = solved.made.schedule.ii_cycles

    def why(steady: float, least_ii: int) -> str:
        return why_off(solved.lowered, solved.warps, solved.made, solved.facts, steady, least_ii)

    assert why(1.005 * ii, ii) == ""
    assert why(0.9 * ii, ii - 1).startswith(f"faster: the interval is open (at least {ii - 1})")
    assert "rule of the model" in why(0.9 * ii, ii)
    assert why(1.2 * ii, ii).startswith("slower: ")


def test_what_brings_a_program_to_its_interval_is_the_reason() -> None:
    solved = case("pair", "h100")
    ii = solved.made.schedule.ii_cycles
    slow = replace(solved.made, schedule=replace(solved.made.schedule, ii_cycles=ii // 2))
    assert "groups share `tensor_core`, 200% busy" in why_off(
        solved.lowered, solved.warps, slow, solved.facts, float(ii), ii // 2
    )


@pytest.mark.parametrize(("name", "machine"), [("pair", "h100"), ("attention", "b200"), ("gemm", "a100")])
def test_predicted_totals_are_those_of_runs(name: str, machine: str) -> None:
    """No iterations, one, two, odd and many: exact where few are run apart, within a hundredth of a pace beyond."""
    solved = case(name, machine)
    pace = measure_pace(solved.lowered, solved.warps, solved.facts)
    for trips in (0, 1, 2, 3, 7, 12, 33, 101):
        run = simulate(solved.lowered, solved.warps, solved.facts, trips).cycles
        if trips < len(pace.short_cycles):
            assert pace.total_cycles(trips) == run
        else:
            assert abs(pace.total_cycles(trips) - run) <= 0.01 * run
