"""Modes: every tile shape with its bound, the choice, its certificate, and a checker that believes none of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.driver.kernel import KernelRequest, plan_kernel
from treadle.driver.kernels import KernelOptions
from treadle.driver.modes import NoModeRuns, TilesFixed, choose_mode, first_bound
from treadle.frontends import programs
from treadle.frontends.programs.modes import every_mode
from treadle.ir.certificate import ProofKind, Status
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.tile.impossible import impossible_over_groups
from treadle.ir.tile.modes import Modes, certificate_of, verdict
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.solve import refuse_impossible
from treadle.verification.core import review_plan

MATRIX = {"m": 4096, "n": 4096, "k": 1024}
OPTIONS = KernelOptions(limits=Limits(deterministic_s=0.2), compiled=False, warps=None, modes=True)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A product on H100, its tile chosen among all of them."""
    return plan_kernel(KernelRequest("gemm", "h100", MATRIX), OPTIONS, lambda _: None)[0].sealed()


def test_a_tile_shared_by_two_consumer_groups_wins(plan: Plan) -> None:
    kernel = plan.body.kernels[0]
    assert kernel.modes.best.tile_sizes == {"block_m": 128, "block_n": 256, "block_k": 64}
    assert kernel.modes.best.row_parts == 2
    assert kernel.groups.schedule.group_count == 3
    assert kernel.modes.certificate.status is Status.OPTIMAL
    assert all(level.proof is ProofKind.ENUMERATION for level in kernel.modes.certificate.levels)
    assert not review_plan(plan, None).findings


def test_a_tile_no_group_holds_says_why(plan: Plan) -> None:
    modes: Modes = plan.body.kernels[0].modes
    whole = next(mode for mode in modes.modes if mode.row_parts == 1 and set(mode.tile_sizes.values()) == {256})
    assert "bytes of `shared`" in whole.refused
    assert verdict(whole, modes.best).startswith("cannot run")
    sizes = {"block_m": 128, "block_n": 256, "block_k": 64}
    found = next(mode for mode in modes.modes if (mode.tile_sizes, mode.row_parts) == (sizes, 1))
    assert "`acc` need 256 registers" in found.refused


def _changed(plan: Plan, change: Callable[[Modes], Modes]) -> list[str]:
    kernel = plan.body.kernels[0]
    forged = replace(plan, body=replace(plan.body, kernels=(replace(kernel, modes=change(kernel.modes)),)))
    return [finding.code for finding in review_plan(forged.sealed(), None).findings]


def _with(modes: Modes, position: int, **changes: Any) -> Modes:
    every = (*modes.modes[:position], replace(modes.modes[position], **changes), *modes.modes[position + 1 :])
    again = certificate_of("gemm", modes.certificate.cost_model, every, modes.chosen)
    return replace(modes, modes=every, certificate=again)


def test_what_is_forged_is_found(plan: Plan) -> None:
    modes: Modes = plan.body.kernels[0].modes
    able = next(place for place, mode in enumerate(modes.modes) if mode.loops and place != modes.chosen)
    refused = next(place for place, mode in enumerate(modes.modes) if mode.refused)
    bound = modes.modes[able].loops[0]
    longer = replace(bound, cycles=bound.cycles + 1)
    assert _changed(plan, lambda m: replace(m, modes=m.modes[1:], chosen=m.chosen - 1)) == ["TRD591"]
    assert "TRD592" in _changed(plan, lambda m: _with(m, able, loops=(longer,)))
    assert "TRD592" in _changed(plan, lambda m: _with(m, able, bound_cycles=(modes.modes[able].bound_cycles or 0) + 1))
    assert "TRD592" in _changed(plan, lambda m: _with(m, able, loaded_bytes=1))
    assert "TRD592" in _changed(plan, lambda m: _with(m, able, loops=(), bound_cycles=None, refused="no room"))
    assert "TRD592" in _changed(plan, lambda m: _with(m, refused, refused="another reason"))
    assert "TRD593" in _changed(plan, lambda m: _with(m, m.chosen, cycles=10**12))
    other = replace(modes, certificate=replace(modes.certificate, levels=modes.certificate.levels[:1]))
    assert _changed(plan, lambda _: other) == ["TRD593"]


def test_loops_alone_where_products_hold_their_warps() -> None:
    made, _ = plan_kernel(KernelRequest("gemm", "a100", MATRIX), OPTIONS, lambda _: None)
    kernel = made.body.kernels[0]
    assert not kernel.modes.over_groups
    assert {mode.row_parts for mode in kernel.modes.modes} == {1}
    assert kernel.modes.certificate["work_cycles"].status is Status.OPTIMAL
    assert not review_plan(made.sealed(), None).findings


@pytest.mark.parametrize("machine", ["h100", "b200"])
@pytest.mark.parametrize("family", ["gemm", "attention_fwd", "rms_norm"])
def test_reasons_without_a_solver_are_those_of_the_solver(family: str, machine: str) -> None:
    """What the checker calls impossible the solver refuses, and the other way round, at every fourth tile."""
    shapes = {
        "gemm": MATRIX,
        "attention_fwd": {"heads": 8, "seq": 1024, "qk_head_dim": 128},
        "rms_norm": {"rows": 1024, "columns": 4096},
    }
    described = load_machine(machine)
    for program in every_mode(family, shapes[family], {}, over_groups=True)[::4]:
        warps = lower_warps(program, described)
        try:
            refuse_impossible(warps)
            refused = False
        except TreadleError:
            refused = True
        assert bool(impossible_over_groups(warps, walk=True)) == refused, program.tile_sizes


def test_no_mode_runs_says_what_is_in_the_way() -> None:
    machine = _without_shared(load_machine("h100"))
    with pytest.raises(NoModeRuns, match="bytes of `shared`"):
        choose_mode("gemm", MATRIX, {}, machine, OPTIONS, lambda _: None)


def _without_shared(machine: Machine) -> Machine:
    figures = (replace(f, value=512) if f.name == "shared_capacity_bytes" else f for f in machine.figures)
    return replace(machine, figures=tuple(figures))


def test_a_fixed_tile_has_no_modes() -> None:
    request = KernelRequest("gemm", "h100", MATRIX, {"block_m": 128})
    with pytest.raises(TilesFixed, match="--tiles gives one"):
        plan_kernel(request, OPTIONS, lambda _: None)
    with pytest.raises(TilesFixed, match="--emit gluon"):
        plan_kernel(KernelRequest("gemm", "h100", MATRIX), replace(OPTIONS, language="gluon"), lambda _: None)


def test_bounds_are_those_of_all_loops() -> None:
    """Both loops of a norm before a product count, repeats and idle multiprocessors too."""
    machine = load_machine("h100")
    program = programs.build("rms_norm_gemm", {"m": 128, "n": 128, "k": 1024})
    mode = first_bound(program, machine, over_groups=False)
    loops = (program, *program.siblings)
    once = sum(bound.cycles * loop.trips for bound, loop in zip(mode.loops, loops, strict=True))
    assert len(mode.loops) == 2
    assert mode.bound_cycles == machine.value("sm_count") * once
