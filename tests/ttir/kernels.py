"""Kernels as users write them; imported by Triton only."""

# Triton reads the arguments of a kernel itself: they have no annotations.
# ruff: noqa: E741, N803
# mypy: ignore-errors
# pyright: basic

from __future__ import annotations

import triton
import triton.language as tl

from treadle.frontends.programs.operations import load, mma
from treadle.ir.tile.program import TileProgram


@triton.jit
def matmul(a_ptr, b_ptr, c_ptr, M, N, K, stride, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    a = a_ptr + rm[:, None] * stride + rk[None, :]
    b = b_ptr + rk[:, None] * stride + rn[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(tl.cdiv(K, BK)):
        at = tl.load(a, mask=rk[None, :] < K - k * BK, other=0.0)
        bt = tl.load(b, mask=rk[:, None] < K - k * BK, other=0.0)
        acc = tl.dot(at, bt, acc)
        a += BK
        b += BK * stride
    tl.store(c_ptr + rm[:, None] * N + rn[None, :], acc.to(tl.float16))


@triton.jit
def attention(q_desc, k_desc, v_desc, o_ptr, seq, scale, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    row = tl.program_id(0) * BM
    q = q_desc.load([row, 0])
    m = tl.zeros([BM], tl.float32) - float("inf")
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    rows = row + tl.arange(0, BM)
    for j in range(0, seq, BN):
        k = k_desc.load([j, 0])
        s = tl.dot(q, k.T) * scale
        s = tl.where(rows[:, None] >= j + tl.arange(0, BN)[None, :], s, float("-inf"))
        mn = tl.maximum(m, tl.max(s, 1))
        p = tl.math.exp2(s - mn[:, None])
        alpha = tl.math.exp2(m - mn)
        l = l * alpha + tl.sum(p, 1)
        acc = acc * alpha[:, None]
        v = v_desc.load([j, 0])
        acc = tl.dot(p.to(tl.float16), v, acc)
        m = mn
    acc = acc / l[:, None]
    tl.store(o_ptr + rows[:, None] * D + tl.arange(0, D)[None, :], acc.to(tl.float16))


@triton.jit
def normalized(x_ptr, y_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0) * columns
    for start in range(0, columns, BLOCK):
        x = tl.load(x_ptr + row + start + tl.arange(0, BLOCK)).to(tl.float32)
        y = x / (1.0 + tl.exp(-x)) * 2.0 + 1.0
        tl.store(y_ptr + row + start + tl.arange(0, BLOCK), y.to(tl.float16))


@triton.jit
def gathered(index_ptr, x_ptr, y_ptr, count, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(count):
        page = tl.load(index_ptr + start)
        total += tl.load(x_ptr + page * BLOCK + tl.arange(0, BLOCK)).to(tl.float32)
    tl.store(y_ptr + tl.arange(0, BLOCK), total)


@triton.jit
def counted(x_ptr, y_ptr, count, BLOCK: tl.constexpr):
    for start in range(0, count, BLOCK):
        x = tl.load(x_ptr + start + tl.arange(0, BLOCK))
        tl.atomic_add(y_ptr + tl.arange(0, BLOCK), x)


@triton.jit
def straight(x_ptr, y_ptr, BLOCK: tl.constexpr):
    tl.store(y_ptr + tl.arange(0, BLOCK), tl.load(x_ptr + tl.arange(0, BLOCK)))


def product(k: int) -> TileProgram:
    """Return a tile program written by hand."""
    return TileProgram(
        "product",
        "own",
        (
            load("a", (128, 64), "bfloat16"),
            load("b", (128, 64), "bfloat16"),
            mma("acc", ("a", "b", "acc@1"), (128, 128), 64),
        ),
        trips=k // 64,
        instances=132,
        shape={"k": k},
        tile_sizes={},
    )


def not_one() -> int:
    """Return something else."""
    return 3


@triton.jit
def centred(x_ptr, y_ptr, columns, BLOCK: tl.constexpr, FINISH: tl.constexpr, SCALE: tl.constexpr = 0.5):  # pyright: ignore[reportArgumentType]
    """Two loops, the second one heavier; a constant of text, and one with a default."""
    row = tl.program_id(0) * columns
    total = tl.zeros([BLOCK], tl.float32)
    for at in range(0, columns, BLOCK):
        total += tl.load(x_ptr + row + at + tl.arange(0, BLOCK)).to(tl.float32)
    mean = tl.sum(total, 0) / columns
    for at in range(0, columns, BLOCK):
        x = tl.load(x_ptr + row + at + tl.arange(0, BLOCK)).to(tl.float32)
        other = tl.load(y_ptr + row + at + tl.arange(0, BLOCK)).to(tl.float32)
        x = (x - mean) * SCALE + other
        if FINISH == "exponential":
            x = tl.exp(x)
        tl.store(y_ptr + row + at + tl.arange(0, BLOCK), x.to(tl.float16))


@triton.jit
def counted_while(x_ptr, y_ptr, columns, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    start = 0
    while start < columns:
        total += tl.load(x_ptr + start + tl.arange(0, BLOCK)).to(tl.float32)
        start += BLOCK
    tl.store(y_ptr + tl.arange(0, BLOCK), total)


@triton.jit
def after_while(x_ptr, y_ptr, columns, BLOCK: tl.constexpr):
    first = 1
    while first < columns:
        first *= 2
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        total += tl.load(x_ptr + first + start + tl.arange(0, BLOCK)).to(tl.float32)
    tl.store(y_ptr + tl.arange(0, BLOCK), total)
