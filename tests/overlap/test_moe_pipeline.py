"""Expert layers in chunks: best schedule against all, bounds, errors."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.costmodels.interference import CLASSES, WORST, Curve, curve, unknown_pairs
from treadle.costmodels.machines import load_machine
from treadle.costmodels.moe_pipeline import (
    PIECES,
    MoePipeline,
    MoeShape,
    Network,
    Stage,
    bound_ns,
    makespan_ns,
    time_ns,
    training_pipeline,
    without_overlap_ns,
)
from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Basis
from treadle.solvers.overlap.moe_degree import best_pipeline, best_tiles

STAGES = st.lists(
    st.builds(Stage, st.sampled_from(["network", "node", "compute"]), st.integers(0, 5), st.integers(0, 60)),
    min_size=1,
    max_size=5,
).map(tuple)
GRADIENTS = st.none() | st.builds(Stage, st.just("network"), st.integers(0, 3), st.integers(1, 80))


@settings(max_examples=80, deadline=None)
@given(st.builds(MoePipeline, STAGES, GRADIENTS, st.integers(0, 60)))
def test_best_equals_exhaustive_search(pipeline: MoePipeline) -> None:
    degrees = (1, 2, 3, 5, 8)
    found, simulated = best_pipeline(pipeline, degrees)
    pieces = range(PIECES + 1) if pipeline.gradient else (PIECES,)
    choices = list(product(degrees, pieces, (False, True)))
    assert found.time_ns == min(time_ns(pipeline, *choice) for choice in choices)
    assert found.time_ns == time_ns(pipeline, found.degree, found.pieces, found.late_first)
    assert simulated <= len(choices)
    for degree, count, late in choices:
        assert bound_ns(pipeline, degree, count) <= time_ns(pipeline, degree, count, late)


def test_two_chunks_overlap() -> None:
    pipeline = MoePipeline((Stage("network", 0, 20), Stage("compute", 0, 20)))
    assert makespan_ns(pipeline, 1, 0, False) == 40
    assert makespan_ns(pipeline, 2, 0, False) == 30
    assert makespan_ns(pipeline, 4, 0, False) == 25


def test_gradient_hides_beside_chunks() -> None:
    pipeline = MoePipeline((Stage("compute", 0, 80),), Stage("network", 0, 80), 0)
    assert time_ns(pipeline, 1, 0, False) == 160
    assert time_ns(pipeline, 1, PIECES, False) == 80


def test_layers_gain() -> None:
    machine = load_machine("h100")
    shape = MoeShape(2048, 4096, 14336, 2, nodes=6, dense_flops=1e12, gradient_bytes=1e8)
    for backward in (False, True):
        pipeline = training_pipeline(shape, machine, Network(), backward)
        assert best_pipeline(pipeline)[0].time_ns < time_ns(pipeline, 1, 0 if backward else PIECES, False)
    share, found, _ = best_tiles(shape, machine)
    assert 0 < share < 1000
    assert found.time_ns < without_overlap_ns(shape, machine)


def test_curves() -> None:
    assert curve("a100", "memory").speed(0.3) == pytest.approx(0.55)
    assert curve("mi300x", "memory") is WORST
    assert unknown_pairs("mi300x") == CLASSES[1:]
    assert unknown_pairs("a100") == ()
    assert WORST.speed(0.25) == 0.25
    for points in (((0, 0),), ((0, 0.5), (1, 0.2)), ((0.1, 0), (1, 1)), ((0, 0), (1, 2))):
        with pytest.raises(InvalidValue, match="curve"):
            Curve(points, Basis.ASSUMED, "test")


def test_bad_values() -> None:
    with pytest.raises(InvalidValue, match="at least one stage"):
        MoePipeline(())
    with pytest.raises(InvalidValue, match="at least one token"):
        MoeShape(0, 1, 1, 1)
