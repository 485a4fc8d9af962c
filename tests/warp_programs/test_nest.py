"""Loops of one kernel share its warp groups: who runs what, registers, and what all of it takes."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from treadle.costmodels.machines import load_machine
from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_nest import align, moved_registers, run_kernel
from treadle.driver import kernel_groups
from treadle.driver.kernel_groups import LoopsDoNotShare, simulated, with_groups
from treadle.driver.kernels import KernelOptions, plan_program
from treadle.frontends import programs
from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.program import Memory
from treadle.ir.tile.warps import check_warps, handoff_bytes
from treadle.ir.warp.lower import lower_schedule
from treadle.ir.warp.nest import NestedLoop, check_nest, kernel_registers, main_loop
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.solve import Options
from treadle.verification.kernel import review_kernel

TILES = {"block_m": 128, "block_n": 128, "block_k": 64, "repeats": 2}


@pytest.fixture(scope="module")
def machine() -> Machine:
    return load_machine("h100")


@pytest.fixture(scope="module")
def kernel(machine: Machine) -> KernelPlan:
    options = KernelOptions(Limits(deterministic_s=0.2), compiled=False, warps=True)
    program = programs.build("gemm_persistent", {"m": 4096, "n": 4096, "k": 4096}, TILES)
    planned = plan_program(program, machine, options)
    return simulated(with_groups(planned, machine, options, lambda _: None), machine)


def loops_of(kernel: KernelPlan) -> tuple[NestedLoop, NestedLoop]:
    main, (store,) = kernel.groups, kernel.siblings
    assert main is not None
    assert store.groups is not None
    return (
        main_loop(main.warps, main.schedule),
        NestedLoop(store.groups.warps, store.groups.schedule, store.homes),
    )


def test_stores_run_where_the_products_ran(kernel: KernelPlan, machine: Machine) -> None:
    main, store = loops_of(kernel)
    assert store.homes == (1,)
    assert kernel_registers((main, store)) == (24, 152)
    assert review_kernel(kernel, machine, "", None).findings == ()


def test_the_figures_are_those_of_all_loops(kernel: KernelPlan, machine: Machine) -> None:
    figure = {prediction.name: prediction.value for prediction in kernel.simulated}
    run = run_kernel(kernel, machine)
    product, store = (review.pace for review in run.reviews)
    assert product is not None
    assert store is not None
    once = product.total_cycles(64) + store.total_cycles(2)
    assert figure["loops_cycles"] == 2 * once + 3 * machine.value("mbarrier_cycles")
    assert figure["waves"] == -(-(32 * 32 // 2) // 132)
    assert figure["one_iteration_cycles"] == product.short_cycles[1]
    assert 0 < figure["steady_share"] < 1
    assert figure["grid_cycles"] >= figure["waves"] * figure["loops_cycles"]


def test_a_load_group_runs_no_stores(kernel: KernelPlan, machine: Machine) -> None:
    wrong = replace(kernel, siblings=(replace(kernel.siblings[0], homes=(0,)),))
    assert [finding.code for finding in review_kernel(wrong, machine, "", None).findings] == ["TRD570"]


def test_figures_are_simulated_again(kernel: KernelPlan, machine: Machine) -> None:
    first, *rest = kernel.simulated
    wrong = replace(kernel, simulated=(replace(first, value=first.value - 1), *rest))
    assert [finding.code for finding in review_kernel(wrong, machine, "", None).findings] == ["TRD494"]
    assert [f.code for f in review_kernel(replace(kernel, simulated=()), machine, "", None).findings] == ["TRD494"] * 9


@pytest.mark.parametrize("homes", [(5,), (3,), (1, 2), ()])
def test_groups_that_are_not_there(kernel: KernelPlan, homes: tuple[int, ...]) -> None:
    main, store = loops_of(kernel)
    assert [finding.code for finding in check_nest("k", (main, replace(store, homes=homes)))] == ["TRD570"]
    with pytest.raises(InvalidValue, match="warp group for each"):
        replace(kernel.siblings[0], homes=(1, 2))


def test_all_loops_together_fit_the_register_file(kernel: KernelPlan) -> None:
    main, store = loops_of(kernel)
    limits = replace(main.warps.limits, registers_of_file=175)
    tight = replace(main, warps=replace(main.warps, limits=limits))
    assert [finding.code for finding in check_nest("k", (tight, store))] == ["TRD571"]
    assert align(tight, store.warps, store.made) is None


def test_loops_that_cannot_share_are_refused(kernel: KernelPlan) -> None:
    assert kernel.groups is not None
    limits = replace(kernel.groups.warps.limits, registers_of_file=175)
    tight = replace(kernel.groups, warps=replace(kernel.groups.warps, limits=limits))
    with pytest.raises(LoopsDoNotShare, match="gemm_persistent_store"):
        simulated(replace(kernel, groups=tight), load_machine("h100"))


def test_values_carried_on_stay_where_they_are(machine: Machine) -> None:
    options = KernelOptions(Limits(deterministic_s=0.2), compiled=False, warps=True)
    program = programs.build("swiglu", {"m": 512, "n": 512, "k": 512}, {"block_m": 128, "block_n": 128, "block_k": 64})
    groups = with_groups(plan_program(program, machine, options), machine, options, lambda _: None).groups
    assert groups is not None
    main = main_loop(groups.warps, groups.schedule)
    nested = align(main, groups.warps, groups.schedule)
    assert nested is not None
    assert nested.homes == main.homes
    costs = {
        homes: moved_registers(main, NestedLoop(groups.warps, groups.schedule, homes))
        for homes in permutations(range(3))
    }
    assert costs[main.homes] == 0
    assert costs[0, 2, 1] > 0


def test_handoffs_have_room_beside_the_rings(machine: Machine) -> None:
    """Un-sub-tiled attention hands 32 kB over, which memory has beside the fewest slots of its rings or not."""
    sizes = {"block_m": 64, "block_n": 64, "sub_tiles": 1}
    program = programs.build("attention_fwd", {"heads": 8, "kv_heads": 8, "seq": 1024, "qk_head_dim": 128}, sizes)
    mi300x = load_machine("mi300x")
    plan = kernel_groups.schedule_over_groups(program, mi300x, Options(Limits(deterministic_s=0.2)), lambda _: None)
    assert not check_warps(plan.warps, plan.schedule)
    facts = facts_of(program, mi300x, plan.warps, plan.schedule)
    lowered = lower_schedule(plan.warps, plan.schedule, facts)
    handed = handoff_bytes(plan.warps, plan.schedule.groups)
    rings = {ring.name for ring in plan.warps.loop.rings}
    fewest = sum(b.slot_bytes for b in lowered.buffers if b.memory is Memory.SHARED and b.name not in rings)
    assert handed.get("shared", 0) == fewest
    capacity = plan.warps.loop.capacities[0]
    full = replace(capacity, fixed_bytes=capacity.capacity_bytes - fewest - 2 * 16384 + 1)
    crowded = replace(plan.warps, loop=replace(plan.warps.loop, capacities=(full,)))
    assert {finding.code for finding in check_warps(crowded, plan.schedule)} >= {"TRD608"}
