"""A kernel plan: a tile program, the loop a machine makes of it, its schedule, and what was compiled from it."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.certificate import Certificate
from treadle.ir.machine import Machine
from treadle.ir.plan import Prediction
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Compiled:
    """One compilation of a kernel: resources as the assembler left them, and the files in the plan folder."""

    target: str
    compiler: str
    source: str
    binary: str
    registers: int
    spill_bytes: int
    smem_bytes: int


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """One hot loop, scheduled on one machine. `calls` says how often the model runs it and in which phase."""

    name: str
    machine: Machine
    loop: Loop
    schedule: Schedule
    certificate: Certificate
    program: TileProgram | None = None
    """None for a bare loop read from a file (no kernel can be emitted)."""
    predictions: tuple[Prediction, ...] = ()
    compiled: tuple[Compiled, ...] = ()
    calls: int = 1
    phase: str = ""
