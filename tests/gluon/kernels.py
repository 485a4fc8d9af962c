"""Small kernels with schedules over warp groups, solved once for all tests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from treadle.codegen.gluon.kernel import WarpKernel, warp_kernel
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.costmodels.warp_facts import facts_of
from treadle.driver.gluon import for_groups
from treadle.driver.kernels import KernelOptions, plan_program
from treadle.frontends import programs
from treadle.ir.certificate import Certificate
from treadle.ir.tile.kernel import KernelPlan, Room, WarpPlan
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.warps import WarpSchedule
from treadle.ir.warp.lower import lower_schedule
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.solve import Options, schedule

LIMITS = Limits(deterministic_s=1.0)
GEMM = ("gemm", {"m": 512, "n": 512, "k": 512}, {"block_m": 128, "block_n": 256, "block_k": 64})
ATTENTION = (
    "attention_fwd",
    {"batch": 2, "heads": 8, "kv_heads": 2, "seq": 1024, "qk_head_dim": 128, "causal": 1},
    {"block_m": 128, "block_n": 128, "sub_tiles": 2},
)
GROUPED = (
    "grouped_gemm",
    {"experts": 8, "tokens": 1024, "top_k": 2, "n": 512, "k": 512},
    {"block_m": 128, "block_n": 256, "block_k": 64},
)
SWIGLU = ("swiglu", {"m": 512, "n": 512, "k": 512}, {"block_m": 128, "block_n": 128, "block_k": 64})
FP8 = ("gemm_fp8", {"m": 512, "n": 512, "k": 512}, {"block_m": 128, "block_n": 128, "block_k": 128})
CASES = {
    "gemm h200": (GEMM, "h200"),
    "gemm b200": (GEMM, "b200"),
    "attention h200": (ATTENTION, "h200"),
    "grouped h200": (GROUPED, "h200"),
    "swiglu b200": (SWIGLU, "b200"),
    "fp8 b200": (FP8, "b200"),
}
ROOM: dict[str, Room] = {}
"""Registers left free where the compiler is known to need them."""


@cache
def planned(case: str) -> KernelPlan:
    """Return the plan of a case."""
    (family, shape, tiles), machine_id = CASES[case]
    machine = load_machine(machine_id)
    program = for_groups(programs.build(family, shape, tiles), machine)
    kernel = plan_program(program, machine, KernelOptions(limits=LIMITS))
    room = ROOM.get(case, Room())
    warps = room.taken_from(lower_warps(program, machine))
    solved = schedule(warps, Options(limits=LIMITS))
    groups = WarpPlan(warps, solved.schedule, solved.certificate, room)
    return replace(kernel, groups=groups, language="gluon")


def kernel_of(case: str) -> WarpKernel:
    """Return what the emitter prints of a case."""
    return warp_kernel(planned(case), load_machine(CASES[case][1]))


def serial_kernel(program: TileProgram, machine_id: str, apart: tuple[str, ...] = ()) -> WarpKernel:
    """Return a kernel whose operations follow each other: loads in a group, all else in another, `apart` in a third."""
    machine = load_machine(machine_id)
    warps = lower_warps(program, machine)
    starts: dict[str, int] = {}
    clock = 0
    for operation in warps.loop.operations:
        base = operation.name.removesuffix(".operands")
        starts[operation.name] = starts.get(base, clock)
        clock = max(clock, starts[operation.name] + operation.latency_cycles)
    groups = {i.operation: 0 if i.role else 2 if i.operation in apart else 1 for i in warps.issues}
    depths = {ring.name: 2 if ring.memory == "shared" else 1 for ring in warps.loop.rings}
    made = WarpSchedule(
        Schedule(warps.loop.name, clock, starts, clock, depths), groups, (24, 232, 232)[: 3 if apart else 2]
    )
    lowered = lower_schedule(warps, made, facts_of(program, machine, warps, made))
    return WarpKernel(program.name, program, machine, warps, made, Certificate("serial", "", ()), lowered)
