"""Tile programs as loops with warps: issue slots of the special-function unit, and groups that registers force."""

from __future__ import annotations

from dataclasses import replace

import pytest

from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.costmodels.tile_cycles import MUFU
from treadle.frontends import programs
from treadle.ir.certificate import ProofKind, Status
from treadle.ir.tile.register_bound import single_group_bound
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import WarpLoop, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.bounds import group_bound
from treadle.solvers.pipeline.solve import Options, schedule

SHAPE = {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128}


def attention(machine_id: str) -> WarpLoop:
    program = programs.build("attention_fwd", SHAPE, {"block_m": 128, "block_n": 128, "sub_tiles": 2})
    return lower_warps(program, load_machine(machine_id))


@pytest.mark.parametrize("machine_id", ["h100", "b200"])
def test_exponentials_take_an_issue_slot_per_warp_instruction(machine_id: str) -> None:
    warps = attention(machine_id)
    issue = {issue.operation: issue.issue_cycles for issue in warps.issues}
    weights = warps.loop.operation("weights_0")
    assert weights.unit == MUFU
    assert weights.occupancy_cycles == 64 * 128 // 16
    assert issue["weights_0"] == 64 * 128 // 128, "4 warps of 32 lanes, a scheduler each"
    assert issue["shifted_0"] == warps.loop.operation("shifted_0").occupancy_cycles


def test_one_group_for_both_sub_tiles_exceeds_its_registers() -> None:
    warps = attention("h100")
    needed, values = single_group_bound(warps, 2048)
    assert needed == 36 + 2 * 64 + 2 * 64, "fixed, two accumulators, and the scores of both, 1465 of 2048 cycles each"
    assert {"acc_0", "acc_1"} <= set(values)
    assert group_bound(warps, 2048).proof is ProofKind.CAPACITY
    roomy = replace(warps, limits=replace(warps.limits, registers_per_group=needed))
    assert group_bound(roomy, 2048).value == 2


def test_attention_on_hopper_is_proven_at_every_level() -> None:
    warps = attention("h100")
    made = schedule(warps, Options(Limits(deterministic_s=2.0)))
    assert check_warps(warps, made.schedule) == []
    assert recheck_warps(warps, made.schedule, made.certificate).findings == ()
    assert all(level.status is Status.OPTIMAL for level in made.certificate.levels)
    assert [made.certificate[name].value for name in ("ii", "groups", "registers")] == [2048, 3, 196]
    level = made.certificate["groups"]
    assert level.proof is ProofKind.CAPACITY
    damages: list[dict[str, object]] = [{"registers": 248}, {"values": []}, {"roles": 0}, {"interval": 2049}]
    for wrong in damages:
        damaged = replace(level, evidence={**level.evidence, **wrong})
        levels = tuple(damaged if other is level else other for other in made.certificate.levels)
        certificate = replace(made.certificate, levels=levels)
        assert recheck_warps(warps, made.schedule, certificate).findings, wrong
    roomy = replace(warps, limits=replace(warps.limits, registers_per_group=292))
    assert recheck_warps(roomy, made.schedule, made.certificate).findings
