"""Kernels that measure a multiprocessor: one loop each, between two looks at its cycle counter."""

# Bodies of Triton kernels are compiled by Triton: their arguments have no Python types, constants are upper case.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# pyright: basic, reportOperatorIssue=false, reportAssignmentType=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def cycle_counter():
    """Return the cycles that this multiprocessor has counted."""
    return tl.inline_asm_elementwise("mov.u64 $0, %clock64;", "=l", [], dtype=tl.int64, is_pure=False, pack=1)


@triton.jit
def nanoseconds():
    """Return the GPU's time; it ticks once in up to a microsecond."""
    return tl.inline_asm_elementwise("mov.u64 $0, %globaltimer;", "=l", [], dtype=tl.int64, is_pure=False, pack=1)


@triton.jit
def clock_kernel(out, trips):
    """Count cycles and nanoseconds over a loop that does nothing else."""
    start_ns, start = nanoseconds(), cycle_counter()
    now = start
    for _ in range(trips):
        now = cycle_counter()
    tl.store(out, now - start)
    tl.store(out + 1, nanoseconds() - start_ns)


@triton.jit
def product_kernel(a, b, out, cycles, trips, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Add one product to one accumulator again and again."""
    rows, columns, depth = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BK)
    x = tl.load(a + rows[:, None] * BK + depth[None, :])
    y = tl.load(b + columns[None, :] * BK + depth[:, None])
    acc = tl.zeros((BM, BN), tl.float32)
    start = cycle_counter()
    for _ in range(trips):
        acc = tl.dot(x, y, acc)
    tl.store(out + tl.program_id(0) * BM * BN + rows[:, None] * BN + columns[None, :], acc)
    tl.store(cycles + tl.program_id(0), cycle_counter() - start)


@triton.jit
def exp2_kernel(out, cycles, trips, SIZE: tl.constexpr):
    """2^x on the special-function unit, again and again."""
    x = tl.arange(0, SIZE).to(tl.float32) * (1.0 / SIZE)
    start = cycle_counter()
    for _ in range(trips):
        x = tl.exp2(x)
        x = tl.exp2(-x)
    tl.store(out + tl.program_id(0) * SIZE + tl.arange(0, SIZE), x)
    tl.store(cycles + tl.program_id(0), cycle_counter() - start)


@triton.jit
def multiply_add_kernel(out, cycles, trips, factor, SIZE: tl.constexpr):
    """Fused multiply-adds, again and again."""
    x = tl.arange(0, SIZE).to(tl.float32)
    y = x + 1.0
    start = cycle_counter()
    for _ in range(trips):
        x = tl.fma(x, factor, y)
        y = tl.fma(y, factor, x)
    tl.store(out + tl.program_id(0) * SIZE + tl.arange(0, SIZE), x + y)
    tl.store(cycles + tl.program_id(0), cycle_counter() - start)


@triton.jit
def read_kernel(data, out, cycles, blocks, trips, SIZE: tl.constexpr):
    """Read `blocks` blocks of SIZE float32, `trips` times over, spread over the instances."""
    lanes = tl.arange(0, SIZE)
    total = tl.zeros((SIZE,), tl.float32)
    start = cycle_counter()
    for trip in range(trips):
        for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0), num_stages=1):
            own = (block + trip * 7919) % blocks
            total += tl.load(data + own.to(tl.int64) * SIZE + lanes, cache_modifier=".cg")
    tl.store(out + tl.program_id(0) * SIZE + lanes, total)
    tl.store(cycles + tl.program_id(0), cycle_counter() - start)


@triton.jit
def chase_kernel(chain, out, cycles, first, trips):
    """Follow a chain of indices from one of them on: one load waits for the one before."""
    link = first
    start = cycle_counter()
    for _ in range(trips):
        link = tl.load(chain + link, cache_modifier=".cg")
    tl.store(out + tl.program_id(0), link)
    tl.store(cycles + tl.program_id(0), cycle_counter() - start)
