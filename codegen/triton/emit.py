"""A kernel plan as a readable Triton module.

The module stands alone: it imports triton only (torch is met in `launch`, as the tensors' own), so a kernel can be
compiled where torch is not installed. The loop body is printed from the program's operations in the order the schedule
starts them; ring depths become Triton's pipelining depth. Same plan, same text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.codegen.triton.errors import ForeignSchedule, NoProgram, NoTemplate
from treadle.codegen.triton.header import header_lines
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.program import OperationKind, TileProgram
from treadle.ir.tile.schedule import Schedule

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parents[1] / "templates" / "triton"

SHORT_DTYPE = {"bfloat16": "bf16", "float16": "fp16"}
"""Triton's names of element types in kernel signatures."""


def emit(kernel: KernelPlan, machine: Machine | None = None, plan_id: str = "") -> str:
    """Return the source of a Triton module that runs the kernel.

    Args:
        kernel: a plan with a tile program and a schedule of the loop lowered from it.
        machine: whom the schedule is for; None leaves the compiler's default reading of ring depths (synchronous MMA).
        plan_id: id of the plan folder, for the header.

    Raises:
        NoProgram, NoTemplate, ForeignSchedule.
    """
    if kernel.program is None:
        raise NoProgram(kernel=kernel.name)
    name = f"{kernel.program.family}.py.j2"
    if not (TEMPLATES / name).is_file():
        raise NoTemplate(
            kernel=kernel.name, family=kernel.program.family, expected=f"one of {', '.join(templated_families())}"
        )
    context = _context(kernel, kernel.program, machine)
    context["header"] = header_lines(kernel, machine, plan_id)
    return _environment().get_template(name).render(context).rstrip() + "\n"


def templated_families() -> tuple[str, ...]:
    """Return the families that have a template."""
    return tuple(sorted(path.name.removesuffix(".py.j2") for path in TEMPLATES.glob("[a-z]*.py.j2")))


def pipeline_depth(program: TileProgram, kernel: KernelPlan, machine: Machine | None) -> int:
    """Return Triton's `num_stages` for the rings of the schedule's loads.

    Triton keeps num_stages slots per pipelined load where MMA runs asynchronously, and num_stages - 1 elsewhere
    (seen in the intermediate code of Triton 3.6 and 3.9). It takes one number for a whole loop, so the deepest ring
    decides, as far as equally deep rings fit into the memory they share. Products get at least two slots where those
    fit: with one Triton does not copy asynchronously at all, and loads no longer overlap as any schedule has them.
    """
    loads = {operation.name for operation in program.operations if operation.kind is OperationKind.LOAD}
    rings = [ring for ring in kernel.loop.rings if ring.name in loads]
    multiplies = any(operation.kind is OperationKind.MMA for operation in program.operations)
    asynchronous = machine is not None and machine.has("async_mma")
    deepest = max((kernel.schedule.ring_depths[ring.name] for ring in rings), default=1)
    deepest = max(2, deepest) if multiplies and asynchronous else deepest
    for capacity in kernel.loop.capacities:
        slot_bytes = sum(ring.slot_bytes for ring in rings if ring.memory == capacity.memory)
        if slot_bytes:
            deepest = min(deepest, max(1, (capacity.capacity_bytes - capacity.fixed_bytes) // slot_bytes))
    return deepest if asynchronous and multiplies else deepest + 1


def schedule_order(kernel: KernelPlan, program: TileProgram, schedule: Schedule | None = None) -> tuple[str, ...]:
    """Return the program's operations in the order they start; equal starts keep the program's order.

    Operands of the same iteration start no later than their readers, so every name is defined before its use.
    `schedule` is that of the program, the kernel's own unless given. Rows split over warp groups are one operation
    here: Triton splits rows itself.
    """
    starts = (schedule or kernel.schedule).start_cycles
    for operation in program.operations:
        if operation.name not in starts:
            raise ForeignSchedule(kernel=kernel.name, operation=operation.name)
    ordered = sorted((operation.name for operation in program.operations), key=lambda name: starts[name])
    parts = int(program.options.get("row_parts", 1))
    return tuple(dict.fromkeys(_whole_name(name, parts, starts) for name in ordered)) if parts > 1 else tuple(ordered)


def _whole_name(name: str, parts: int, names: Collection[str]) -> str:
    """Return the name of the operation that `name` is a part of the rows of; its own where it is none."""
    base, _, part = name.rpartition("_")
    every = [f"{base}_{index}" for index in range(parts)]
    return base if part.isdigit() and name in every and all(other in names for other in every) else name


def _context(kernel: KernelPlan, program: TileProgram, machine: Machine | None) -> dict[str, Any]:
    orders = {"": schedule_order(kernel, program)}
    for own, sibling in zip(program.siblings, kernel.siblings, strict=True):
        orders[own.name.removeprefix(f"{program.name}_")] = schedule_order(kernel, own, sibling.schedule)
    dtype = str(program.options["dtype"])

    def body(statements: dict[str, str], indent: int, loop: str = "") -> str:
        """Return the statements of a loop in the order of its schedule, one block, indented."""
        order = orders[loop]
        missing = set(order) ^ set(statements)
        if missing:
            raise ForeignSchedule(kernel=kernel.name, operation=min(missing))
        blocks = [textwrap.dedent(statements[name]).strip() for name in order]
        return textwrap.indent("\n".join(blocks), " " * indent)

    return {
        "kernel": kernel,
        "program": program,
        "loops": [name for name in orders if name],
        "shape": program.shape,
        "tiles": program.tile_sizes,
        "options": program.options,
        "dtype": dtype,
        "short_dtype": SHORT_DTYPE[dtype],
        "num_warps": program.warps,
        "num_stages": pipeline_depth(program, kernel, machine),
        "body": body,
        "next_power_of_two": _next_power_of_two,
        "head_parts": _powers_of_two,
    }


def _next_power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()


def _powers_of_two(value: int) -> list[int]:
    """Return the powers of two that add up to `value`, largest first."""
    return [1 << bit for bit in reversed(range(value.bit_length())) if value >> bit & 1]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
