"""Minimax stage layouts against brute force."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from treadle.ir.certificate import Status
from treadle.ir.errors import InvalidValue
from treadle.ir.training.plan import StageLayout
from treadle.solvers.stage_layout.solve import NoStageLayout, StageProblem, solve


def brute(problem: StageProblem) -> float:
    layers, slots = len(problem.layer_us), problem.ranks * problem.chunks
    best = float("inf")
    for cuts in combinations_with_replacement(range(layers + 1), slots - 1):
        edges = (0, *cuts, layers)
        counts = tuple(edges[slot + 1] - edges[slot] for slot in range(slots))
        if min(counts[1:-1], default=1) > 0:
            best = min(best, max(problem.loads(StageLayout(counts))))
    return best


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
    st.integers(1, 4),
    st.integers(0, 9),
    st.integers(0, 20),
)
@settings(max_examples=150, deadline=None)
def test_contiguous_is_best(layers: list[int], ranks: int, first: int, last: int) -> None:
    problem = StageProblem(tuple(map(float, layers)), ranks, 1, first, last)
    assume(len(layers) >= ranks - 2)
    layout, level = solve(problem)
    assert sum(layout.layers) == len(layers)
    assert level.status is Status.OPTIMAL
    assert max(problem.loads(layout)) == level.value == pytest.approx(brute(problem))


@given(
    st.integers(0, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(2, 3),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 7),
)
@settings(max_examples=150, deadline=None)
def test_chunked_is_best(
    dense: int, routed: int, time: int, ranks: int, chunks: int, first: int, last: int, other: int
) -> None:
    problem = StageProblem((float(other),) * dense + (float(time),) * routed, ranks, chunks, first, last)
    best = brute(problem)
    if best == float("inf"):
        with pytest.raises(NoStageLayout):
            solve(problem)
        return
    layout, level = solve(problem)
    assert sum(layout.layers) == dense + routed
    assert min(layout.layers[1:-1], default=1) > 0
    assert level.value == pytest.approx(best)


def test_large_cases_and_refusals() -> None:
    layout, level = solve(StageProblem((3.0,) * 3 + (5.0,) * 125, 16, 8, 0.5, 9.0))
    assert len(layout.layers) == 128
    assert level.bound == level.value
    with pytest.raises(NoStageLayout):
        solve(StageProblem((1.0,) * 10, 16))
    with pytest.raises(NoStageLayout):
        solve(StageProblem((1.0, 2.0, 1.0, 2.0), 1, 2))
    with pytest.raises(InvalidValue):
        StageProblem((), 1)
