"""Measuring kernels that need Gluon: shared memory, TMA copies, barriers between warp groups. Hopper and newer."""

# Bodies of Triton kernels are compiled by Triton: their arguments have no Python types, constants are upper case.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# pyright: basic, reportOperatorIssue=false, reportAssignmentType=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

from treadle.driver.gpu.machine_kernels import cycle_counter

COPY_LAYOUT = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
HANDED = gl.constexpr(gl.BlockedLayout([1, 4], [2, 16], [4, 1], [1, 0]))
OLDER = not hasattr(tma, "async_load")
"""Triton 3.6 calls the copy `async_copy_global_to_shared`, and has other names for barriers."""
thread_barrier = gl.thread_barrier if hasattr(gl, "thread_barrier") else gl.barrier
copy_to_shared = tma.async_copy_global_to_shared if OLDER else tma.async_load


@gluon.jit
def shared_kernel(out, cycles, trips, ROWS: gl.constexpr, COLUMNS: gl.constexpr):
    """Write a tile to shared memory and read it back, again and again."""
    layout: gl.constexpr = gl.BlockedLayout([1, 4], [1, 32], [4, 1], [1, 0])
    kept: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    tile = gl.allocate_shared_memory(gl.float32, [ROWS, COLUMNS], kept)
    rows = gl.arange(0, ROWS, gl.SliceLayout(1, layout))
    columns = gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
    place = rows[:, None] * COLUMNS + columns[None, :]
    values = place.to(gl.float32)
    start = cycle_counter()
    for _ in range(trips):
        tile.store(values)
        thread_barrier()
        values = tile.load(layout) + 1.0
        thread_barrier()
    gl.store(out + gl.program_id(0) * ROWS * COLUMNS + place, values)
    gl.store(cycles + gl.program_id(0), cycle_counter() - start)


@gluon.jit
def copy_kernel(source, cycles, trips):
    """Copy one tile by TMA and wait for it, again and again."""
    tile = gl.allocate_shared_memory(source.dtype, source.block_type.shape, source.layout)
    ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(ready, count=1)
    start = cycle_counter()
    for trip in range(trips):
        mbarrier.expect(ready, source.block_type.nbytes)
        copy_to_shared(source, [0, 0], ready, tile)
        mbarrier.wait(ready, trip & 1)
    gl.store(cycles, cycle_counter() - start)


@gluon.jit
def _first(there, back, cycles, trips):
    start = cycle_counter()
    for trip in range(trips):
        mbarrier.arrive(there, count=1)
        mbarrier.wait(back, trip & 1)
    gl.store(cycles, cycle_counter() - start)


@gluon.jit
def _second(there, back, cycles, trips):
    for trip in range(trips):
        mbarrier.wait(there, trip & 1)
        mbarrier.arrive(back, count=1)


@gluon.jit
def handoff_kernel(cycles, trips):
    """Two warp groups pass a turn to each other through two mbarriers, again and again."""
    there = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    back = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(there, count=1)
    mbarrier.init(back, count=1)
    given = (there, back, cycles, trips)
    gl.warp_specialize([(_first, given), (_second, given)], [4], [24])


@gluon.jit
def _giver(there, back, tile, other, cycles, trips):
    rows = gl.arange(0, tile.shape[0], gl.SliceLayout(1, HANDED))
    columns = gl.arange(0, tile.shape[1], gl.SliceLayout(0, HANDED))
    values = (rows[:, None] + columns[None, :]).to(gl.float32)
    start = cycle_counter()
    for trip in range(trips):
        tile.store(values)
        mbarrier.arrive(there, count=1)
        mbarrier.wait(back, trip & 1)
        values = other.load(HANDED)
    gl.store(cycles, cycle_counter() - start)
    other.store(values)


@gluon.jit
def _taker(there, back, tile, other, cycles, trips):
    for trip in range(trips):
        mbarrier.wait(there, trip & 1)
        other.store(tile.load(HANDED))
        mbarrier.arrive(back, count=1)


@gluon.jit
def value_kernel(cycles, trips, ROWS: gl.constexpr, COLUMNS: gl.constexpr):
    """Two warp groups hand a tile of float32 to each other through shared memory, again and again."""
    kept: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    tile = gl.allocate_shared_memory(gl.float32, [ROWS, COLUMNS], kept)
    other = gl.allocate_shared_memory(gl.float32, [ROWS, COLUMNS], kept)
    there = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    back = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(there, count=1)
    mbarrier.init(back, count=1)
    given = (there, back, tile, other, cycles, trips)
    gl.warp_specialize([(_giver, given), (_taker, given)], [4], [128])
