"""Every emitted kernel, run by Triton's interpreter on the CPU, equals a float64 reference.

Inputs are random, outputs are poisoned with NaN before the launch, and sizes are ragged.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.kernels import references
from tests.kernels.conftest import Load
from tests.kernels.tensors import assert_close, poison, random

SMALL = {"block_m": 16, "block_n": 32, "block_k": 16}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("m", "n", "k"), [(16, 32, 16), (1, 32, 40), (35, 50, 24), (50, 33, 17)])
def test_gemm(load: Load, dtype: str, m: int, n: int, k: int) -> None:
    kernel = load("gemm", {"m": 64, "n": 64, "k": 64}, SMALL, dtype=dtype)
    a, b = random(1, dtype, m, k), random(2, dtype, n, k)
    assert_close(kernel.launch(a, b, poison(dtype, m, n)), references.gemm(a, b), dtype)


def test_gemm_rows_of_one_swizzle_group_and_more(load: Load) -> None:
    kernel = load("gemm", {"m": 160, "n": 40, "k": 16}, {"block_m": 16, "block_n": 16, "block_k": 16})
    a, b = random(3, "bfloat16", 150, 16), random(4, "bfloat16", 40, 16)
    assert_close(kernel.launch(a, b, poison("bfloat16", 150, 40)), references.gemm(a, b), "bfloat16")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("m", "n", "k"), [(16, 32, 32), (1, 20, 40), (35, 50, 24)])
def test_swiglu(load: Load, dtype: str, m: int, n: int, k: int) -> None:
    kernel = load("swiglu", {"m": 64, "n": 64, "k": 64}, SMALL, dtype=dtype)
    x, gate, up = random(1, dtype, m, k), random(2, dtype, n, k), random(3, dtype, n, k)
    assert_close(kernel.launch(x, gate, up, poison(dtype, m, n)), references.swiglu(x, gate, up), dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("offsets", [[0, 3, 3, 23, 40], [0, 40, 40, 40, 40], [0, 0, 0, 0, 1], [0, 16, 32, 48, 64]])
def test_grouped_gemm(load: Load, dtype: str, offsets: list[int]) -> None:
    kernel = load("grouped_gemm", {"experts": 4, "tokens": 20, "top_k": 2, "n": 40, "k": 24}, SMALL, dtype=dtype)
    a, weight = random(1, dtype, offsets[-1], 24), random(2, dtype, 4, 40, 24)
    ends = torch.tensor(offsets, dtype=torch.int32)
    found = kernel.launch(a, weight, ends, poison(dtype, offsets[-1], 40))
    assert_close(found, references.grouped_gemm(a, weight, ends), dtype)


def test_grouped_gemm_with_experts_that_are_no_power_of_two(load: Load) -> None:
    kernel = load("grouped_gemm", {"experts": 5, "tokens": 9, "n": 16, "k": 16}, SMALL)
    a, weight = random(1, "bfloat16", 9, 16), random(2, "bfloat16", 5, 16, 16)
    ends = torch.tensor([0, 2, 4, 4, 8, 9], dtype=torch.int32)
    found = kernel.launch(a, weight, ends, poison("bfloat16", 9, 16))
    assert_close(found, references.grouped_gemm(a, weight, ends), "bfloat16")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("rows", [1, 4, 7])
@pytest.mark.parametrize("columns", [32, 40])
def test_rms_norm(load: Load, dtype: str, rows: int, columns: int) -> None:
    sizes = {"block_rows": 2, "rows_per_instance": 4}
    kernel = load("rms_norm", {"rows": 7, "columns": columns}, sizes, dtype=dtype)
    x, weight = random(1, dtype, rows, columns), random(2, dtype, columns)
    found = kernel.launch(x, weight, 1e-5, poison(dtype, rows, columns))
    assert_close(found, references.rms_norm(x, weight, 1e-5), dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rms_norm_with_residual(load: Load, dtype: str) -> None:
    sizes = {"block_rows": 1, "rows_per_instance": 3}
    kernel = load("rms_norm", {"rows": 5, "columns": 48}, sizes, dtype=dtype, residual=True)
    x, residual, weight = random(1, dtype, 5, 48), random(2, dtype, 5, 48), random(3, dtype, 48)
    poisoned = {"out": poison(dtype, 5, 48), "new_residual": poison(dtype, 5, 48)}
    found, total = kernel.launch(x, residual, weight, **poisoned)
    assert_close(total, x.double() + residual.double(), dtype)
    assert_close(found, references.rms_norm(x.double() + residual.double(), weight, 1e-6), dtype)


ATTENTION = [
    # heads, kv_heads, qk_head_dim, v_head_dim, sub_tiles
    (4, 2, 32, 32, 1),
    (2, 2, 16, 16, 2),
    (3, 1, 48, 32, 1),
    (2, 1, 16, 24, 2),
]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize(("heads", "kv_heads", "qk", "v_dim", "subs"), ATTENTION)
def test_attention_fwd(
    load: Load, dtype: str, causal: int, heads: int, kv_heads: int, qk: int, v_dim: int, subs: int
) -> None:
    shape = {"heads": heads, "kv_heads": kv_heads, "seq": 64, "qk_head_dim": qk, "v_head_dim": v_dim, "causal": causal}
    kernel = load("attention_fwd", shape, {"block_m": 32, "block_n": 16, "sub_tiles": subs}, dtype=dtype)
    for seq, kv_seq in ((1, 1), (1, 33), (33, 33), (32, 64), (19, 50)):
        q = random(1, dtype, 1, heads, seq, qk)
        k, v = random(2, dtype, 1, kv_heads, kv_seq, qk), random(3, dtype, 1, kv_heads, kv_seq, v_dim)
        found = kernel.launch(q, k, v, out=poison(dtype, 1, heads, seq, v_dim))
        assert_close(found, references.attention(q, k, v, bool(causal), None), dtype)


def test_attention_fwd_of_more_queries_than_keys_and_its_own_scale(load: Load) -> None:
    shape = {"heads": 1, "seq": 40, "kv_seq": 20, "qk_head_dim": 16}
    kernel = load("attention_fwd", shape, {"block_m": 16, "block_n": 16, "sub_tiles": 1})
    q = random(1, "bfloat16", 2, 1, 40, 16)
    k, v = random(2, "bfloat16", 2, 1, 20, 16), random(3, "bfloat16", 2, 1, 20, 16)
    found = kernel.launch(q, k, v, scale=0.7, out=poison("bfloat16", 2, 1, 40, 16))
    assert_close(found, references.attention(q, k, v, False, 0.7), "bfloat16")


def test_attention_fwd_with_large_scores(load: Load) -> None:
    shape = {"heads": 1, "seq": 32, "qk_head_dim": 16, "causal": 1}
    kernel = load("attention_fwd", shape, {"block_m": 16, "block_n": 16, "sub_tiles": 1}, dtype="float16")
    q, k = 40 * random(1, "float16", 1, 1, 32, 16), 40 * random(2, "float16", 1, 1, 32, 16)
    v = random(3, "float16", 1, 1, 32, 16)
    found = kernel.launch(q, k, v, out=poison("float16", 1, 1, 32, 16))
    assert_close(found, references.attention(q, k, v, True, None), "float16")


DECODE = [
    # heads, kv_heads, qk_head_dim, v_head_dim, splits
    (4, 2, 32, 32, 1),
    (4, 2, 32, 24, 4),
    (20, 1, 48, 32, 2),  # latent: values are the first 32 columns of the keys
]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("heads", "kv_heads", "qk", "v_dim", "splits"), DECODE)
def test_attention_decode(load: Load, dtype: str, heads: int, kv_heads: int, qk: int, v_dim: int, splits: int) -> None:
    shape = {"batch": 3, "heads": heads, "kv_heads": kv_heads, "kv_seq": 64, "qk_head_dim": qk, "v_head_dim": v_dim}
    kernel = load("attention_decode", shape, {"block_m": 16, "block_n": 16, "splits": splits}, dtype=dtype)
    for kv_seq, lengths in ((1, None), (64, None), (50, [0, 50, 17])):
        q, k = random(1, dtype, 3, heads, qk), random(2, dtype, 3, kv_heads, kv_seq, qk)
        latent = kv_heads == 1
        v = k[..., :v_dim] if latent else random(3, dtype, 3, kv_heads, kv_seq, v_dim)
        counts = None if lengths is None else torch.tensor(lengths, dtype=torch.int32)
        inputs = (q, k) if latent else (q, k, v)
        found = kernel.launch(*inputs, lengths=counts, out=poison(dtype, 3, heads, v_dim))
        assert_close(found, references.decode(q, k, v, counts, None), dtype)


def bad_gemm(kernel: ModuleType) -> list[tuple[str, Callable[[], Any]]]:
    a, b = random(1, "bfloat16", 8, 16), random(2, "bfloat16", 8, 16)
    return [
        ("dtype float32; this kernel takes bfloat16", lambda: kernel.launch(a.float(), b)),
        (r"b has the shape \(8, 15\); expected \(8, 16\)", lambda: kernel.launch(a, b[:, :15].contiguous())),
        ("a has the shape", lambda: kernel.launch(a[0], b)),
        ("extents of at least 1", lambda: kernel.launch(a[:0], b)),
        ("b is not contiguous", lambda: kernel.launch(a, random(3, "bfloat16", 16, 8).T)),
        (r"out has the shape \(1, 1\)", lambda: kernel.launch(a, b, poison("bfloat16", 1, 1))),
        ("b is on meta, other tensors are on cpu", lambda: kernel.launch(a, b.to("meta"))),
    ]


def test_launch_refuses_tensors_it_was_not_made_for(load: Load) -> None:
    for message, call in bad_gemm(load("gemm", {"m": 64, "n": 64, "k": 64}, SMALL)):
        with pytest.raises(ValueError, match=message):
            call()


def test_attention_refuses_shapes_without_an_answer(load: Load) -> None:
    shape = {"heads": 2, "seq": 16, "qk_head_dim": 16, "causal": 1}
    kernel = load("attention_fwd", shape, {"block_m": 16, "block_n": 16, "sub_tiles": 1})
    q, k = random(1, "bfloat16", 1, 3, 16, 16), random(2, "bfloat16", 1, 2, 16, 16)
    with pytest.raises(ValueError, match="3 query heads cannot share 2"):
        kernel.launch(q, k, k)
    with pytest.raises(ValueError, match="16 queries with 8 keys"):
        kernel.launch(q[:, :2].contiguous(), k[:, :, :8].contiguous(), k[:, :, :8].contiguous())
    with pytest.raises(ValueError, match="scale is 0"):
        kernel.launch(q[:, :2].contiguous(), k, k, scale=0)


@pytest.mark.parametrize("offsets", [[0, 5, 4, 8], [1, 2, 3, 8], [0, 1, 2, 7]])
def test_grouped_gemm_refuses_offsets_that_do_not_cover_the_rows(load: Load, offsets: list[int]) -> None:
    kernel = load("grouped_gemm", {"experts": 3, "tokens": 8, "n": 16, "k": 16}, SMALL)
    a, weight = random(1, "bfloat16", 8, 16), random(2, "bfloat16", 3, 16, 16)
    with pytest.raises(ValueError, match="offsets must rise from 0 to the 8 rows"):
        kernel.launch(a, weight, torch.tensor(offsets, dtype=torch.int32))


def test_without_the_interpreter_cpu_tensors_are_refused(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = load("gemm", {"m": 64, "n": 64, "k": 64}, SMALL)
    monkeypatch.setattr(kernel, "INTERPRETED", False)
    with pytest.raises(ValueError, match="the kernel runs on a GPU, or with TRITON_INTERPRET=1 on the CPU"):
        kernel.launch(random(1, "bfloat16", 8, 16), random(2, "bfloat16", 8, 16))
