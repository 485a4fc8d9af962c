"""Kernels compiled without a GPU: no spills, registers, products and barriers an iteration as planned."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest

from tests.gluon.kernels import kernel_of
from treadle.codegen.gluon.emit import emit
from treadle.codegen.gluon.evidence import Evidence, examine
from treadle.codegen.triton.compile import KernelBinary, compile_source

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="extra `kernels`")


def _binary(case: str) -> KernelBinary:
    kernel = kernel_of(case)
    return compile_source(emit(kernel), kernel.machine.architecture)[0]


COMPILED = ("gemm h200", "gemm b200", "grouped h200", "swiglu b200")
"""Attention takes rounds with the solver: `benchmarks/kernel_static_gluon.py`."""


@pytest.mark.parametrize("case", COMPILED)
def test_keeps_the_plan(case: str) -> None:
    kernel, binary = kernel_of(case), _binary(case)
    evidence = examine(kernel, binary)
    assert evidence.mismatches == ()
    assert evidence.spill_bytes == 0
    assert not evidence.counts["local"]
    assert evidence.counts["tcgen05" if kernel.blackwell else "wgmma"]
    assert evidence.counts["tma_load"]
    assert evidence.counts["tma_store"]
    assert evidence.counts["setmaxnreg"]
    for group in evidence.groups:
        assert (group.waits, group.signals, group.products) == (
            group.waits_planned,
            group.signals_planned,
            group.products_planned,
        )
        assert group.registers_used <= group.registers_granted
        assert group.instructions


def test_sees_what_is_not_planned() -> None:
    kernel, binary = kernel_of("gemm h200"), _binary("gemm h200")
    assert "spill" in " ".join(examine(kernel, replace(binary, spill_bytes=8)).mismatches)
    fewer = replace(kernel, made=replace(kernel.made, registers=tuple(r - 16 for r in kernel.made.registers)))
    reasons = examine(fewer, binary).mismatches
    assert reasons
    assert all("registers" in reason for reason in reasons)
    assert Evidence(8, {}, (), reasons).short_of_registers
    group = kernel.warp_program.groups[1]
    longer = replace(group, steady=(*group.steady, group.steady[-1]))
    program = replace(
        kernel.warp_program, groups=(kernel.warp_program.groups[0], longer, *kernel.warp_program.groups[2:])
    )
    evidence = examine(replace(kernel, warp_program=program), binary)
    assert any("an iteration; planned are" in reason for reason in evidence.mismatches)
    assert not evidence.short_of_registers
