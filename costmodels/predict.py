"""What a scheduled kernel should reach: cycles of an instance, waves over the multiprocessors, time, rates, roofline.

Pure functions of program, loop, schedule and machine; `treadle verify` recomputes them. The model:

- an instance takes ii * (trips - 1) + length cycles for each loop, and moves its invariants and results besides;
- instances that share a multiprocessor overlap, but no unit can be busier than its count allows;
- the clock falls from boost to the sustained one with the share of time the tensor core is busy, since power does;
- no kernel is faster than its bytes at the sustained bandwidth of device memory, nor than all its loads at the peak of
  the second-level cache (small tiles load the same bytes more often), and each launch costs the kernel floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from treadle.costmodels import tile_traffic as traffic
from treadle.costmodels.tile_cycles import TENSOR_CORE, tensor_class
from treadle.ir.machine import Machine
from treadle.ir.plan import Prediction
from treadle.ir.tile.kernel import ScheduledLoop
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.program import Memory, OperationKind, TileProgram
from treadle.ir.tile.schedule import Schedule

RESERVED_SHARED_BYTES = 1024
"""Shared memory the CUDA runtime keeps per block (CUDA C++ Programming Guide, compute capability 8.x and later)."""

SPARE_REGISTERS = 40
"""Registers per thread beside tiles: addresses, counters, barriers (assumed)."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Least time of a kernel on a machine, and what binds it: `compute` or `memory`."""

    time_us: float
    binding: str
    compute_us: float
    memory_us: float


def roofline(program: TileProgram, machine: Machine) -> Roofline:
    """Return the least time from the products' FLOP at the vendor's peak and the compulsory bytes at full bandwidth."""
    loops = (program, *program.siblings)
    compute = program.repeats * sum(_compute_us(loop, machine) for loop in loops)
    memory = traffic.compulsory_bytes(program) / machine.value("memory_bandwidth_bytes_per_s") * 1e6
    return Roofline(max(compute, memory), "compute" if compute >= memory else "memory", compute, memory)


def _compute_us(program: TileProgram, machine: Machine) -> float:
    """Least time of one loop's products, over all instances."""
    compute = 0.0
    for operation in program.operations:
        if operation.kind is OperationKind.MMA:
            dtype = program.tile_of(operation.operands[0].value).dtype
            flops = 2 * operation.result.elements * operation.depth * program.trips * program.instances
            compute += flops / machine.value(f"peak_flops_{tensor_class(dtype)}") * 1e6
    return compute


def predict(
    program: TileProgram, loop: Loop, schedule: Schedule, machine: Machine, siblings: Sequence[ScheduledLoop] = ()
) -> tuple[Prediction, ...]:
    """Return the predictions of a scheduled kernel: `time` first, then what it is made of.

    `siblings` are the scheduled loops of `program.siblings`.
    """
    inside = instance_cycles(program, schedule, siblings)
    outside = _outside_cycles(program, machine)
    resident = resident_instances(program, loop, schedule, machine)
    cycles = _grid_cycles(program, _busiest_cycles(program, loop, siblings), machine, inside + outside, resident)
    clock_ghz = _clock_ghz(program, loop, schedule, machine, resident)
    bound = roofline(program, machine)
    moved = traffic.compulsory_bytes(program)
    least_us = max(moved / machine.value("memory_bandwidth_sustained_bytes_per_s") * 1e6, _cache_us(program, machine))
    time_us = max(cycles / (clock_ghz * 1e3), least_us) + machine.value("kernel_floor_us")
    return (
        Prediction("time", time_us, "us"),
        Prediction("throughput", program.flops / time_us / 1e6, "TFLOP/s"),
        Prediction("bandwidth", moved / time_us * 1e6, "B/s"),
        Prediction("roofline_time", bound.time_us, "us"),
        Prediction("roofline_share", bound.time_us / time_us, "1"),
        Prediction("instance_cycles", inside, "cycle"),
        Prediction("outside_cycles", outside, "cycle"),
        Prediction("resident_instances", resident, "instance/SM"),
        Prediction("waves", ceil(program.instances / (resident * machine.value("sm_count"))), "wave"),
        Prediction("clock", clock_ghz, "GHz"),
    )


def instance_cycles(program: TileProgram, schedule: Schedule, siblings: Sequence[ScheduledLoop] = ()) -> int:
    """Return the cycles of the loops in one instance: ii * (trips - 1) + length each, repeats included."""
    cycles = schedule.ii_cycles * (program.trips - 1) + schedule.length_cycles
    for sibling, scheduled in zip(program.siblings, siblings, strict=True):
        cycles += instance_cycles(sibling, scheduled.schedule)
    return cycles * program.repeats


def resident_instances(program: TileProgram, loop: Loop, schedule: Schedule, machine: Machine) -> int:
    """Return how many instances one multiprocessor holds: by memory, threads, registers (estimated), blocks."""
    threads = program.warps * machine.value("warp_size")
    limits = [
        machine.value("max_blocks_per_sm"),
        machine.value("max_threads_per_sm") / threads,
        machine.value("register_file_bytes") / 4 / (threads * registers_per_thread(program, machine)),
    ]
    for capacity in loop.capacities:
        used = capacity.fixed_bytes + sum(
            ring.slot_bytes * schedule.ring_depths[ring.name] for ring in loop.rings if ring.memory == capacity.memory
        )
        shared = capacity.memory == "shared"
        room = machine.value("shared_capacity_per_sm_bytes") if shared else capacity.capacity_bytes
        used += RESERVED_SHARED_BYTES if shared else 0
        limits.append(room / used if used else limits[0])
    return max(1, floor(min(limits)))


def registers_per_thread(program: TileProgram, machine: Machine) -> int:
    """Estimate the registers of a thread: carried accumulators, the largest tile beside them, and spares."""
    in_registers = [
        operation.result.bytes
        for operation in program.operations
        if operation.result.memory == Memory.REGISTER
        and not (operation.kind is OperationKind.MMA and machine.has("tensor_memory"))
    ]
    carried = {operand.value for op in program.operations for operand in op.operands if operand.distance}
    kept = sum(program.tile_of(name).bytes for name in carried if program.tile_of(name).bytes in in_registers)
    threads = program.warps * machine.value("warp_size")
    tiles = (kept + max(in_registers, default=0)) / 4 / threads
    return int(min(machine.value("registers_per_thread_max"), ceil(tiles) + SPARE_REGISTERS))


def _busiest_cycles(program: TileProgram, loop: Loop, siblings: Sequence[ScheduledLoop]) -> float:
    """Cycles for which the busiest unit works on one instance."""
    busy: dict[str, float] = {}
    loops = ((program, loop), *((own, other.loop) for own, other in zip(program.siblings, siblings, strict=True)))
    for own, lowered in loops:
        for unit, cycles in _busy_cycles(lowered).items():
            busy[unit] = busy.get(unit, 0.0) + cycles * own.trips
    return max(busy.values()) * program.repeats


def _grid_cycles(program: TileProgram, busiest: float, machine: Machine, alone: float, resident: int) -> float:
    """Cycles of all waves; co-resident instances overlap until their busiest unit is full."""
    per_wave = int(machine.value("sm_count")) * resident
    full, rest = divmod(program.instances, per_wave)
    cycles = full * max(alone, resident * busiest)
    if rest:
        cycles += max(alone, ceil(rest / machine.value("sm_count")) * busiest)
    return cycles


def _busy_cycles(loop: Loop) -> dict[str, float]:
    """Occupied cycles per iteration and instance of every limited unit."""
    busy: dict[str, float] = {unit.name: 0.0 for unit in loop.units if unit.count}
    for operation in loop.operations:
        count = loop.unit(operation.unit).count
        if count:
            busy[operation.unit] += operation.occupancy_cycles / count
    return busy or {"": 0.0}


def _clock_ghz(program: TileProgram, loop: Loop, schedule: Schedule, machine: Machine, resident: int) -> float:
    """Clock between boost and sustained, by the tensor core's share of the steady state of all resident instances."""
    together = min(resident, ceil(program.instances / machine.value("sm_count")))
    busy = min(1.0, together * _busy_cycles(loop).get(TENSOR_CORE, 0.0) / schedule.ii_cycles)
    boost, sustained = machine.value("clock_boost_ghz"), machine.value("clock_sustained_ghz")
    return boost - (boost - sustained) * busy


def _cache_us(program: TileProgram, machine: Machine) -> float:
    """Time for the second-level cache to serve every load of every instance."""
    rate = machine.value("l2_peak_bytes_per_cycle") * machine.value("clock_boost_ghz") * 1e3
    return traffic.issued_load_bytes(program) / rate


def _outside_cycles(program: TileProgram, machine: Machine) -> int:
    """Cycles of an instance before and after its loop: fetch the invariants, store the results."""
    fetch = "tma_latency_base_cycles" if machine.has("tma") else "global_latency_cycles"
    moved = traffic.outside_loop_bytes(program) / program.instances
    streamed = moved / traffic.store_rate(program, machine)
    ends = machine.value("store_latency_base_cycles") + (machine.value(fetch) if program.invariants else 0)
    return ceil(streamed + ends)
