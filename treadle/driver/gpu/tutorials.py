"""The two Triton kernels everybody knows, in our own words: what a kernel without a schedule reaches.

A tiled product with grouped ordering, and FlashAttention-2's forward pass, each tuned over a few configurations like
the official tutorials (triton-lang.org, tutorials 03 and 06).
"""

# Bodies of Triton kernels are compiled by Triton: their arguments have no Python types, constants are upper case.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# pyright: basic, reportOperatorIssue=false, reportAssignmentType=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

MATMUL = [
    triton.Config({"BM": bm, "BN": bn, "BK": 64, "GROUP": 8}, num_stages=stages, num_warps=warps)
    for bm, bn, stages, warps in (
        (128, 256, 3, 8),
        (128, 256, 4, 8),
        (128, 128, 4, 4),
        (128, 128, 3, 8),
        (64, 256, 4, 4),
    )
]
ATTENTION = [
    triton.Config({"BM": 128, "BN": bn}, num_stages=stages, num_warps=warps)
    for bn, stages, warps in ((128, 2, 8), (64, 3, 8), (64, 3, 4), (64, 4, 8))
]


@triton.autotune(configs=MATMUL, key=["m", "n", "k"])
@triton.jit
def matmul_kernel(
    a, b, out, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """out (m, n) = a (m, k) @ b (n, k)^T."""
    pid = tl.program_id(0)
    tiles_m, tiles_n = tl.cdiv(m, BM), tl.cdiv(n, BN)
    group = pid // (GROUP * tiles_n)
    height = min(tiles_m - group * GROUP, GROUP)
    tile_m = group * GROUP + pid % (GROUP * tiles_n) % height
    tile_n = pid % (GROUP * tiles_n) // height
    rows = (tile_m * BM + tl.arange(0, BM)) % m
    columns = (tile_n * BN + tl.arange(0, BN)) % n
    depth = tl.arange(0, BK)
    a_tile = a + rows[:, None] * k + depth[None, :]
    b_tile = b + columns[None, :] * k + depth[:, None]
    acc = tl.zeros((BM, BN), tl.float32)
    for step in range(tl.cdiv(k, BK)):
        inside = depth < k - step * BK
        x = tl.load(a_tile, mask=inside[None, :], other=0.0)
        y = tl.load(b_tile, mask=inside[:, None], other=0.0)
        acc = tl.dot(x, y, acc)
        a_tile += BK
        b_tile += BK
    out_rows = tile_m * BM + tl.arange(0, BM)
    out_columns = tile_n * BN + tl.arange(0, BN)
    inside = (out_rows[:, None] < m) & (out_columns[None, :] < n)
    tl.store(out + out_rows[:, None] * n + out_columns[None, :], acc.to(out.dtype.element_ty), mask=inside)


@triton.autotune(configs=ATTENTION, key=["seq", "DIM", "CAUSAL"])
@triton.jit
def attention_kernel(
    q, k, v, out, scale, heads, kv_heads, seq,
    DIM: tl.constexpr, CAUSAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head; the sequence is a multiple of the blocks."""
    first = tl.program_id(0) * BM
    head = tl.program_id(1).to(tl.int64)
    kv_head = head // heads * kv_heads + head % heads // (heads // kv_heads)
    rows, keys, columns = first + tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, DIM)
    queries = tl.load(q + head * seq * DIM + rows[:, None] * DIM + columns[None, :])
    k_tile = k + kv_head * seq * DIM + keys[None, :] * DIM + columns[:, None]
    v_tile = v + kv_head * seq * DIM + keys[:, None] * DIM + columns[None, :]
    high = tl.full((BM,), -float("inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, DIM), tl.float32)
    end = first + BM if CAUSAL else seq
    for start in range(0, end, BN):
        scores = tl.dot(queries, tl.load(k_tile + start * DIM)) * scale
        if CAUSAL:
            scores = tl.where(rows[:, None] >= start + keys[None, :], scores, -float("inf"))
        new_high = tl.maximum(high, tl.max(scores, 1))
        weights = tl.math.exp2(scores - new_high[:, None])
        alpha = tl.math.exp2(high - new_high)
        total = total * alpha + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype.element_ty), tl.load(v_tile + start * DIM), acc * alpha[:, None])
        high = new_high
    place = out + head * seq * DIM + rows[:, None] * DIM + columns[None, :]
    tl.store(place, (acc / total[:, None]).to(out.dtype.element_ty))


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a (m, k) @ b (n, k)^T."""
    (m, k), n = a.shape, b.shape[0]
    out = a.new_empty((m, n))

    def grid(meta: dict[str, Any]) -> tuple[Any]:
        return (triton.cdiv(m, meta["BM"]) * triton.cdiv(n, meta["BN"]),)

    matmul_kernel[grid](a, b, out, m, n, k)
    return out


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(d)) v of (batch, heads, seq, d), seq a multiple of 128."""
    batch, heads, seq, dim = q.shape
    out = torch.empty_like(q)

    def grid(meta: dict[str, Any]) -> tuple[Any, int]:
        return triton.cdiv(seq, meta["BM"]), batch * heads

    attention_kernel[grid](
        q, k, v, out, dim**-0.5 * 1.4426950408889634, heads, k.shape[1], seq, DIM=dim, CAUSAL=causal
    )  # fmt: skip
    return out
