"""`treadle kernel FILE.py:NAME`: a user's Triton kernel or tile program to a plan; its source stays the user's."""

from __future__ import annotations

from collections.abc import Mapping

from treadle.driver.artifacts import Files
from treadle.driver.kernel import Tell, envelope_of, machine_input, with_files
from treadle.driver.kernel_groups import with_groups
from treadle.driver.kernels import KernelOptions, machine_for, plan_program
from treadle.frontends.own_program import read_own
from treadle.ir.plan import Plan, input_from


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
    own = read_own(name, shape, arguments)
    if own.loop:
        tell(f"{own.program.name}: the loop at {own.loop}")
    kernel = with_groups(plan_program(own.program, machine, options), machine, options, tell)
    inputs = (input_from("program", own.file), machine_input(machine))
    request = {"program": own.program.name, "machine": machine.id, "shape": dict(shape), "arguments": dict(arguments)}
    plan, files = with_files(envelope_of(request, inputs, options), machine, (kernel,), options, tell)
    if own.triton_ir:
        files["inputs/kernel.ttir"] = own.triton_ir.encode()
    return plan, files
