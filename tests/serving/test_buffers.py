"""Buffer offsets: legality, search against brute force, bounds, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from treadle.frontends.layout_buffers import read_buffers
from treadle.ir.certificate import Status
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue
from treadle.ir.layout.buffers import Buffer, BuffersPlan, BuffersProblem, check, peak_live
from treadle.ir.layout.errors import BadRow, DoesNotFit, NoPlacementFound, WrongColumns
from treadle.solvers.backend import Limits
from treadle.solvers.buffers import solve as solving
from treadle.solvers.buffers.model import refute_or_place
from treadle.solvers.buffers.skyline import Sections, search
from treadle.solvers.buffers.solve import Effort, solve_buffers


def problem(rows: list[tuple[int, int, int]], capacity: int | None = None) -> BuffersProblem:
    return BuffersProblem(tuple(Buffer(f"b{i}", a, a + d, s) for i, (a, d, s) in enumerate(rows)), capacity)


def least_height(one: BuffersProblem) -> int:
    """Try every order, each buffer at the lowest offset above those before it in the order that overlap it."""
    best = sum(buffer.size_bytes for buffer in one.buffers)
    for order in permutations(range(len(one.buffers))):
        offsets: dict[int, int] = {}
        for index in order:
            buffer = one.buffers[index]
            offsets[index] = max(
                (
                    offsets[other] + one.buffers[other].size_bytes
                    for other in offsets
                    if one.buffers[other].lower < buffer.upper and buffer.lower < one.buffers[other].upper
                ),
                default=0,
            )
        best = min(best, max(offsets[i] + one.buffers[i].size_bytes for i in offsets))
    return best


ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=6)


@example([(0, 1, 1), (0, 2, 2), (1, 2, 2), (2, 1, 1)])  # a forced move above free space must not refute
@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_search_decides_every_height_as_brute_force_does(rows: list[tuple[int, int, int]]) -> None:
    one = problem(rows)
    least, sections = least_height(one), Sections.of(one)
    found = search(sections, least, 5000)
    assert found.offsets is not None
    assert check(BuffersPlan(replace(one, capacity_bytes=least), found.offsets)) == []
    if least > max(buffer.size_bytes for buffer in one.buffers):
        assert search(sections, least - 1, 5000).refuted
        assert refute_or_place(sections, least - 1, Limits())[0] is Status.INFEASIBLE


@settings(max_examples=20, deadline=None)
@given(ROWS)
def test_solution_is_legal_and_not_below_the_live_peak(rows: list[tuple[int, int, int]]) -> None:
    plan, certificate = solve_buffers(problem(rows))
    assert check(plan) == []
    assert certificate.levels[0].value >= peak_live(plan.problem)[0] == certificate.levels[0].bound


def test_findings() -> None:
    one = problem([(0, 4, 4), (2, 4, 4)], 8)
    assert check(BuffersPlan(one, (0, 4))) == []
    assert [finding.code for finding in check(BuffersPlan(one, (0, 2)))] == ["TRD441"]
    assert [finding.code for finding in check(BuffersPlan(one, (0, 5)))] == ["TRD442"]
    assert [finding.code for finding in check(BuffersPlan(one, (0,)))] == ["TRD440"]


def test_capacity_below_the_peak_is_refused_with_the_moment() -> None:
    with pytest.raises(DoesNotFit, match="8 bytes are needed at clock 2"):
        solve_buffers(problem([(0, 4, 4), (2, 4, 4)], 7))


def test_no_effort_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    def stacked(sections: Sections) -> tuple[int, ...]:
        return (0, 4, 8)

    monkeypatch.setattr(solving, "_stack", stacked)
    with pytest.raises(NoPlacementFound, match="whether one exists is open"):
        solve_buffers(problem([(0, 4, 4), (2, 4, 4), (6, 2, 4)], 8), Effort(rounds=0))


def test_reads_columns_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "b.csv"
    file.write_text("size,upper,lower,id\n5,3,0,a\n")
    assert read_buffers(file, None).buffers == (Buffer("a", 0, 3, 5),)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("id,lower,size\n", WrongColumns, "upper"),
        ("", WrongColumns, "none"),
        ("id,lower,upper,size\na,0,x,4\n", BadRow, "`x`"),
        ("id,lower,upper,size\na,0\n", BadRow, "upper"),
        ("id,lower,upper,size\na,4,2,4\n", TreadleError, "not after its start"),
        ("id,lower,upper,size\na,0,2,0\n", TreadleError, "size 0"),
        ("id,lower,upper,size\na,0,2,1\na,0,2,1\n", TreadleError, "same id"),
        ("id,lower,upper,size\n", TreadleError, "no buffers"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, error: type[TreadleError], words: str) -> None:
    file = tmp_path / "b.csv"
    file.write_text(text)
    with pytest.raises(error) as raised:
        read_buffers(file, None)
    assert words in raised.value.render()
    assert "b.csv" in raised.value.render()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Buffer("a", 0, 1, 1 << 70),
        lambda: Buffer("a", 0, 1 << 70, 1),
        lambda: BuffersProblem((Buffer("a", 0, 1, 1 << 60), Buffer("b", 0, 1, 1 << 60))),
    ],
)
def test_sizes_beyond_all_measure_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue):
        make()
