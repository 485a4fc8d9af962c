"""Figures of a GPU by measurement: rates of its units, bandwidths and latencies, in cycles of the multiprocessor.

Every kernel runs one loop and stores the cycle counter at both ends; the difference of two trip counts divided by the
difference of the trips is free of what happens outside the loop. Names are those of machine files.
"""

# pyright: reportCallIssue=false, reportIndexIssue=false
# `num_warps` is taken by Triton's launcher, not by the kernel; some releases type Gluon's `jit` as a plain function.

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from treadle.driver.gpu.machine_kernels import (
    chase_kernel,
    exp2_kernel,
    multiply_add_kernel,
    product_kernel,
    read_kernel,
)
from treadle.driver.gpu.suite import CACHE_BYTES, environment
from treadle.driver.gpu.timing import clock_ghz, event

Tell = Callable[[str], None]
Save = Callable[[dict[str, Any]], object]
Figure = tuple[float, str]
"""Value and unit."""

CHAIN_LINE = 32
"""Elements (int32) between two links of a pointer chain: one cache line of 128 bytes."""


def measure(
    tell: Tell, save: Save, measurements: Mapping[str, Callable[[], Figure]], device: str = "cuda"
) -> dict[str, Any]:
    """Return every figure that can be measured here, why others could not be, and the environment.

    Args:
        tell: called with a line for each figure.
        save: called with the record after each figure, so that one that hangs loses only what comes after it.
        measurements: figure -> how it is measured, as `MEASUREMENTS`.
        device: whose environment is recorded.
    """
    found: dict[str, Any] = {"environment": environment(device), "figures": {}, "failed": {}}
    for name, take in measurements.items():
        try:
            value, unit = take()
            if not 0 < value < float("inf"):
                raise ValueError(f"{value:g} {unit} is no plausible figure")
        except Exception as error:  # a figure this GPU or compiler cannot give; the others stand
            found["failed"][name] = f"{type(error).__name__}: {error}"[:300]
            tell(f"{name:<40} not measured: {found['failed'][name]}")
        else:
            found["figures"][name] = {"value": value, "unit": unit}
            tell(f"{name:<40} {value:.6g} {unit}")
        save(found)
    return found


def multiprocessors() -> int:
    """Return the number of multiprocessors."""
    return int(torch.cuda.get_device_properties(0).multi_processor_count)


def _cycles_per_trip(run: Callable[[torch.Tensor, int], object], instances: int, trips: int) -> float:
    """Return the median over instances of the cycles that one more trip takes."""
    taken: list[float] = []
    for count in (3 * trips, trips, 3 * trips):  # the first compiles and warms up
        cycles = torch.zeros(instances, dtype=torch.int64, device="cuda")
        run(cycles, count)
        torch.cuda.synchronize()
        taken.append(statistics.median(cycles.tolist()))
    return per_trip(taken[1], taken[2], 2 * trips)


def per_trip(fewer: float, more: float, trips: int) -> float:
    """Return what one trip takes, of two loops that differ by so many trips; raises ValueError."""
    if more <= fewer:
        raise ValueError(f"{trips} more trips took {more - fewer:.0f} cycles more")
    return (more - fewer) / trips


def line_through(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Return (value at 0, slope) of the line through two points; below 0 it is 0, as noise may make it."""
    slope = (second[1] - first[1]) / (second[0] - first[0])
    return max(0.0, first[1] - slope * first[0]), max(0.0, slope)


def tensor_rate(dtype: torch.dtype, depth: int) -> Figure:
    """Multiply-adds per cycle of one multiprocessor, from 128 x 256 tiles of random values."""
    instances, rows, columns = multiprocessors(), 128, 256
    a = torch.randn(rows, depth, device="cuda").to(dtype)
    b = torch.randn(columns, depth, device="cuda").to(dtype)
    out = torch.empty(instances * rows * columns, device="cuda")

    def run(cycles: torch.Tensor, trips: int) -> None:
        product_kernel[(instances,)](a, b, out, cycles, trips, BM=rows, BN=columns, BK=depth, num_warps=8)

    return rows * columns * depth / _cycles_per_trip(run, instances, 2000), "FMA/cycle/SM"


def exp2_rate() -> Figure:
    """Results of 2^x per cycle of one multiprocessor."""
    instances, size = multiprocessors(), 8192
    out = torch.empty(instances * size, device="cuda")

    def run(cycles: torch.Tensor, trips: int) -> None:
        exp2_kernel[(instances,)](out, cycles, trips, SIZE=size, num_warps=8)

    return 2 * size / _cycles_per_trip(run, instances, 500), "result/cycle/SM"


def multiply_add_rate() -> Figure:
    """Float32 multiply-adds per cycle of one multiprocessor."""
    instances, size = multiprocessors(), 8192
    out = torch.empty(instances * size, device="cuda")

    def run(cycles: torch.Tensor, trips: int) -> None:
        multiply_add_kernel[(instances,)](out, cycles, trips, 0.5, SIZE=size, num_warps=8)

    return 2 * size / _cycles_per_trip(run, instances, 2000), "FMA/cycle/SM"


def _read(size_bytes: int, trips: int) -> tuple[float, float]:
    """Return (bytes per second, bytes per cycle) of reading a buffer over and over, all multiprocessors together."""
    block, instances = 8192, 4 * multiprocessors()
    blocks = size_bytes // (4 * block)
    data = torch.zeros(blocks * block, device="cuda")
    out = torch.empty(instances * block, device="cuda")
    cycles = torch.zeros(instances, dtype=torch.int64, device="cuda")
    rates: list[tuple[float, float]] = []
    for _ in range(6):
        start, end = event(), event()
        start.record()
        read_kernel[(instances,)](data, out, cycles, blocks, trips, SIZE=block, num_warps=8)
        end.record()
        torch.cuda.synchronize()
        moved = 4 * block * blocks * trips
        rates.append((moved / (start.elapsed_time(end) * 1e-3), moved / statistics.median(cycles.tolist())))
    return max(rates)


def memory_bandwidth() -> float:
    """Return the bytes per second that reads of device memory reach."""
    return _read(4 << 30, 1)[0]


def cache_rate() -> Figure:
    """Bytes per cycle from the second-level cache, all multiprocessors together."""
    return _read(16 << 20, 200)[1], "B/cycle"


def load_latency(size_bytes: int) -> Figure:
    """Cycles of a load that waits for the one before it, in a random chain over a buffer of a size.

    What fits the second-level cache is read once before. Of anything larger, no link is read twice, and the cache is
    filled with something else between runs.
    """
    links = size_bytes // (4 * CHAIN_LINE)
    order = torch.randperm(links)
    chain = torch.zeros(links * CHAIN_LINE, dtype=torch.int32)
    chain[order * CHAIN_LINE] = (order.roll(-1) * CHAIN_LINE).int()
    on_gpu, out = chain.cuda(), torch.empty(1, dtype=torch.int32, device="cuda")
    cached = size_bytes <= torch.cuda.get_device_properties(0).L2_cache_size // 2
    trips = links // 3 if cached else min(20_000, links // 8)
    firsts = iter((0, 0, 0) if cached else (0, 3 * trips, 4 * trips))

    def run(cycles: torch.Tensor, count: int) -> None:
        if not cached:
            torch.zeros(CACHE_BYTES, device="cuda")
        first = int(order[next(firsts)]) * CHAIN_LINE
        chase_kernel[(1,)](on_gpu, out, cycles, first, count, num_warps=1)

    return _cycles_per_trip(run, 1, trips), "cycle"


def shared_rate() -> Figure:
    """Bytes per cycle between registers and shared memory of one multiprocessor, reads and writes.

    Three instances on each cover each other's barriers.
    """
    from treadle.driver.gpu.machine_gluon import shared_kernel

    together, rows, columns = 3, 128, 128
    instances = together * multiprocessors()
    out = torch.empty(instances * rows * columns, device="cuda")

    def run(cycles: torch.Tensor, trips: int) -> None:
        shared_kernel[(instances,)](out, cycles, trips, ROWS=rows, COLUMNS=columns, num_warps=4)

    return together * 2 * 4 * rows * columns / _cycles_per_trip(run, instances, 500), "B/cycle/SM"


def copy_latency() -> Figure:
    """Cycles from issuing a TMA copy to its barrier, cached in the second level, for no bytes: from two sizes."""
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    from treadle.driver.gpu.machine_gluon import COPY_LAYOUT, copy_kernel

    def cycles_of(rows: int) -> float:
        data = torch.zeros(rows, 64, device="cuda", dtype=torch.bfloat16)
        source = TensorDescriptor.from_tensor(data, [rows, 64], COPY_LAYOUT)

        def run(cycles: torch.Tensor, trips: int) -> None:
            copy_kernel[(1,)](source, cycles, trips, num_warps=1)

        return _cycles_per_trip(run, 1, 2000)

    return line_through((16, cycles_of(16)), (128, cycles_of(128)))[0], "cycle"


def barrier_cycles() -> Figure:
    """Cycles from one warp group's arrival at an mbarrier to another group's going on."""
    from treadle.driver.gpu.machine_gluon import handoff_kernel

    def run(cycles: torch.Tensor, trips: int) -> None:
        handoff_kernel[(1,)](cycles, trips, num_warps=4)

    return _cycles_per_trip(run, 1, 2000) / 2, "cycle"


@cache
def _handoff() -> tuple[float, float]:
    """Return (cycles for no bytes, cycles per KiB) of handing a tile from group to group through shared memory."""
    from treadle.driver.gpu.machine_gluon import value_kernel

    def cycles_of(rows: int) -> float:
        def run(cycles: torch.Tensor, trips: int) -> None:
            value_kernel[(1,)](cycles, trips, ROWS=rows, COLUMNS=64, num_warps=4)

        return _cycles_per_trip(run, 1, 2000) / 2

    return line_through((4, cycles_of(16)), (16, cycles_of(64)))


def busy_clock_ghz() -> Figure:
    """Clock while all tensor cores work on random values for a second, counted right behind the work."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        for _ in range(20):
            torch.matmul(a, a)
        torch.cuda.current_stream().synchronize()
    for _ in range(50):
        torch.matmul(a, a)
    return clock_ghz(), "GHz"


def launch_floor_us() -> Figure:
    """Time of the shortest kernel between two others."""
    x = torch.zeros(32, device="cuda")
    for _ in range(50):
        x.add_(1)
    start, end = event(), event()
    start.record()
    for _ in range(1000):
        x.add_(1)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end), "us"


MEASUREMENTS: dict[str, Callable[[], Figure]] = {
    "sm_count": lambda: (float(multiprocessors()), "SM"),
    "clock_sustained_ghz": busy_clock_ghz,
    "tensor_fma_per_cycle_bfloat16": lambda: tensor_rate(torch.bfloat16, 64),
    "tensor_fma_per_cycle_float16": lambda: tensor_rate(torch.float16, 64),
    "tensor_fma_per_cycle_float8": lambda: tensor_rate(torch.float8_e4m3fn, 128),
    "mufu_per_cycle": exp2_rate,
    "fp32_fma_per_cycle": multiply_add_rate,
    "shared_bytes_per_cycle": shared_rate,
    "l2_bytes_per_cycle": cache_rate,
    "memory_bandwidth_sustained_bytes_per_s": lambda: (memory_bandwidth(), "B/s"),
    "l2_latency_cycles": lambda: load_latency(8 << 20),
    "global_latency_cycles": lambda: load_latency(256 << 20),
    "tma_latency_base_cycles": copy_latency,
    "kernel_floor_us": launch_floor_us,
    "mbarrier_cycles": barrier_cycles,
    "handoff_base_cycles": lambda: (_handoff()[0], "cycle"),
    "handoff_cycles_per_kib": lambda: (_handoff()[1], "cycle/KiB"),
}
"""Figure of a machine file -> how it is measured; what could hang comes last."""
