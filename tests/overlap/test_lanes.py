"""Three and more lanes: what may run together, the bound from it, and the beam's schedules."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.ir.operator.claims import recheck
from treadle.ir.operator.lane_patterns import heaviest, lane_entries
from treadle.ir.operator.lanes import rows_of, two_rows
from treadle.ir.operator.loop import Dependence, Mode, Operator, OperatorLoop, Stream
from treadle.ir.operator.patterns import pattern_bound_ns, patterns
from treadle.ir.operator.schedule import check
from treadle.solvers.overlap.beam import beam_schedule
from treadle.solvers.overlap.bounds import pattern_bound
from treadle.solvers.overlap.solve import schedule


@st.composite
def lane_loops(draw: st.DrawFn, least: int = 2, most: int = 4) -> OperatorLoop:
    operators: list[Operator] = []
    edges: list[Dependence] = []
    for lane in range(draw(st.integers(least, most))):
        names = [f"{lane}.{position}" for position in range(draw(st.integers(1, 3)))]
        for name in names:
            operators.append(Operator(name, tuple(draw(modes(number)) for number in range(draw(st.integers(1, 2))))))
        edges += [Dependence(source, target) for source, target in pairwise(names)]
        edges.append(Dependence(names[-1], names[0], 1))
    return OperatorLoop("lanes", (Stream("a"), Stream("b")), tuple(operators), tuple(edges))


@st.composite
def modes(draw: st.DrawFn, number: int) -> Mode:
    shares = {"a": draw(st.sampled_from([100, 300, 600, 1000])), "b": draw(st.sampled_from([0, 400, 700]))}
    return Mode(str(number), draw(st.integers(1, 9)), shares)


@given(lane_loops(), st.data())
@settings(max_examples=60, deadline=None)
def test_heaviest_is_the_most_of_all_patterns(loop: OperatorLoop, data: st.DataObject) -> None:
    rows = rows_of(loop)
    assert rows is not None
    weights = {(op.name, mode.name): data.draw(st.integers(0, 20)) for op in loop.operators for mode in op.modes}
    found = heaviest(rows, loop.streams, weights, 5)
    listed = [sum(weights[name, mode.name] for name, mode in pattern) for pattern in patterns(loop)]
    assert found.weight[0] == max([0, *listed])
    entries = [lane_entries(row) for row in rows]
    for weight, chosen in zip(found.weight, found.entries, strict=True):
        running = [lane[at - 1] for lane, at in zip(entries, chosen, strict=True) if at]
        assert weight == sum(weights[name, mode.name] for name, mode in running)
        for stream in loop.streams:
            assert sum(mode.shares_milli[stream.name] for _, mode in running) <= stream.capacity_milli


@given(lane_loops())
@settings(max_examples=40, deadline=None)
def test_the_bound_holds_and_what_proves_it_is_recomputed(loop: OperatorLoop) -> None:
    bound = pattern_bound(loop)
    assert bound is not None
    weights = {name: Fraction(text) for name, text in bound.evidence["weights"].items()}
    assert bound.value_ns >= pattern_bound_ns(loop, weights) > bound.value_ns - 1
    rows = rows_of(loop)
    assert rows is not None
    scale = float(pattern_bound_ns(loop, weights) / sum(weights.values()))
    found = beam_schedule(loop, rows, {name: float(weight) * scale for name, weight in weights.items()}, 100)
    assert check(loop, found) == []
    assert found.period_ns >= bound.value_ns


@given(lane_loops(3, 4))
@settings(max_examples=25, deadline=None)
def test_schedules_of_many_lanes_are_legal_and_their_claims_hold(loop: OperatorLoop) -> None:
    found, certificate = schedule(loop)
    assert check(loop, found) == []
    assert recheck(loop, found, certificate).findings == ()
    assert found.period_ns <= sum(min(mode.duration_ns for mode in op.modes) for op in loop.operators)


def test_three_small_lanes_fill_a_stream() -> None:
    """Three operators of a third each run side by side: the bound is attained."""
    names = ["0.x", "1.x", "2.x"]
    operators = tuple(Operator(name, (Mode("third", 6, {"a": 333}), Mode("whole", 3, {"a": 1000}))) for name in names)
    loop = OperatorLoop("thirds", (Stream("a"),), operators, tuple(Dependence(name, name, 1) for name in names))
    found, certificate = schedule(loop)
    assert found.period_ns == 6
    assert certificate["period"].bound == 6


def test_other_loops_have_no_lanes() -> None:
    modes = (Mode("m", 1, {"a": 10}),)
    operators = tuple(Operator(name, modes) for name in "uvw")
    fork = (Dependence("u", "v"), Dependence("u", "w"), Dependence("v", "u", 1), Dependence("w", "u", 1))
    assert rows_of(OperatorLoop("fork", (Stream("a"),), operators, fork)) is None
    assert two_rows(OperatorLoop("open", (Stream("a"),), operators[:2], ())) is None
