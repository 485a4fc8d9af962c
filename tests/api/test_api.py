"""The Python face, run as the README shows it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import treadle as td
from treadle.ir.errors import UnknownName

GEMM = td.programs.gemm(512, 512, 256)


def test_schedule_says_what_is_proven() -> None:
    plan = td.schedule(GEMM, machine="h200")
    assert plan.certificate["ii"].status is td.Status.OPTIMAL
    assert plan.certificate["ii"].proof is td.ProofKind.RESOURCE
    assert plan.verify().findings == ()
    assert "cycles optimal [resource]" in plan.summary()


def test_search_orders_by_predicted_time_with_any_executor() -> None:
    alone = td.search(GEMM, top=3)
    with ThreadPoolExecutor(2) as executor:
        together = td.search(GEMM, top=3, executor=executor)
    assert [plan.kernel for plan in alone] == [plan.kernel for plan in together]
    times = [plan.kernel.prediction("time").value for plan in alone]
    assert times == sorted(times)
    assert len(times) == 3


def test_saved_plans_verify(tmp_path: Path) -> None:
    saved = td.schedule(GEMM, machine="a100").save(tmp_path / "plan", compiled=False)
    assert td.load_plan(tmp_path / "plan") == saved
    assert td.verify(tmp_path / "plan").findings == ()


def test_emitted_source_is_text() -> None:
    source = td.schedule(GEMM, machine="h200").emit()
    assert "@triton.jit" in source
    assert isinstance(source, str)


def test_errors_name_what_is_allowed() -> None:
    with pytest.raises(UnknownName, match="h300"):
        td.schedule(GEMM, machine="h300")
    with pytest.raises(UnknownName, match="cobol"):
        td.schedule(GEMM).emit("cobol")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = td.nonsense


def test_public_names_all_load() -> None:
    for name in td.__all__:
        assert getattr(td, name) is not None
    assert set(td.__all__) <= set(dir(td))
