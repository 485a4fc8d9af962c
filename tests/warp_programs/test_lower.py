"""Schedules become warp programs that say what the schedule says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, reject, settings

from tests.scheduling.warp_loops import small_warps
from tests.warp_programs.cases import CASES, Case, case
from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_interpreter import differences, interpret, reference
from treadle.costmodels.warp_review import review_schedule
from treadle.costmodels.warp_semantics import MixedSemantics
from treadle.ir.codec import decode, encode, file_locator
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.loop import Capacity
from treadle.ir.tile.warps import WarpLoop
from treadle.ir.warp.check import check_warp_program
from treadle.ir.warp.facts import facts_of_loop
from treadle.ir.warp.lower import NoRoomForHandoffs, lower_schedule, ungrouped
from treadle.ir.warp.program import Action, Buffer, Channel, Instruction, WarpGroup, WarpProgram
from treadle.ir.warp.registers import registers_in_order
from treadle.solvers.backend import Limits
from treadle.solvers.modulo import solve as modulo
from treadle.solvers.pipeline import solve as pipeline


def _actions(case: Case, group: int) -> list[str]:
    return [f"{i.action.value} {i.subject}" for i in case.lowered.groups[group].steady]


@pytest.mark.parametrize(("name", "machine"), CASES)
def test_library_programs_are_legal_at_every_trip_count(name: str, machine: str) -> None:
    solved = case(name, machine)
    assert check_warp_program(solved.lowered, solved.warps, solved.made, solved.facts) == []


def test_the_pair_on_hopper_is_the_ping_pong_of_flash_attention_3() -> None:
    solved = case("pair", "h100")
    load, first, second = solved.lowered.groups
    assert load.name == "load"
    assert [turn.holders for turn in solved.lowered.turns] == [(1, 2)] or solved.lowered.turns[0].holders == (2, 1)
    for group, tile in ((1, _tile(first)), (2, _tile(second))):
        actions = _actions(solved, group)
        taken, passed = actions.index("take tensor_core_turn"), actions.index("pass tensor_core_turn")
        between = [action for action in actions[taken:passed] if action.startswith("perform")]
        products = [action for action in between if action.endswith((f"scores_{tile}", f"acc_{tile}"))]
        assert products == [f"perform acc_{tile}", f"perform scores_{tile}"]


def _tile(group: WarpGroup) -> str:
    return next(i.subject[-1] for i in group.steady if i.subject.startswith("scores"))


def test_gemm_on_hopper_keeps_one_product_in_flight() -> None:
    consumer = case("gemm", "h100").lowered.groups[1]
    waits = [instruction.pending for instruction in consumer.steady if instruction.action is Action.WAIT]
    assert waits == [1]
    assert consumer.serial == ()


def test_products_of_blackwell_signal_by_commit() -> None:
    products = case("gemm", "b200").lowered.groups[1].steady
    assert {i.after for i in products if i.action is Action.RELEASE} == {"acc"}
    assert not any(instruction.action is Action.WAIT for instruction in products)


@pytest.mark.parametrize(("name", "machine"), CASES[:2])
def test_plain_data_and_back(name: str, machine: str) -> None:
    lowered = case(name, machine).lowered
    assert decode(WarpProgram, encode(lowered), file_locator("program.json")) == lowered


@pytest.mark.parametrize(
    ("name", "machine"), [("gemm", "a100"), ("gemm", "h100"), ("attention", "h100"), ("attention", "b200")]
)
def test_schedules_without_groups_are_programs_of_one_group(name: str, machine: str) -> None:
    """Legal at every trip count and right in its results; how fast is for the simulator to say."""
    solved = case(name, machine)
    alone = modulo.schedule(solved.warps.loop, modulo.Options(Limits(deterministic_s=0.3))).schedule
    made = ungrouped(solved.warps, alone)
    facts = facts_of(solved.program, solved.machine, solved.warps, made)
    lowered = lower_schedule(solved.warps, made, facts)
    assert check_warp_program(lowered, facts=facts) == []
    assert len(lowered.groups) == len(solved.warps.roles) + 1
    for trips in (1, 4):
        expected = reference(facts, trips, MixedSemantics())
        assert differences(interpret(lowered, trips, MixedSemantics(), 1), expected) == []


def test_handoffs_that_do_not_fit_are_refused() -> None:
    solved = case("attention", "b200")
    crossing = next(c for c in solved.warps.crossings if c.bytes)
    home = dict(solved.made.groups)
    source = solved.warps.loop.dependences[crossing.dependence].source
    home[source] = next(group for group in set(home.values()) if group != home[source])
    capacities = tuple(Capacity(c.memory, c.fixed_bytes, c.fixed_bytes) for c in solved.warps.loop.capacities)
    loop = replace(solved.warps.loop, rings=(), capacities=capacities)
    warps = WarpLoop(loop, solved.warps.issues, solved.warps.crossings, solved.warps.values, solved.warps.limits)
    with pytest.raises(NoRoomForHandoffs, match="bytes"):
        lower_schedule(warps, replace(solved.made, groups=home), facts_of_loop(warps))


@given(warps=small_warps())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_small_loops_are_legal_and_keep_the_interval(warps: WarpLoop) -> None:
    try:
        made = pipeline.schedule(warps, pipeline.Options(Limits(deterministic_s=1.0))).schedule
    except TreadleError:
        reject()
    review = review_schedule(warps, made, facts_of_loop(warps))
    # Operations that take no cycles may lie in any order in the schedule, and not in a program.
    others = [finding for finding in review.findings if finding.code not in ("TRD536", "TRD538")]
    assert others == []


def test_types_refuse_nonsense() -> None:
    with pytest.raises(InvalidValue, match="negative"):
        Instruction(Action.PERFORM, "a", stage=-1)
    with pytest.raises(InvalidValue, match="not asynchronous"):
        Instruction(Action.PERFORM, "a", queue="products")
    with pytest.raises(InvalidValue, match="slots"):
        Buffer("a", case("gemm", "h100").lowered.buffers[0].memory, 0, 4)
    with pytest.raises(InvalidValue, match="consumers"):
        Channel("a", "a", 0, ())
    with pytest.raises(InvalidValue, match="lengths"):
        WarpGroup("a", 4, 24, ((),), (), (), ())
    with pytest.raises(InvalidValue, match="twice"):
        WarpProgram("p", case("gemm", "h100").lowered.groups[:1] * 2)


@pytest.mark.parametrize(("name", "machine"), CASES)
def test_registers_by_the_order_of_the_program_are_those_of_the_schedule(name: str, machine: str) -> None:
    solved = case(name, machine)
    found = registers_in_order(solved.lowered, solved.warps)
    roles = len(solved.warps.roles)
    assert found[roles:] == solved.made.registers[roles:]


def test_a_slot_full_before_the_loop_is_given_back_by_a_group_that_never_reads_it() -> None:
    solved = case("attention", "h100")
    homes = dict.fromkeys(solved.made.groups, 1)
    homes |= {"load_k": 0, "load_v": 0, "row_max": 2}
    homes |= dict.fromkeys(("shifted", "weights", "tile_sum", "weights_low", "rescaled", "acc"), 3)
    made = pipeline.schedule_groups(solved.warps, 2000, homes, pipeline.Options(Limits(deterministic_s=1.0)))
    assert made is not None
    facts = facts_of(solved.program, solved.machine, solved.warps, made)
    lowered = lower_schedule(solved.warps, made, facts)
    channel = next(channel for channel in lowered.channels if channel.name == "row_max")
    assert (channel.primed, channel.consumers) == (1, (1, 3))
    assert check_warp_program(lowered, solved.warps, made, facts) == []
    semantics = MixedSemantics()
    assert not differences(interpret(lowered, 5, semantics, 0), reference(facts, 5, semantics))
