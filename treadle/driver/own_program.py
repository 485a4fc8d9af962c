"""`treadle kernel FILE.py:NAME`: a user's Triton kernel or tile program to a plan; its source stays the user's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from treadle.driver.artifacts import Files
from treadle.driver.kernel import Tell, envelope_of, machine_input, numbered, with_files
from treadle.driver.kernel_groups import further_schedules, with_groups
from treadle.driver.kernels import KernelOptions, machine_for, plan_program, unfit
from treadle.driver.nearest import nearest
from treadle.frontends.own_program import OwnProgram, read_own
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan, input_from
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.program import TileProgram

MOST_HALVINGS = 3
"""Halvings of block sizes that are tried: each reads the user's file again, in a process of its own."""
_BLOCK = re.compile(r"\w*(block|tile)\w*|b(lk)?_?[a-z]\d?", re.IGNORECASE)
"""Constants of a Triton kernel that are taken for block sizes: `BLOCK_M`, `BLOCK_SIZE_K`, `TILE_N`, `BM`, `BN1`."""


@dataclass(frozen=True, slots=True)
class Request:
    """A user's program as it was asked for."""

    name: str
    shape: Mapping[str, int]
    arguments: Mapping[str, str]

    def read(self) -> OwnProgram:
        """Read the program; raises as `read_own`."""
        return read_own(self.name, self.shape, self.arguments)

    def at(self, sizes: Mapping[str, int]) -> TileProgram:
        """Read the program with other block sizes; raises as `read_own`."""
        if self.arguments:
            words = {key: str(value) for key, value in sizes.items()}
            return read_own(self.name, self.shape, {**self.arguments, **words}).program
        return read_own(self.name, {**self.shape, **sizes}, {}).program

    def sizes(self, program: TileProgram) -> dict[str, int]:
        """Return the block sizes: of a Triton kernel its constants of such names, of a tile program what it states."""
        if not self.arguments:
            return dict(program.tile_sizes)
        words = {key: word for key, word in self.arguments.items() if _BLOCK.fullmatch(key) and word.isdecimal()}
        return {key: int(word) for key, word in words.items() if int(word) > 1}

    def advice(self, program: TileProgram, machine: Machine, *, over_groups: bool) -> str:
        """Return the nearest block sizes that fit as a hint, empty when there are none."""
        start = self.sizes(program)
        found = nearest(start, self.at, machine, MOST_HALVINGS, over_groups=over_groups) if start else None
        if found is None:
            return ""
        changed = " ".join(f"{key}={value}" for key, value in found.items() if value != start[key])
        return f"it fits with {changed} in --{'arguments' if self.arguments else 'shape'}"


def plan_own(
    name: str,
    machine_id: str,
    shape: Mapping[str, int],
    arguments: Mapping[str, str],
    options: KernelOptions,
    tell: Tell,
) -> tuple[Plan, Files]:
    """Schedule a user's program on a machine.

    Returns: the unsealed plan, and its files: among them the Triton IR that was read.

    Raises:
        TreadleError: as `read_own`, and where the machine lacks a unit or the program fits no memory.
    """
    machine = machine_for(machine_id, options)
    asked = Request(name, shape, arguments)
    own = asked.read()
    if own.loop:
        tell(f"{own.program.name}: the loop at {own.loop}")
    kernel = with_groups(_alone(own.program, asked, machine, options), machine, options, tell, asked.advice)
    kernels = [kernel, *further_schedules(kernel, options.top - 1, options, tell)]
    inputs = (input_from("program", own.file), machine_input(machine))
    request = {"program": own.program.name, "machine": machine.id, "shape": dict(shape), "arguments": dict(arguments)}
    envelope = envelope_of(request, inputs, options)
    plan, files = with_files(envelope, machine, numbered(kernels), options, tell)
    if own.triton_ir:
        files["inputs/kernel.ttir"] = own.triton_ir.encode()
    return plan, files


def _alone(program: TileProgram, asked: Request, machine: Machine, options: KernelOptions) -> KernelPlan:
    """Schedule the loop alone; where it fits no memory, the nearest block sizes are named."""
    try:
        return plan_program(program, machine, options)
    except TreadleError as error:
        hint = asked.advice(program, machine, over_groups=False) if unfit(error) else ""
        if not hint:
            raise
        raise type(error)(place=error.place, expected=error.expected, hint=hint, **error.fields) from error
