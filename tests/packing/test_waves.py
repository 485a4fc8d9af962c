"""Waves by the model are legal: what they lead through is replayed."""

from __future__ import annotations

import random

import pytest

from treadle.costmodels.migration import check
from treadle.ir.cluster.cluster import Cluster, Node, Pod, Shape
from treadle.ir.cluster.migration import Migration
from treadle.ir.cluster.placement import Placement
from treadle.solvers.backend import Limits
from treadle.solvers.packing.waves import WaveModel

WRONG_COUNTS = "TRD474"
"""Bounds and counts are not the model's to state."""


def exchanged(seed: int) -> tuple[Cluster, Placement]:
    """Nodes of ten units, nearly full before and after pods have changed places."""
    dice = random.Random(seed)
    count, sizes = 4, [dice.choice([2, 3, 4, 5]) for _ in range(10)]

    def packed() -> list[int] | None:
        free, nodes = [10] * count, []
        for size in sizes:
            fitting = [node for node in range(count) if free[node] >= size]
            if not fitting:
                return None
            nodes.append(dice.choice(fitting))
            free[nodes[-1]] -= size
        return nodes

    found = [nodes for nodes in (packed() for _ in range(200)) if nodes is not None]
    if len(found) < 2:
        return exchanged(seed + 1000)
    before, after = found[:2]
    shapes = tuple(Shape(f"s{size}", {"cpu": size}) for size in range(6))
    pods = tuple(Pod(f"p{k}", size, before[k]) for k, size in enumerate(sizes))
    return Cluster(tuple(Node(f"n{k}", {"cpu": 10}) for k in range(count)), shapes, pods), Placement(tuple(after))


@pytest.mark.parametrize("seed", range(24))
def test_every_wave_fits(seed: int) -> None:
    cluster, placement = exchanged(seed)
    for waves in (4, 5, 6):
        found = WaveModel(cluster, placement, waves, detours=True).solve(Limits(0.5))
        if found is not None:
            steps = Migration(tuple(tuple(wave) for wave in found), 0)
            assert {finding.code for finding in check(cluster, placement, steps)} <= {WRONG_COUNTS}
