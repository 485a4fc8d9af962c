"""Attention backward over two groups: schedules of sub-tiles that do the same, and what their text computes."""

from __future__ import annotations

from functools import cache

import pytest

from treadle.codegen.gluon.emit import emit
from treadle.codegen.gluon.kernel import WarpKernel
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.costmodels.warp_facts import facts_of
from treadle.driver.gluon import checked, for_groups
from treadle.frontends import programs
from treadle.ir.certificate import Status
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import check_warps
from treadle.ir.warp.lower import lower_schedule
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.alike import part_groups, schedule_alike
from treadle.solvers.pipeline.solve import LEVELS, Options, Solution

torch = pytest.importorskip("torch")

from treadle.driver.gpu.correct import check_kernel  # noqa: E402 - torch is an extra
from treadle.driver.gpu.emulator import emulated_figures  # noqa: E402

SHAPE = {"batch": 1, "heads": 4, "kv_heads": 2, "seq": 1024, "qk_head_dim": 128, "causal": 1}
OPTIONS = Options(limits=Limits(deterministic_s=0.1))
SLOW_II = 2560
"""The bound, which the tensor core sets."""


def _program(**shape: int) -> TileProgram:
    return programs.build("attention_bwd", {**SHAPE, **shape}, {"block_m": 64, "block_n": 128, "sub_tiles": 2})


@cache
def _solved() -> Solution:
    solved = schedule_alike(lower_warps(_program(), load_machine("h200")), OPTIONS, least_ii=SLOW_II)
    assert solved is not None
    return solved


def test_each_sub_tile_has_a_group_half_an_interval_after_the_other() -> None:
    warps, solved = lower_warps(_program(), load_machine("h200")), _solved()
    assert check_warps(warps, solved.schedule) == []
    assert solved.schedule.groups == part_groups(warps)
    made = solved.schedule.schedule
    later = made.start_cycles["scores_1"] - made.start_cycles["scores_0"]
    assert later == made.ii_cycles // 2
    interval = solved.certificate.levels[0]
    assert (interval.bound, interval.status) == (2560, Status.OPTIMAL)


def test_sub_tiles_that_differ_have_none() -> None:
    machine = load_machine("h200")
    assert schedule_alike(lower_warps(_program(qk_head_dim=64), machine), OPTIONS) is None
    other = Options(limits=OPTIONS.limits, objective=LEVELS)
    assert set(LEVELS) == set(OPTIONS.objective) or schedule_alike(lower_warps(_program(), machine), other) is None


def test_wide_heads_are_cut_into_sub_tiles_of_keys() -> None:
    program = programs.build("attention_bwd", SHAPE, {"block_m": 64, "block_n": 128, "sub_tiles": 1})
    assert for_groups(program, load_machine("h200")).tile_sizes == {"block_m": 64, "block_n": 128, "sub_tiles": 2}


@pytest.mark.parametrize("causal", [0, 1])
def test_overlapping_sub_tiles_compute_gradients(causal: int) -> None:
    machine, program, made = load_machine("h200"), _program(causal=causal), _solved().schedule
    warps = lower_warps(program, machine)
    lowered = lower_schedule(warps, made, facts_of(program, machine, warps, made))
    certificate = _solved().certificate
    kernel = checked(WarpKernel(program.name, program, machine, warps, made, certificate, lowered))
    shape = {**program.shape, "batch": 1, "seq": 70, "kv_seq": 201}
    found = emulated_figures(
        emit(kernel), lambda m: check_kernel(m, program.family, shape, {"dtype": kernel.dtype}, 5, "cpu"), range(1)
    )
    assert found["correct"], found["reason"]
