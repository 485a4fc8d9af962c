"""Operator loops: legality, bounds and least periods against brute force."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.costmodels.operator_replay import replayed_period_ns
from treadle.ir.certificate import ProofKind, Status
from treadle.ir.errors import InvalidValue
from treadle.ir.operator.claims import recheck
from treadle.ir.operator.loop import Dependence, Mode, Operator, OperatorLoop, ShareTooLarge, Stream
from treadle.ir.operator.schedule import (
    OperatorSchedule,
    check,
    latency_ns,
    recurrence_bound_ns,
    stream_profile,
    volume_bound_ns,
)
from treadle.solvers.overlap.bounds import period_bounds
from treadle.solvers.overlap.solve import OverlapOptions, schedule


def gemm_beside_collective() -> OperatorLoop:
    """A GEMM at full or half width beside an all-reduce, as in tensor parallelism."""
    return OperatorLoop(
        "layer",
        (Stream("sm"), Stream("nvlink")),
        (
            Operator("gemm", (Mode("all", 10, {"sm": 1000}), Mode("most", 11, {"sm": 900}))),
            Operator("reduce", (Mode("few", 9, {"sm": 100, "nvlink": 1000}),)),
        ),
        (Dependence("gemm", "reduce"), Dependence("reduce", "gemm", 2)),
    )


def test_overlap_hides_the_collective() -> None:
    loop = gemm_beside_collective()
    found, certificate = schedule(loop)
    assert check(loop, found) == []
    assert found.period_ns == 11
    assert found.modes == {"gemm": "most", "reduce": "few"}
    assert certificate.status is Status.OPTIMAL
    assert latency_ns(loop, found) == 20


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"period_ns": 10}, "TRD481"),
        ({"start_ns": {"gemm": 0, "reduce": 10}}, "TRD481"),
        ({"start_ns": {"gemm": -1, "reduce": 11}}, "TRD481"),
        ({"start_ns": {"gemm": 1, "reduce": 12}}, "TRD481"),
        ({"modes": {"gemm": "all", "reduce": "few"}, "start_ns": {"gemm": 0, "reduce": 11}}, "TRD482"),
        ({"modes": {"gemm": "none", "reduce": "few"}}, "TRD480"),
        ({"modes": {"gemm": "most"}}, "TRD480"),
        ({"loop": "other"}, "TRD480"),
    ],
)
def test_violations_are_found(change: dict[str, object], code: str) -> None:
    good = OperatorSchedule("layer", 11, {"gemm": 0, "reduce": 11}, {"gemm": "most", "reduce": "few"})
    assert check(gemm_beside_collective(), good) == []
    bad = replace(good, **change)  # type: ignore[arg-type]  # fields vary by case
    assert code in {finding.code for finding in check(gemm_beside_collective(), bad)}


def test_bounds_are_rederivable() -> None:
    loop = gemm_beside_collective()
    for bound in period_bounds(loop):
        if bound.proof is ProofKind.LP_DUAL:
            weights = {name: Fraction(text) for name, text in bound.evidence["weights"].items()}
            assert volume_bound_ns(loop, weights) <= bound.value_ns < volume_bound_ns(loop, weights) + 1
        if bound.proof is ProofKind.RECURRENCE:
            assert recurrence_bound_ns(loop, bound.evidence["cycle"]) == Fraction(19, 2)


def test_wrong_evidence_bounds_nothing() -> None:
    loop = gemm_beside_collective()
    assert volume_bound_ns(loop, {"sm": Fraction(-1)}) == 0
    assert volume_bound_ns(loop, {}) == 0
    assert recurrence_bound_ns(loop, ["reduce", "reduce"]) == 0


def test_invalid_loops() -> None:
    loop = gemm_beside_collective()
    with pytest.raises(ShareTooLarge, match="gemm"):
        replace(loop, streams=(Stream("sm", 500), Stream("nvlink")))
    with pytest.raises(InvalidValue, match="unknown stream"):
        replace(loop, streams=(Stream("sm"),))
    with pytest.raises(InvalidValue, match="wait for each other"):
        replace(loop, dependences=(Dependence("gemm", "reduce"), Dependence("reduce", "gemm")))


def test_an_operator_that_carries_itself() -> None:
    loop = OperatorLoop(
        "self", (Stream("a"),), (Operator("o", (Mode("m", 3, {"a": 100}),)),), (Dependence("o", "o", 1),)
    )
    found, certificate = schedule(loop)
    assert found.period_ns == 3
    assert certificate.status is Status.OPTIMAL
    assert certificate["period"].proof.checkable
    assert recheck(loop, found, certificate).findings == ()


def test_a_mode_that_fits_nowhere_is_not_taken() -> None:
    modes = (Mode("wide", 1, {"a": 1000}), Mode("narrow", 4, {"a": 500}))
    loop = OperatorLoop("tight", (Stream("a", 500),), (Operator("o", modes),), ())
    found, certificate = schedule(loop)
    assert (found.modes, found.period_ns) == ({"o": "narrow"}, 4)
    assert check(loop, found) == []
    assert certificate.status is Status.OPTIMAL


MODES = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([400, 600, 1000]), st.sampled_from([0, 500])), min_size=1, max_size=2
)


@st.composite
def small_loops(draw: st.DrawFn) -> OperatorLoop:
    operators = tuple(
        Operator(f"o{i}", tuple(Mode(f"m{j}", d, {"a": a, "b": b}) for j, (d, a, b) in enumerate(draw(MODES))))
        for i in range(draw(st.integers(2, 3)))
    )
    names = [operator.name for operator in operators]
    chain = [Dependence(u, v) for u, v in pairwise(names) if draw(st.booleans())]
    back = [Dependence(names[-1], names[0], draw(st.integers(1, 2)))] if draw(st.booleans()) else []
    return OperatorLoop("random", (Stream("a"), Stream("b")), operators, (*chain, *back))


def brute_force_period(loop: OperatorLoop, stages: int) -> int:
    """Least period by trying every period, mode and start."""
    period = 0
    while True:
        period += 1
        for choice in product(*[[mode.name for mode in operator.modes] for operator in loop.operators]):
            for starts in product(range(period * stages), repeat=len(loop.operators)):
                shifted = [start - min(starts) for start in starts]
                names = list(loop.index)
                trial = OperatorSchedule(
                    loop.name, period, dict(zip(names, shifted, strict=True)), dict(zip(names, choice, strict=True))
                )
                if not check(loop, trial):
                    return period


@st.composite
def two_chains(draw: st.DrawFn) -> OperatorLoop:
    operators: list[Operator] = []
    edges: list[Dependence] = []
    for lane in "xy":
        names = [f"{lane}{i}" for i in range(draw(st.integers(1, 2)))]
        for name in names:
            modes = tuple(Mode(f"m{j}", d, {"a": a, "b": b}) for j, (d, a, b) in enumerate(draw(MODES)))
            operators.append(Operator(name, modes))
        edges += [Dependence(u, v) for u, v in pairwise(names)] + [Dependence(names[-1], names[0], 1)]
    return OperatorLoop("lanes", (Stream("a"), Stream("b")), tuple(operators), tuple(edges))


@settings(max_examples=10, deadline=None)
@given(two_chains())
def test_two_lanes_are_enumerated_exactly(loop: OperatorLoop) -> None:
    found, certificate = schedule(loop)
    assert check(loop, found) == []
    assert found.period_ns == brute_force_period(loop, 2)
    level = certificate["period"]
    assert level.status is Status.OPTIMAL
    assert level.proof.checkable
    assert recheck(loop, found, certificate).findings == ()
    assert replayed_period_ns(loop, found) <= found.period_ns * 1.001
    quick, _ = schedule(loop, OverlapOptions(searched_modes=0, exact=False))
    assert check(loop, quick) == []
    assert quick.period_ns >= found.period_ns
    if level.proof is ProofKind.ENUMERATION:
        level = replace(level, value=found.period_ns + 1, bound=found.period_ns + 1)
        raised = replace(certificate, levels=(level, *certificate.levels[1:]))
        assert {"TRD483", "TRD484"} == {finding.code for finding in recheck(loop, found, raised).findings}


@settings(max_examples=25, deadline=None)
@given(small_loops())
def test_least_period_equals_brute_force(loop: OperatorLoop) -> None:
    found, certificate = schedule(loop, OverlapOptions(stages=2))
    assert check(loop, found) == []
    assert found.period_ns == brute_force_period(loop, 2)
    assert certificate["period"].status is Status.OPTIMAL
    assert recheck(loop, found, certificate).findings == ()
    for low, high, load in stream_profile(loop, found, "a"):
        assert low < high
        assert load <= 1000
