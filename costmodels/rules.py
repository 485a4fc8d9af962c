"""What an architecture allows a schedule to do, and what handing values between warp groups costs on it.

Read from a machine's traits and figures, so that a solver never asks for a vendor or an architecture by name: parts
without register reallocation keep one register budget for all warps, parts without asynchronous products block the
warps that issue them (AMD CDNA 3, NVIDIA Ampere).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from treadle.ir.machine import Machine

REGISTER_STEP = 8
"""Registers per thread are allocated in steps of 8 (setmaxnreg, PTX ISA; VGPR blocks of CDNA 3)."""

LEAST_REGISTERS = 24
"""Smallest register budget a warp group can be given (setmaxnreg takes 24 to 256, PTX ISA)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Abilities, limits and hand-over costs of one multiprocessor."""

    async_mma: bool
    """Products run while the warps that issued them go on."""
    async_load: bool
    """Loads into shared memory need no registers and no waiting warp."""
    register_reallocation: bool
    """Warp groups may have different register budgets."""
    warp_specialization: bool
    """Warps of one block may run different programs that meet at barriers."""
    tensor_memory: bool
    warp_size: int
    warps_per_group: int
    max_warps: int
    """Warps of one block."""
    registers_per_thread: int
    """Most registers of a thread."""
    registers: int
    """32-bit registers of the multiprocessor."""
    shared_bytes: int
    tensor_bytes: int
    barrier_cycles: int
    """From arriving at a barrier to the waiting group going on."""
    wait_issue_cycles: int
    arrive_issue_cycles: int
    handoff_base_cycles: float
    handoff_cycles_per_kib: float

    def handoff_cycles(self, size_bytes: int) -> int:
        """Return the latency of handing a tile of registers to another group through shared memory."""
        return ceil(self.handoff_base_cycles + self.handoff_cycles_per_kib * size_bytes / 1024)

    def even_registers(self, warps: int) -> int:
        """Return the registers per thread when `warps` warps share the register file evenly, in whole steps."""
        fair = self.registers // (warps * self.warp_size) // REGISTER_STEP * REGISTER_STEP
        return min(self.registers_per_thread, fair)


def rules(machine: Machine) -> Rules:
    """Return the rules of a machine; raises MissingFigure."""

    def whole(name: str) -> int:
        return int(machine.value(name))

    barrier = "mbarrier_cycles" if machine.has("warp_specialization") else "named_barrier_cycles"
    tensor_memory = machine.has("tensor_memory")
    return Rules(
        async_mma=machine.has("async_mma"),
        async_load=machine.has("tma") or machine.has("async_copy"),
        register_reallocation=machine.has("register_reallocation"),
        warp_specialization=machine.has("warp_specialization"),
        tensor_memory=tensor_memory,
        warp_size=whole("warp_size"),
        warps_per_group=whole("warps_per_group"),
        max_warps=whole("max_threads_per_block") // whole("warp_size"),
        registers_per_thread=whole("registers_per_thread_max"),
        registers=whole("register_file_bytes") // 4,
        shared_bytes=whole("shared_capacity_bytes"),
        tensor_bytes=whole("tensor_memory_capacity_bytes") if tensor_memory else 0,
        barrier_cycles=whole(barrier),
        wait_issue_cycles=whole("barrier_wait_cycles"),
        arrive_issue_cycles=whole("barrier_arrive_cycles"),
        handoff_base_cycles=machine.value("handoff_base_cycles"),
        handoff_cycles_per_kib=machine.value("handoff_cycles_per_kib"),
    )
