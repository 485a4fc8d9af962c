"""Schedules of library programs with their warp programs, solved once per session."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.costmodels.warp_facts import facts_of
from treadle.frontends import programs
from treadle.ir.machine import Machine
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.schedule import lifetime_cycles
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.lower import lower_schedule
from treadle.ir.warp.program import WarpProgram
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline import solve as pipeline

ATTENTION = {"heads": 4, "seq": 512, "qk_head_dim": 128}
PROGRAMS: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "pair": ("attention_fwd", ATTENTION, {"block_m": 128, "block_n": 128, "sub_tiles": 2}),
    "attention": ("attention_fwd", ATTENTION, {"block_m": 64, "block_n": 64, "sub_tiles": 1}),
    "gemm": ("gemm", {"m": 512, "n": 512, "k": 512}, {"block_m": 128, "block_n": 128, "block_k": 64}),
    "swiglu": ("swiglu", {"m": 512, "n": 512, "k": 512}, {"block_m": 128, "block_n": 128, "block_k": 64}),
}
CASES = (
    ("pair", "h100"),
    ("attention", "h100"),
    ("attention", "b200"),
    ("gemm", "h100"),
    ("gemm", "b200"),
    ("gemm", "a100"),
    ("swiglu", "h200"),
    ("swiglu", "b200"),
)


@dataclass(frozen=True)
class Case:
    """A program on a machine, its schedule, and the warp program of that."""

    program: TileProgram
    machine: Machine
    warps: WarpLoop
    made: WarpSchedule
    facts: Facts
    lowered: WarpProgram


def needed_slots(warps: WarpLoop, made: WarpSchedule) -> dict[str, int]:
    """Return the slots that the schedule's lifetimes need of every ring."""
    ii = made.schedule.ii_cycles
    return {ring.name: -(-lifetime_cycles(ring, made.schedule) // ii) for ring in warps.loop.rings}


@cache
def case(name: str, machine_name: str) -> Case:
    """Return a solved case; a short search suffices, since any legal schedule will do."""
    machine = load_machine(machine_name)
    program = programs.build(*PROGRAMS[name])
    warps = lower_warps(program, machine)
    made = pipeline.schedule(warps, pipeline.Options(Limits(deterministic_s=0.3))).schedule
    facts = facts_of(program, machine, warps, made)
    return Case(program, machine, warps, made, facts, lower_schedule(warps, made, facts))
