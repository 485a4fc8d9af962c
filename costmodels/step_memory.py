"""A traced step on a machine: times of its kernels, and the memory spaces its buffers may be in."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.layout.memory_spaces import Space, SpacesProblem, StepBuffer, StepSection
from treadle.ir.layout.step_trace import StepTrace, TracedKernel
from treadle.ir.machine import Machine


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be done with buffers: spaces beside the main one, reruns, and the least size that is moved."""

    spaces: tuple[Space, ...] = ()
    reruns: bool = True
    smallest_bytes: int = 1 << 20


def main_space(machine: Machine, capacity_bytes: int | None = None) -> Space:
    """Return the machine's memory; `capacity_bytes` instead of all of it."""
    capacity = capacity_bytes or int(machine.value("memory_capacity_bytes"))
    return Space("memory", capacity, int(machine.value("memory_bandwidth_sustained_bytes_per_s")))


def host_space(machine: Machine, capacity_bytes: int | None = None) -> Space:
    """Return the host's memory behind PCIe; both directions at once, each at the machine's rate."""
    rate = int(machine.value("pcie_bandwidth_bytes_per_s"))
    return Space("host", capacity_bytes, None, rate, rate)


def spaces_problem(trace: StepTrace, machine: Machine, main: Space, allowed: Allowed) -> SpacesProblem:
    """Return the step with its kernels priced: FLOP over the calibrated rate plus the kernel floor, or traffic.

    A buffer is read or written whole by each kernel that uses it. A rerun takes what its kernel takes. A last section
    without work is there for what moves after the last kernel.

    Raises:
        MissingFigure: the machine lacks a number.
    """
    sections = tuple(StepSection(kernel.name, _compute_ns(kernel, machine)) for kernel in trace.kernels)
    sizes = [storage.size_bytes for storage in trace.storages]
    traffic = [0] * len(sections)
    for storage in trace.storages:
        for use in storage.uses:
            traffic[use] += storage.size_bytes
    rate = main.direct_bytes_per_s or 1
    buffers: list[StepBuffer] = []
    for storage, size in zip(trace.storages, sizes, strict=True):
        made = storage.uses[0]
        again = allowed.reruns and not storage.kept and made in storage.written and trace.kernels[made].repeats
        rerun_ns = max(sections[made].compute_ns, -(-traffic[made] * 1_000_000_000 // rate)) if again else None
        sources = storage.sources if again else ()
        buffers.append(StepBuffer(storage.id, size, storage.uses, storage.written, storage.kept, rerun_ns, sources))
    ended = (*sections, StepSection("end of the step", 0))
    return SpacesProblem(trace.name, (main, *allowed.spaces), ended, tuple(buffers), allowed.smallest_bytes)


def _compute_ns(kernel: TracedKernel, machine: Machine) -> int:
    efficiency = machine.value("attention_efficiency" if kernel.attention else "gemm_efficiency")
    seconds = kernel.flops / (machine.value("peak_flops_bfloat16") * efficiency)
    return round((seconds + machine.value("kernel_floor_us") * 1e-6) * 1e9)
