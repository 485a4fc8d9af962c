"""A Triton kernel as people have it: `treadle kernel matmul.py:matmul` reads the loop over `K` from Triton's IR."""

# Triton reads the arguments of a kernel itself: they have no annotations.
# ruff: noqa: N803
# mypy: ignore-errors
# pyright: basic

import triton
import triton.language as tl


@triton.jit
def matmul(a_ptr, b_ptr, c_ptr, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Multiply a (M, K) by b (K, N), both row-major, into c (M, N)."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    a_tile = a_ptr + rows[:, None] * K + inner[None, :]
    b_tile = b_ptr + inner[:, None] * N + columns[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        left = inner[None, :] < K - start
        a = tl.load(a_tile, mask=left, other=0.0)
        b = tl.load(b_tile, mask=inner[:, None] < K - start, other=0.0)
        total = tl.dot(a, b, total)
        a_tile += BLOCK_K
        b_tile += BLOCK_K * N
    inside = (rows[:, None] < M) & (columns[None, :] < N)
    tl.store(c_ptr + rows[:, None] * N + columns[None, :], total.to(tl.float16), mask=inside)
