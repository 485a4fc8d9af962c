"""Emitted Gluon: every instruction of the warp program once, readable, the same every time; refusals."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from tests.gluon.kernels import CASES, kernel_of, planned
from treadle.codegen.gluon.emit import emit, frame_of, register_budgets
from treadle.codegen.gluon.errors import NoGluonFrame, NoSharedMemoryLeft, NotEmittable
from treadle.codegen.gluon.kernel import WarpKernel, identifier, warp_kernel
from treadle.codegen.gluon.writer import GroupWriter, shifted
from treadle.costmodels.machines import load_machine
from treadle.ir.warp.program import Action, WarpGroup


@pytest.mark.parametrize("case", CASES)
def test_emits_readable_python(case: str) -> None:
    kernel = kernel_of(case)
    source = emit(kernel, "0123456789abcdef")
    ast.parse(source)
    assert source == emit(kernel, "0123456789abcdef")
    assert "of plan 0123456789abcdef" in source
    for group in kernel.warp_program.groups:
        assert f"\ndef {identifier(group.name)}(" in source
    for operation in kernel.warps.loop.operations:
        assert f"\n# {operation.name} " in source
    for buffer in kernel.warp_program.buffers:
        assert f"    {identifier(buffer.name)} = " in source


@pytest.mark.parametrize("case", CASES)
def test_steady_state_has_every_instruction_once(case: str) -> None:
    kernel = kernel_of(case)
    frame = frame_of(kernel)
    for position, group in enumerate(kernel.warp_program.groups):
        steady = "\n".join(GroupWriter(kernel, position, frame).printed(masked=False).steady)

        def planned_count(*actions: Action, group: WarpGroup = group) -> int:
            return sum(instruction.action in actions for instruction in group.steady)

        signals = steady.count("mbarrier.arrive(") + steady.count("tcgen05_commit(") + steady.count("mbarrier.expect(")
        assert steady.count("mbarrier.wait(") == planned_count(Action.GET, Action.ACQUIRE, Action.TAKE)
        assert signals == planned_count(Action.PUT, Action.RELEASE, Action.PASS)
        names = {i.subject for i in group.steady if i.action is Action.PERFORM}
        for name in names:
            made = f"{identifier(name)} = " in steady or f"{identifier(name)}_token = " in steady
            assert made or "tcgen05_mma(" in steady or "_copy(" in steady


@pytest.mark.parametrize("case", CASES)
def test_budgets_hold_the_plan(case: str) -> None:
    kernel = kernel_of(case)
    budgets = register_budgets(kernel)
    assert budgets.launch % 8 == 0
    assert all(granted % 8 == 0 for granted in budgets.groups)
    assert all(a >= b for a, b in zip(budgets.groups, kernel.made.registers, strict=False))
    assert sum(budgets.groups) <= budgets.launch * len(budgets.groups)


@pytest.mark.parametrize(
    ("text", "back", "expected"),
    [
        ("at", 0, "at"),
        ("at", 2, "at - 2"),
        ("first + 3", 1, "first + 2"),
        ("first + 1", 1, "first"),
        ("first + trips", 1, "first + trips - 1"),
        ("first + trips - 1", -2, "first + trips + 1"),
        ("4", 1, "3"),
    ],
)
def test_shifted(text: str, back: int, expected: str) -> None:
    assert shifted(text, back) == expected


def test_refuses_families_without_a_frame() -> None:
    kernel = kernel_of("gemm h200")
    foreign = replace(kernel, program=replace(kernel.program, family="rms_norm"))
    with pytest.raises(NoGluonFrame, match="rms_norm"):
        frame_of(foreign)
    with pytest.raises(NoGluonFrame, match="sm_80"):
        frame_of(replace(kernel, machine=load_machine("a100")))


def test_refuses_plans_without_warp_groups() -> None:
    without = replace(planned("gemm h200"), groups=None, groupless="TRD300: too many registers", language="triton")
    with pytest.raises(NotEmittable, match="too many registers"):
        warp_kernel(without, load_machine("h200"))


def test_refuses_frames_that_do_not_fit() -> None:
    kernel = _with_deep_rings(kernel_of("gemm h200"), 6)
    with pytest.raises(NoSharedMemoryLeft) as caught:
        emit(kernel)
    assert caught.value.missing_bytes > 0


def _with_deep_rings(kernel: WarpKernel, slots: int) -> WarpKernel:
    buffers = tuple(replace(buffer, slots=slots) for buffer in kernel.warp_program.buffers)
    return replace(kernel, warp_program=replace(kernel.warp_program, buffers=buffers))
