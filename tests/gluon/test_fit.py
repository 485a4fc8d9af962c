"""What the compiler shows goes back to the solver: tightened at most five times, logged, then refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gluon.kernels import planned
from treadle.codegen.gluon.errors import EvidenceMismatch
from treadle.codegen.gluon.evidence import Evidence
from treadle.codegen.triton.compile import KernelBinary
from treadle.costmodels.machines import load_machine
from treadle.driver import gluon
from treadle.driver.gluon import ROUNDS, fit
from treadle.driver.kernel import KernelRequest, plan_kernel
from treadle.driver.kernels import KernelOptions
from treadle.ir.tile.warps import WarpLoop
from treadle.ir.warp.program import WarpProgram
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.solve import Solution
from treadle.verification.core import review_plan

BINARY = KernelBinary("gemm_kernel", "sm_90", "triton", b"", "cubin", 160, 0, 0, {})
OPTIONS = KernelOptions(limits=Limits(deterministic_s=0.2))
SPILL = Evidence(0, {}, (), ("16 bytes of registers spill",))
KEPT = Evidence(0, {}, (), ())


def _shown(monkeypatch: pytest.MonkeyPatch, *shown: Evidence) -> None:
    answers: Iterator[Evidence] = iter(shown)

    def compiled(sources: dict[str, str], *_: object, **__: object) -> dict[str, tuple[KernelBinary, ...]]:
        return dict.fromkeys(sources, (BINARY,))

    def examined(*_: object) -> Evidence:
        return next(answers)

    monkeypatch.setattr(gluon, "compile_sources", compiled)
    monkeypatch.setattr(gluon, "examine", examined)


def _others_are(monkeypatch: pytest.MonkeyPatch, *, none: bool) -> None:
    def others(_: WarpLoop, best: Solution, *__: object) -> list[Solution]:
        return [] if none else [best]

    monkeypatch.setattr(gluon, "others", others)


def test_tightens_until_the_plan_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    _shown(monkeypatch, SPILL, SPILL, KEPT)
    told: list[str] = []
    fitted = fit(planned("gemm h200"), load_machine("h200"), OPTIONS, told.append)
    assert fitted.kernel.groups is not None
    assert fitted.kernel.groups.room.registers == 16
    assert len(fitted.kernel.attempts) == len(told) == 2
    assert "16 bytes of registers spill" in fitted.kernel.attempts[1]
    before, after = planned("gemm h200").groups, fitted.kernel.groups
    assert before is not None
    assert max(after.schedule.registers) == max(before.schedule.registers) + 16


def test_values_in_the_order_of_instructions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    _shown(monkeypatch, KEPT)
    beyond = iter((9, 0))

    def more(program: WarpProgram, warps: WarpLoop) -> tuple[int, ...]:
        first, *others = (group.registers for group in program.groups)
        return (first, *(registers + next(beyond, 0) for registers in others))

    monkeypatch.setattr(gluon, "registers_in_order", more)
    fitted = fit(planned("swiglu b200"), load_machine("b200"), OPTIONS, lambda _: None)
    assert fitted.kernel.groups is not None
    assert fitted.kernel.groups.room.registers == 16
    assert "need 9 more registers" in fitted.kernel.attempts[0]


def test_gives_up_after_five_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    _shown(monkeypatch, *[SPILL] * ROUNDS)
    with pytest.raises(EvidenceMismatch, match="after 5 rounds"):
        fit(planned("gemm h200"), load_machine("h200"), OPTIONS, lambda _: None)


def test_refuses_at_once_what_no_register_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    _shown(monkeypatch, Evidence(0, {}, (), ("no wgmma instruction",)))
    _others_are(monkeypatch, none=True)
    with pytest.raises(EvidenceMismatch, match="after 1 rounds: no wgmma"):
        fit(planned("gemm h200"), load_machine("h200"), OPTIONS, lambda _: None)


def test_tries_another_schedule_of_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    _shown(monkeypatch, Evidence(0, {}, (), ("no wgmma instruction",)), KEPT)
    _others_are(monkeypatch, none=False)
    fitted = fit(planned("gemm h200"), load_machine("h200"), OPTIONS, lambda _: None)
    assert fitted.kernel.attempts == ("0 registers, 0 bytes left free: no wgmma instruction",)


def test_no_triton_may_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    _shown(monkeypatch, KEPT, SPILL, KEPT, KEPT)
    fitted = fit(planned("gemm h200"), load_machine("h200"), OPTIONS, lambda _: None, pythons=("this", "other"))
    assert fitted.kernel.groups is not None
    assert fitted.kernel.groups.room.registers > 0
    assert [found.refused for found in fitted.elsewhere] == [""]


def test_says_with_which_triton_a_plan_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    _shown(monkeypatch, KEPT, SPILL, KEPT, SPILL)
    fitted = fit(planned("gemm h200"), load_machine("h200"), OPTIONS, lambda _: None, pythons=("this", "other"))
    assert fitted.kernel.groups is not None
    assert fitted.kernel.groups.room.registers == 0
    assert "16 bytes of registers spill" in fitted.elsewhere[0].refused


def test_plan_verifies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    request = KernelRequest(
        "gemm", "h200", {"m": 256, "n": 256, "k": 256}, {"block_m": 128, "block_n": 256, "block_k": 64}
    )
    options = KernelOptions(limits=Limits(deterministic_s=0.2), compiled=False, warps=None, language="gluon")
    plan, files = plan_kernel(request, options, lambda _: None)
    kernel = plan.body.kernels[0]
    assert kernel.language == "gluon"
    assert kernel.program.options["row_parts"] == 2
    assert b"warp_specialize" in files[kernel.source]
    (tmp_path / "kernels").mkdir()
    (tmp_path / kernel.source).write_bytes(files[kernel.source])
    assert review_plan(plan.sealed(), None).findings == ()
