"""As `test_interpreted`, for the kernels of attention training and serving, quantized and fused products, k-means."""

from __future__ import annotations

import pytest
import torch

from tests.kernels import references
from tests.kernels.conftest import Load
from tests.kernels.tensors import DTYPES, assert_close, poison, random

SMALL = {"block_m": 16, "block_n": 32, "block_k": 16}
BOTH = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


@BOTH
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_forward_returns_the_log_sums_too(load: Load, dtype: str, causal: int) -> None:
    shape = {"heads": 2, "kv_heads": 1, "seq": 40, "qk_head_dim": 32, "causal": causal}
    kernel = load("attention_fwd", shape, {"block_m": 32, "block_n": 16, "sub_tiles": 2}, dtype=dtype, lse=True)
    q, k, v = random(1, dtype, 1, 2, 33, 32), random(2, dtype, 1, 1, 40, 32), random(3, dtype, 1, 1, 40, 32)
    out, lse = kernel.launch(q, k, v, out=poison(dtype, 1, 2, 33, 32), lse=poison("float32", 1, 2, 33))
    assert_close(out, references.attention(q, k, v, bool(causal), None), dtype)
    assert_close(lse, references.log_sums(q, k, bool(causal), None), "float32")


BACKWARD = [
    # heads, kv_heads, qk_head_dim, v_head_dim, block_m, block_n, sub_tiles
    (2, 1, 32, 32, 16, 32, 1),
    (2, 2, 16, 32, 32, 16, 1),
    (1, 1, 128, 16, 16, 32, 2),
]


@BOTH
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize(("heads", "kv_heads", "qk", "v_dim", "block_m", "block_n", "subs"), BACKWARD)
def test_attention_backward(
    load: Load, dtype: str, causal: int, heads: int, kv_heads: int, qk: int, v_dim: int, block_m: int, block_n: int,
    subs: int,
) -> None:  # fmt: skip
    shape = {"heads": heads, "kv_heads": kv_heads, "seq": 70, "qk_head_dim": qk, "v_head_dim": v_dim, "causal": causal}
    tiles = {"block_m": block_m, "block_n": block_n, "sub_tiles": subs}
    kernel = load("attention_bwd", shape, tiles, dtype=dtype)
    for seq, kv_seq in ((1, 1), (33, 33), (19, 50)):
        q, k = random(1, dtype, 1, heads, seq, qk), random(2, dtype, 1, kv_heads, kv_seq, qk)
        v, dout = random(3, dtype, 1, kv_heads, kv_seq, v_dim), random(4, dtype, 1, heads, seq, v_dim)
        out, lse, *expected = references.backward(q, k, v, dout, bool(causal), None)
        poisoned = {name: poison(dtype, *like.shape) for name, like in (("dq", q), ("dk", k), ("dv", v))}
        found = kernel.launch(q, k, v, out.to(DTYPES[dtype]), dout, lse.float(), **poisoned)
        for one, other in zip(found, expected, strict=True):
            if seq > 1:
                assert_close(one, other, dtype)
            else:  # one query and one key: the weight is 1, its gradient 0 but for rounding
                assert (one.double() - other).abs().max() < 0.05


@BOTH
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("bounds", [[0, 33, 33, 50], [0, 1], [0, 16, 48, 49, 64]])
def test_attention_of_packed_sequences(load: Load, dtype: str, causal: int, bounds: list[int]) -> None:
    shape = {"batch": 4, "tokens": 64, "heads": 4, "kv_heads": 2, "qk_head_dim": 32, "v_head_dim": 24, "causal": causal}
    kernel = load("attention_varlen", shape, {"block_m": 32, "block_n": 16, "sub_tiles": 2}, dtype=dtype)
    tokens = bounds[-1]
    q, k, v = random(1, dtype, tokens, 4, 32), random(2, dtype, tokens, 2, 32), random(3, dtype, tokens, 2, 24)
    found = kernel.launch(q, k, v, torch.tensor(bounds, dtype=torch.int32), out=poison(dtype, tokens, 4, 24))
    assert_close(found, references.varlen(q, k, v, bounds, bool(causal)), dtype)


@BOTH
@pytest.mark.parametrize(("page", "splits", "qk", "v_dim"), [(16, 1, 32, 32), (8, 4, 48, 24), (5, 2, 16, 16)])
def test_attention_over_pages(load: Load, dtype: str, page: int, splits: int, qk: int, v_dim: int) -> None:
    shape = {"batch": 3, "heads": 6, "kv_heads": 2, "kv_seq": 64, "page_size": page, "qk_head_dim": qk}
    tiles = {"block_m": 16, "block_n": 16, "splits": splits}
    kernel = load("attention_paged", {**shape, "v_head_dim": v_dim}, tiles, dtype=dtype)
    per_sequence, lengths = -(-50 // page), [0, 50, 17]
    table = torch.randperm(3 * per_sequence + 4, generator=torch.Generator().manual_seed(5))[: 3 * per_sequence]
    table = table.reshape(3, per_sequence).int()
    pages = 3 * per_sequence + 4
    k_pages, v_pages = random(1, dtype, pages, page, 2, qk), random(2, dtype, pages, page, 2, v_dim)
    q, counts = random(3, dtype, 3, 6, qk), torch.tensor(lengths, dtype=torch.int32)
    found = kernel.launch(q, k_pages, v_pages, table, counts, out=poison(dtype, 3, 6, v_dim))
    k, v = (cache[table.long()].reshape(3, per_sequence * page, 2, -1).transpose(1, 2) for cache in (k_pages, v_pages))
    assert_close(found, references.decode(q, k, v, counts, None), dtype)


@BOTH
@pytest.mark.parametrize(("m", "n", "k"), [(35, 50, 24), (1, 20, 17), (100, 130, 16)])
def test_persistent_gemm(load: Load, dtype: str, m: int, n: int, k: int) -> None:
    kernel = load("gemm_persistent", {"m": 64, "n": 64, "k": 64}, {**SMALL, "repeats": 3}, dtype=dtype)
    a, b = random(1, dtype, m, k), random(2, dtype, n, k)
    assert_close(kernel.launch(a, b, poison(dtype, m, n)), references.gemm(a, b), dtype)


@BOTH
@pytest.mark.parametrize("scales", ["row", "block"])
def test_gemm_of_8_bit_floats(load: Load, dtype: str, scales: str) -> None:
    tiles = {"block_m": 16, "block_n": 64, "block_k": 128 if scales == "block" else 32}
    kernel = load("gemm_fp8", {"m": 64, "n": 256, "k": 256}, tiles, dtype=dtype, scales=scales)
    for m, n, k in ((35, 200, 300), (1, 130, 128)):
        a, b = (random(seed, "float16", size, k).to(torch.float8_e4m3fn) for seed, size in ((1, m), (2, n)))
        blocks_k, blocks_n = -(-k // 128), -(-n // 128)
        wide_a, wide_b = a.double(), b.double()
        if scales == "row":
            scale_a, scale_b = random(3, "float32", m).exp(), random(4, "float32", n).exp()
            expected = (wide_a * scale_a[:, None]) @ (wide_b * scale_b[:, None]).T
        else:
            scale_a = random(3, "float32", m, blocks_k).exp()
            scale_b = random(4, "float32", blocks_n, blocks_k).exp()
            spread = scale_b.repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)[:, :k]
            expected = (wide_a * scale_a.repeat_interleave(128, 1)[:, :k]) @ (wide_b * spread).T
        assert_close(kernel.launch(a, b, scale_a, scale_b, poison(dtype, m, n)), expected, dtype)


@BOTH
@pytest.mark.parametrize("group", [32, 64])
def test_gemm_of_4_bit_weights(load: Load, dtype: str, group: int) -> None:
    tiles = {"block_m": 16, "block_n": 32, "block_k": group}
    kernel = load("gemm_w4a16", {"m": 16, "n": 64, "k": 128, "group": group}, tiles, dtype=dtype)
    m, n, k = 19, 50, 3 * group
    weight = torch.randint(0, 16, (n, k), generator=torch.Generator().manual_seed(1))
    a, scale = random(2, dtype, m, k), random(3, dtype, n, k // group)
    expected = a.double() @ ((weight - 8).double() * scale.double().repeat_interleave(group, 1)).T
    assert_close(kernel.launch(a, kernel.pack(weight), scale, poison(dtype, m, n)), expected, dtype)
    with pytest.raises(ValueError, match="4-bit"):
        kernel.pack(weight + 1)
    with pytest.raises(ValueError, match=f"expected a multiple of {group}"):
        kernel.launch(a[:, :33].contiguous(), kernel.pack(weight), scale)


@BOTH
@pytest.mark.parametrize("combine", ["both", "sum", "product"])
def test_dual_gemm(load: Load, dtype: str, combine: str) -> None:
    kernel = load("dual_gemm", {"m": 64, "n": 64, "k": 64}, SMALL, dtype=dtype, combine=combine)
    x, a, b = random(1, dtype, 35, 24), random(2, dtype, 50, 24), random(3, dtype, 50, 24)
    first, second = references.gemm(x, a), references.gemm(x, b)
    if combine == "both":
        found = kernel.launch(x, a, b, poison(dtype, 35, 50), poison(dtype, 35, 50))
        assert_close(found[0], first, dtype)
        assert_close(found[1], second, dtype)
    else:
        found = kernel.launch(x, a, b, poison(dtype, 35, 50))
        assert_close(found, first + second if combine == "sum" else first * second, dtype)


@BOTH
@pytest.mark.parametrize("form", ["two_loops", "one_loop"])
def test_rms_norm_and_gemm(load: Load, dtype: str, form: str) -> None:
    kernel = load("rms_norm_gemm", {"m": 64, "n": 64, "k": 64}, SMALL, dtype=dtype, form=form)
    for m, n, k in ((35, 50, 24), (1, 20, 17)):
        x, weight, b = random(1, dtype, m, k), random(2, dtype, k), random(3, dtype, n, k)
        expected = references.rms_norm(x, weight, 1e-6) @ b.double().T
        assert_close(kernel.launch(x, weight, b, out=poison(dtype, m, n)), expected, dtype)


@BOTH
@pytest.mark.parametrize("dimension", [16, 40])
@pytest.mark.parametrize(("points", "centroids"), [(33, 50), (1, 1), (16, 70)])
def test_nearest_centroids(load: Load, dtype: str, dimension: int, points: int, centroids: int) -> None:
    shape = {"points": 64, "centroids": 64, "dimension": dimension}
    kernel = load("kmeans_assign", shape, {"block_m": 16, "block_n": 32}, dtype=dtype)
    x, c = random(1, dtype, points, dimension), random(2, dtype, centroids, dimension)
    assigned = torch.full((points,), -7, dtype=torch.int32)
    found, squared = kernel.launch(x, c, assigned=assigned, distances=poison("float32", points))
    every = references.kmeans(x, c)
    assert found is assigned
    torch.testing.assert_close(squared.double(), every.min(1).values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(every[torch.arange(points), found.long()], every.min(1).values, rtol=1e-4, atol=1e-4)


def test_of_equal_centroids_the_first_is_taken(load: Load) -> None:
    kernel = load("kmeans_assign", {"points": 16, "centroids": 64, "dimension": 16}, {"block_m": 16, "block_n": 16})
    x, c = random(1, "bfloat16", 16, 16), random(2, "bfloat16", 20, 16)
    assigned, _ = kernel.launch(x, torch.cat([c, c, c]))
    assert assigned.max() < 20


@BOTH
@pytest.mark.parametrize("columns", [32, 40])
def test_layer_norm(load: Load, dtype: str, columns: int) -> None:
    kernel = load("layer_norm", {"rows": 7, "columns": columns}, {"block_rows": 2, "rows_per_instance": 4}, dtype=dtype)
    for rows in (1, 4, 7):
        x, weight, bias = random(1, dtype, rows, columns), random(2, dtype, columns), random(3, dtype, columns)
        found = kernel.launch(x, weight, bias, out=poison(dtype, rows, columns))
        assert_close(found, references.layer_norm(x, weight, bias, 1e-5), dtype)


def test_pages_outside_the_cache_are_refused(load: Load) -> None:
    shape = {"batch": 2, "heads": 2, "kv_seq": 32, "page_size": 16, "qk_head_dim": 16}
    kernel = load("attention_paged", shape, {"block_m": 16, "block_n": 16, "splits": 1})
    q, pages = random(1, "bfloat16", 2, 2, 16), random(2, "bfloat16", 4, 16, 2, 16)
    table = torch.tensor([[0, 4], [1, 2]], dtype=torch.int32)
    kernel.launch(q, pages, pages, table, torch.tensor([16, 32], dtype=torch.int32))
    with pytest.raises(ValueError, match="not among the 4 of the cache"):
        kernel.launch(q, pages, pages, table, torch.tensor([17, 32], dtype=torch.int32))
    with pytest.raises(ValueError, match="between 0 and the 32 keys"):
        kernel.launch(q, pages, pages, table, torch.tensor([16, 33], dtype=torch.int32))


@pytest.mark.parametrize("bounds", [[0, 5, 4, 8], [1, 2, 3, 8], [0, 1, 2, 7]])
def test_bounds_that_do_not_cover_the_tokens_are_refused(load: Load, bounds: list[int]) -> None:
    shape = {"batch": 3, "tokens": 8, "heads": 1, "qk_head_dim": 16}
    kernel = load("attention_varlen", shape, {"block_m": 16, "block_n": 16, "sub_tiles": 1})
    q = random(1, "bfloat16", 8, 1, 16)
    with pytest.raises(ValueError, match="bounds must rise from 0 to the 8 tokens"):
        kernel.launch(q, q, q, torch.tensor(bounds, dtype=torch.int32))


def test_misaligned_tensors_are_refused(load: Load) -> None:
    kernel = load("gemm", {"m": 64, "n": 64, "k": 64}, SMALL)
    a, b = random(1, "bfloat16", 8 * 16 + 1), random(2, "bfloat16", 8, 16)
    with pytest.raises(ValueError, match="a does not begin at a multiple of 16 bytes"):
        kernel.launch(a[1:].reshape(8, 16), b)
