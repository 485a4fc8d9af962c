"""Emitted text run on the CPU against float64, at shapes that no tile divides; and what is wrong with it, seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gluon.kernels import kernel_of, serial_kernel
from treadle.codegen.gluon.emit import emit
from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.kernel import WarpKernel
from treadle.costmodels.machines import load_machine
from treadle.driver.gluon import for_groups
from treadle.frontends import programs

torch = pytest.importorskip("torch")

from treadle.driver.gpu.correct import check_kernel  # noqa: E402 - torch is an extra
from treadle.driver.gpu.emulated import Deadlock  # noqa: E402
from treadle.driver.gpu.emulator import emulate, emulated_figures  # noqa: E402

MATRIX = {"m": 150, "n": 136, "k": 144}
HEADS = {"heads": 4, "kv_heads": 2, "qk_head_dim": 64}
CACHE = {"batch": 2, **HEADS, "kv_seq": 205}
SMALL: dict[str, tuple[str, dict[str, int], dict[str, int], dict[str, Any]]] = {
    "gemm": ("gemm", MATRIX, {"block_n": 64, "block_k": 64}, {}),
    "swiglu": ("swiglu", MATRIX, {"block_n": 64, "block_k": 64}, {}),
    "gemm_fp8": ("gemm_fp8", MATRIX, {"block_n": 64, "block_k": 128}, {}),
    "grouped_gemm": (
        "grouped_gemm",
        {"experts": 3, "tokens": 90, "top_k": 2, "n": 136, "k": 144},
        {"block_n": 64, "block_k": 64},
        {},
    ),
    "gemm_w4a16": ("gemm_w4a16", {"m": 21, "n": 264, "k": 256}, {"block_m": 16, "block_n": 128, "block_k": 128}, {}),
    "rms_norm_gemm": ("rms_norm_gemm", MATRIX, {"block_n": 64, "block_k": 64}, {"form": "one_loop"}),
    "kmeans_assign": ("kmeans_assign", {"points": 300, "centroids": 75, "dimension": 64}, {"block_n": 64}, {}),
    "attention_fwd": (
        "attention_fwd",
        {"batch": 1, **HEADS, "seq": 145, "causal": 1},
        {"block_n": 64, "sub_tiles": 1},
        {"lse": True},
    ),
    "attention_bwd": (
        "attention_bwd",
        {"batch": 1, **HEADS, "seq": 70, "kv_seq": 201, "causal": 1},
        {"block_m": 64, "block_n": 128, "sub_tiles": 2},
        {},
    ),
    "attention_varlen": (
        "attention_varlen",
        {"batch": 3, "tokens": 260, **HEADS, "causal": 1},
        {"block_n": 64, "sub_tiles": 1},
        {"lse": True},
    ),
    "attention_decode": ("attention_decode", CACHE, {"block_n": 64, "splits": 2}, {}),
    "attention_paged": ("attention_paged", {**CACHE, "page_size": 16}, {"block_n": 64, "splits": 4}, {}),
}
"""Families at small shapes; rows are what the machine multiplies at once."""


WIDER = {("attention_bwd", "b200"): ({"qk_head_dim": 128}, {"sub_tiles": 1, "block_m": 64})}
"""What a machine takes instead: tensor memory has 128 lanes, which rows of the gradient of queries fill, too."""


def small_kernel(name: str, machine_id: str) -> WarpKernel:
    family, shape, tiles, options = SMALL[name]
    rows = {"block_m": 128 if machine_id == "b200" else 64}
    shape_there, tiles_there = WIDER.get((name, machine_id), ({}, {}))
    program = programs.build(family, {**shape, **shape_there}, {**rows, **tiles, **tiles_there}, options)
    return serial_kernel(for_groups(program, load_machine(machine_id)), machine_id)


def _check(kernel: WarpKernel, source: str, seeds: range = range(2)) -> dict[str, Any]:
    program = kernel.program
    options = {"dtype": kernel.dtype, **program.options}
    return emulated_figures(source, lambda m: check_kernel(m, program.family, program.shape, options, 5, "cpu"), seeds)


@pytest.mark.parametrize("machine_id", ["h200", "b200"])
@pytest.mark.parametrize("name", SMALL)
def test_computes_what_it_should(name: str, machine_id: str) -> None:
    kernel = small_kernel(name, machine_id)
    found = _check(kernel, emit(kernel))
    assert found["correct"], found["reason"]


@pytest.mark.parametrize("case", ["gemm h200", "gemm b200", "swiglu b200", "fp8 b200", "grouped h200"])
def test_overlapping_iterations_compute_the_same(case: str) -> None:
    kernel = kernel_of(case)
    shape = {"m": 150, "n": 264, "k": 272, "tokens": 90}
    options = {"dtype": kernel.dtype, **kernel.program.options}
    wanted = {**kernel.program.shape, **{key: size for key, size in shape.items() if key in kernel.program.shape}}
    found = emulated_figures(
        emit(kernel), lambda m: check_kernel(m, kernel.program.family, wanted, options, 3, "cpu"), range(2)
    )
    assert found["correct"], found["reason"]


def test_values_behind_the_last_key_may_be_anything() -> None:
    kernel = small_kernel("attention_paged", "h200")
    module = emulate(emit(kernel), 0)
    q = torch.randn(2, 4, 64).bfloat16()
    k_pages, v_pages = (torch.full((8, 16, 2, 64), float("nan")).bfloat16() for _ in range(2))
    k_pages[:2], v_pages[:2] = torch.randn(2, 16, 2, 64).bfloat16(), torch.randn(2, 16, 2, 64).bfloat16()
    k_pages[1, 5:], v_pages[1, 5:] = float("nan"), float("inf")
    table = torch.tensor([[0, 1, 9, 9], [1, 0, 9, 9]], dtype=torch.int32)
    out = module.launch(q, k_pages, v_pages, table, torch.tensor([21, 0], dtype=torch.int32))
    assert torch.isfinite(out).all()
    assert (out[1] == 0).all()
    keys, values = (pages[:2].flatten(0, 1)[:21].float() for pages in (k_pages, v_pages))
    scores = torch.einsum("hd,khd->hk", q[0].float(), keys.repeat_interleave(2, 1)) / 8
    expected = torch.einsum("hk,khd->hd", scores.softmax(1), values.repeat_interleave(2, 1))
    assert torch.allclose(out[0].float(), expected, atol=0.03)


@pytest.mark.parametrize(
    ("name", "machine_id", "old", "new"),
    [
        ("gemm", "h200", "mbarrier.wait(load_b_full.index(_slot(at, 2)), _parity(at, 2))", "pass"),
        ("gemm", "b200", "acc.index(_slot(tiles_done, 2)).slice", "acc.index(0).slice"),
        ("gemm", "b200", "mbarrier.wait(acc_full.index(_slot(tiles_done, 2)), _parity(tiles_done, 2))", "pass"),
        ("gemm", "h200", "step * BLOCK_K], load_a_full", "step * BLOCK_K + 8], load_a_full"),
        ("attention_varlen", "h200", "begin + step * BLOCK_N", "step * BLOCK_N"),
        ("attention_fwd", "b200", "] < (seen", "] <= (seen"),
        ("attention_bwd", "h200", "ttgl.minimum(_block_of", "ttgl.minimum(1 + _block_of"),
        ("attention_bwd", "h200", "// 8 % 2", "// 8 % 4"),
        (
            "attention_bwd",
            "h200",
            "(plain_block if step < full else cut_block)",
            "(plain_block if step <= full else cut_block)",
        ),
        ("attention_bwd", "b200", "mbarrier.wait(dq_full", "pass  # mbarrier.wait(dq_full"),
        ("attention_bwd", "b200", "tcgen05_commit(k_empty", "pass  # tcgen05_commit(k_empty"),
        ("kmeans_assign", "h200", "columns[None, :] < count", "columns[None, :] < count + 1"),
    ],
)
def test_sees_what_is_wrong(name: str, machine_id: str, old: str, new: str) -> None:
    kernel = small_kernel(name, machine_id)
    source = emit(kernel)
    assert old in source
    assert not _check(kernel, source.replace(old, new), range(4))["correct"]


@pytest.mark.parametrize(
    "shape",
    [{"seq": 145, "kv_seq": 145}, {"seq": 30, "kv_seq": 201}, {"seq": 130, "kv_seq": 64, "heads": 3, "kv_heads": 1}],
)
def test_gradients_without_a_mask(shape: dict[str, int]) -> None:
    shape = {"batch": 2, **HEADS, **shape}
    program = programs.build("attention_bwd", shape, {"block_m": 64, "block_n": 64, "sub_tiles": 1})
    kernel = serial_kernel(program, "h200")
    found = _check(kernel, emit(kernel))
    assert found["correct"], found["reason"]


def test_weights_that_overflow_behind_the_last_key_add_nothing() -> None:
    program = programs.build(
        "attention_bwd", {"batch": 1, **HEADS, "seq": 64}, {"block_m": 64, "block_n": 64, "sub_tiles": 1}
    )
    module = emulate(emit(serial_kernel(program, "h200")), 0)
    q = torch.full((1, 4, 30, 64), 8.0).bfloat16()
    k, v = (torch.full((1, 2, 30, 64), -8.0).bfloat16() for _ in range(2))
    lse = torch.full((1, 4, 30), -512.0 + 3.4)
    found = module.launch(q, k, v, torch.ones_like(q), torch.ones_like(q), lse)
    assert all(torch.isfinite(gradient).all() for gradient in found)


@pytest.mark.parametrize(("machine_id", "depth", "keys"), [("h200", 32, 64), ("b200", 64, 128)])
def test_narrow_heads_have_no_gradients_in_gluon(machine_id: str, depth: int, keys: int) -> None:
    shape = {"batch": 1, "heads": 2, "kv_heads": 2, "seq": 64, "qk_head_dim": depth}
    program = programs.build("attention_bwd", shape, {"block_m": 64, "block_n": keys, "sub_tiles": 1})
    with pytest.raises(NotEmittable, match=f"products of {depth} rows"):
        emit(serial_kernel(program, machine_id))


def test_sees_groups_that_wait_for_each_other() -> None:
    kernel = small_kernel("gemm", "h200")
    source = emit(kernel).replace("mbarrier.arrive(load_b_empty", "pass  # mbarrier.arrive(load_b_empty")
    module = emulate(source, 0)
    a, b = torch.zeros(64, 512).bfloat16(), torch.zeros(64, 512).bfloat16()
    with pytest.raises(Deadlock, match="wait for each other"):
        module.launch(a, b)
