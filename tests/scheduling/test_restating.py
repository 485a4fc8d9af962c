"""Bounds found under values that later levels make smaller say the final ones, and are checked under them."""

from __future__ import annotations

import random

import pytest

from benchmarks.warp_oracle import random_warps
from treadle.ir.certificate import ProofKind
from treadle.ir.tile.register_bound import register_bound as least_registers
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.pipeline.bounds import register_bound
from treadle.solvers.pipeline.restating import restated


@pytest.mark.parametrize("seed", range(20))
def test_registers_under_less_traffic(seed: int) -> None:
    warps = random_warps(random.Random(seed))
    every = sum(crossing.bytes for crossing in warps.crossings)
    ii = 2 * sum(issue.issue_cycles for issue in warps.issues) + 1
    found = register_bound(warps, ii, every)
    again = restated(warps, ii, "registers", found, {"traffic_bytes": 0, "registers": 10**6})
    assert again.value >= found.value
    assert again.evidence["traffic_bytes"] == 0
    assert (again.value, tuple(again.evidence["values"])) == least_registers(warps, ii, 0)
    raised = Bound(
        found.value + 1,
        ProofKind.SOLVER,
        {"basis": {"value": found.value, "proof": found.proof.value, "evidence": found.evidence}},
    )
    nested = restated(warps, ii, "registers", raised, {"traffic_bytes": 0, "registers": 10**6})
    assert nested.evidence["basis"]["evidence"] == again.evidence


def test_registers_without_traffic_before_them_stay() -> None:
    warps = random_warps(random.Random(3))
    found = register_bound(warps, 50, None)
    assert restated(warps, 50, "registers", found, {"registers": 10**6}) == found
