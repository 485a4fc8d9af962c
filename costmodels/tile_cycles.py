"""Cycles of one tile operation on one multiprocessor: pure functions of machine figures and tile shapes.

Every cost is a unit, the cycles the operation holds it (occupancy), and the cycles until its result is there (latency,
never less than the occupancy). Rates are those of one multiprocessor that runs one program instance; a tile that is
shorter than an instruction pays for the whole instruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from treadle.ir.machine import Machine

TENSOR_CORE = "tensor_core"
MUFU = "mufu"
ALU = "alu"
SHARED_PORT = "shared_memory"
TENSOR_PORT = "tensor_memory"
TMA = "tma"
LOAD_STORE = "load_store"

UNITS = (TENSOR_CORE, MUFU, ALU, SHARED_PORT, TENSOR_PORT, TMA, LOAD_STORE)
"""Functional units of a multiprocessor, in the order loops list them; a machine has one of the last two."""

COLUMN_GRANULARITY = 8
"""Columns of the narrowest matrix instruction (mma.m16n8k16, wgmma.m64n8k16, tcgen05 n8; PTX ISA)."""

_TENSOR_CLASSES = {
    "float64": "float64",
    "float32": "tfloat32",
    "tfloat32": "tfloat32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float8_e4m3": "float8",
    "float8_e5m2": "float8",
    "int8": "int8",
}
"""Tile dtype -> the matrix rate it runs at; float32 operands run as tfloat32, as compilers do by default."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cycles of one operation: `unit` is held for `occupancy_cycles`, the result is there after `latency_cycles`."""

    unit: str
    occupancy_cycles: int
    latency_cycles: int


def tensor_class(dtype: str) -> str | None:
    """Return the matrix rate that operands of a dtype run at, or None when tensor cores do not take it."""
    return _TENSOR_CLASSES.get(dtype)


def tensor_rate(machine: Machine, dtype: str) -> float | None:
    """Return multiply-adds per cycle of one multiprocessor for operands of `dtype`; None when it has no such rate."""
    name = f"tensor_fma_per_cycle_{tensor_class(dtype)}"
    return next((figure.value for figure in machine.figures if figure.name == name), None)


def tensor_dtypes(machine: Machine) -> tuple[str, ...]:
    """Return the tile dtypes whose products the machine's tensor cores take."""
    return tuple(dtype for dtype in _TENSOR_CLASSES if tensor_rate(machine, dtype))


def memory_unit(machine: Machine) -> str:
    """Return the unit that moves tiles between global memory and the multiprocessor."""
    return TMA if machine.has("tma") else LOAD_STORE


def mma(machine: Machine, shape: tuple[int, ...], depth: int, rate: float) -> Cost:
    """Cost of a product with a result of `shape` (..., rows, columns) over `depth`, at `rate` multiply-adds per cycle.

    Latency is affine in the occupancy, as measured: tcgen05 128x128x64 and 128x128x128 take 559 and 900 cycles.
    """
    batch, rows, columns = _padded(machine, shape)
    occupancy = ceil(batch * rows * columns * depth / rate)
    latency = machine.value("mma_latency_base_cycles") + machine.value("mma_latency_per_occupancy") * occupancy
    return Cost(TENSOR_CORE, occupancy, max(occupancy, ceil(latency)))


def mma_operand_reads(machine: Machine, shape: tuple[int, ...], a_bytes: int, b_bytes: int) -> int:
    """Return the bytes that cross the shared-memory port when a product reads its operands from there.

    Each instruction (or warp tile, where operands pass through registers) covers `mma_rows_per_instruction` rows and
    `mma_columns_per_instruction` columns, so A is read once per column block and B once per row block. As with the
    rate, a part of an instruction counts in proportion: 64 rows on B200 pay for half of a 128-row instruction. An
    operand that is not in shared memory counts as 0 bytes.
    """
    _, rows, columns = _padded(machine, shape)
    row_blocks = rows / machine.value("mma_rows_per_instruction")
    column_blocks = max(1.0, columns / machine.value("mma_columns_per_instruction"))
    return ceil(a_bytes * column_blocks + b_bytes * row_blocks)


def exp2(machine: Machine, elements: int, work: float = 1, software: bool = False) -> Cost:
    """Cost of 2^x on the special-function unit, or as a polynomial on the multiply-add lanes (FlashAttention-4)."""
    if software:
        return elementwise(machine, elements, work * machine.value("exp2_software_fma"))
    return _streamed(MUFU, elements * work / machine.value("mufu_per_cycle"), machine.value("mufu_latency_cycles"))


def elementwise(machine: Machine, elements: int, work: float = 1) -> Cost:
    """Cost of `work` elementary float32 operations on each of `elements` results."""
    cycles = elements * work / machine.value("fp32_fma_per_cycle")
    return _streamed(ALU, cycles, max(1.0, work) * machine.value("alu_latency_cycles"))


def convert(machine: Machine, elements: int, work: float = 1) -> Cost:
    """Cost of converting `elements` between formats."""
    return _streamed(ALU, elements * work / machine.value("convert_per_cycle"), machine.value("alu_latency_cycles"))


def reduce(machine: Machine, elements: int, work: float = 1) -> Cost:
    """Cost of reducing `elements` along rows: the comparisons (or sums) of every thread, then two exchanges.

    Comparisons run at half the rate of multiply-adds on NVIDIA parts; sums are charged the same, on the safe side. A
    row of an accumulator lies on four lanes (mma and wgmma layouts), hence two exchanges.
    """
    cycles = elements * work / machine.value("fp32_minmax_per_cycle")
    return _streamed(ALU, cycles, 2 * machine.value("shuffle_latency_cycles") + machine.value("alu_latency_cycles"))


def barrier(machine: Machine) -> Cost:
    """Cost of a barrier between the warps of an instance."""
    name = "mbarrier_cycles" if machine.has("warp_specialization") else "named_barrier_cycles"
    return _streamed(ALU, machine.value("barrier_arrive_cycles"), machine.value(name))


def load(machine: Machine, size_bytes: int, bytes_per_cycle: float) -> Cost:
    """Cost of copying a tile from global memory at the rate this multiprocessor gets (`tile_traffic.load_rate`)."""
    base = "tma_latency_base_cycles" if machine.has("tma") else "global_latency_cycles"
    cycles = max(size_bytes / bytes_per_cycle, machine.value("load_issue_cycles"))
    return _streamed(memory_unit(machine), cycles, machine.value(base))


def store(machine: Machine, size_bytes: int, bytes_per_cycle: float) -> Cost:
    """Cost of copying a tile to global memory."""
    cycles = max(size_bytes / bytes_per_cycle, machine.value("load_issue_cycles"))
    return _streamed(memory_unit(machine), cycles, machine.value("store_latency_base_cycles"))


def shared_access(machine: Machine, size_bytes: int) -> Cost:
    """Cost of moving bytes between registers and shared memory."""
    cycles = size_bytes / machine.value("shared_bytes_per_cycle")
    return _streamed(SHARED_PORT, cycles, machine.value("shared_latency_cycles"))


def tensor_load(machine: Machine, size_bytes: int) -> Cost:
    """Cost of reading tensor memory into registers; latency 41 + 4.2 cycles per KiB on B200, as measured."""
    occupancy = ceil(size_bytes / machine.value("tensor_load_bytes_per_cycle"))
    latency = (
        machine.value("tensor_load_latency_base_cycles")
        + machine.value("tensor_load_latency_cycles_per_kib") * size_bytes / 1024
    )
    return Cost(TENSOR_PORT, occupancy, max(occupancy, ceil(latency)))


def tensor_store(machine: Machine, size_bytes: int) -> Cost:
    """Cost of writing registers to tensor memory."""
    cycles = size_bytes / machine.value("tensor_store_bytes_per_cycle")
    return _streamed(TENSOR_PORT, cycles, machine.value("tensor_store_latency_base_cycles"))


def _streamed(unit: str, cycles: float, pipeline_cycles: float) -> Cost:
    """A pipelined operation: the unit streams the elements, the last one leaves the pipeline a little later."""
    occupancy = ceil(cycles)
    return Cost(unit, occupancy, occupancy + ceil(pipeline_cycles))


def _padded(machine: Machine, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (batch, rows, columns) of a product, the last two rounded up to what its instructions cover."""
    matrices = (1, 1, *shape)
    rows = _round_up(matrices[-2], machine.value("mma_row_granularity"))
    return prod(matrices[:-2]), rows, _round_up(matrices[-1], COLUMN_GRANULARITY)


def _round_up(value: int, granularity: float) -> int:
    step = int(granularity)
    return -(-value // step) * step
