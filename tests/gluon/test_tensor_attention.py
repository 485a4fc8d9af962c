"""Attention forward on Blackwell: scores and outputs in tensor memory; the rows a warp group holds."""

from __future__ import annotations

import ast
from importlib.util import find_spec

import pytest

from tests.gluon.kernels import serial_kernel
from treadle.codegen.gluon.emit import emit
from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.evidence import examine
from treadle.codegen.triton.compile import compile_source
from treadle.driver.gpu.correct import check_kernel
from treadle.driver.gpu.emulator import emulated_figures
from treadle.frontends import programs

SHAPE = {"heads": 4, "seq": 1024, "qk_head_dim": 64}


@pytest.mark.skipif(find_spec("triton") is None, reason="extra `kernels`")
def test_emits_and_compiles() -> None:
    kernel = serial_kernel(
        programs.build("attention_fwd", SHAPE, {"block_m": 128, "block_n": 64, "sub_tiles": 1}), "b200"
    )
    source = emit(kernel)
    ast.parse(source)
    assert "scores = allocate_tensor_memory(" in source
    assert "_reinterpret(scores.index(0)" in source
    evidence = examine(kernel, compile_source(source, "sm_100")[0])
    assert evidence.short_of_registers
    assert evidence.spill_bytes == 0
    assert evidence.counts["tcgen05"]
    assert evidence.groups[1].waits == evidence.groups[1].waits_planned > 0


def test_first_values_are_handed_to_other_groups() -> None:
    """The maximum of rows before the first keys lies in its slot when a tile begins, and leaves it when it ends."""
    program = programs.build("attention_fwd", SHAPE, {"block_m": 128, "block_n": 64, "sub_tiles": 1})
    kernel = serial_kernel(program, "b200", ("drop", "alpha"))
    source = emit(kernel)
    assert any(channel.primed for channel in kernel.warp_program.channels)
    assert "row_max_empty" in source
    small = {"batch": 2, "heads": 2, "kv_heads": 1, "seq": 300, "kv_seq": 333, "qk_head_dim": 64, "v_head_dim": 64}
    options = {"dtype": kernel.dtype, **program.options}
    figures = emulated_figures(
        source, lambda m: check_kernel(m, "attention_fwd", {**program.shape, **small}, options, 7, "cpu"), range(3)
    )
    assert figures["correct"], figures["reason"]


def test_refuses_narrow_tiles() -> None:
    narrow = programs.build("attention_fwd", SHAPE, {"block_m": 64, "block_n": 64, "sub_tiles": 1})
    with pytest.raises(NotEmittable, match="tensor memory has 128 lanes"):
        emit(serial_kernel(narrow, "b200"))
