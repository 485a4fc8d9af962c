"""What the emitter prints: a warp program with the tile program, machine and schedule it is from."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from treadle.codegen.gluon.errors import NotEmittable
from treadle.costmodels.warp_facts import facts_of
from treadle.ir.certificate import Certificate
from treadle.ir.machine import Machine
from treadle.ir.plan import Prediction
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.program import Memory, OperationKind, TileProgram
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.lower import lower_schedule
from treadle.ir.warp.program import Action, WarpGroup, WarpProgram

SETMAXNREG_STEP = 8
"""`setmaxnreg` takes multiples of 8 (PTX ISA)."""
LEAST_REGISTERS = 24
"""The fewest registers `setmaxnreg` may leave a warp (PTX ISA)."""
MOST_REGISTERS = 256
"""The most that `setmaxnreg` may ask for (PTX ISA); instructions address 255."""
WARPS_TOGETHER = 4
"""Warps that `setmaxnreg` changes together: a warp group (PTX ISA)."""
LEAST_LAUNCH_REGISTERS = 64
"""Registers that the part of a kernel before its groups (allocation, barriers) is compiled with at least."""
TENSOR_ROWS = 128
"""Lanes of tensor memory, which four warps reach, a lane a thread (PTX ISA)."""
TENSOR_COLUMNS = 512
"""Columns of tensor memory, 32 bits of 128 lanes each (PTX ISA)."""
LARGEST_INSTRUCTION_N = 256
"""Columns of one `wgmma` (PTX ISA)."""


@dataclass(frozen=True, slots=True)
class WarpKernel:
    """One kernel to emit; `warp_program` is the lowering of `made`."""

    name: str
    program: TileProgram
    machine: Machine
    warps: WarpLoop
    made: WarpSchedule
    certificate: Certificate
    warp_program: WarpProgram
    predictions: tuple[Prediction, ...] = ()
    budget: tuple[int, ...] = ()
    """Registers of every group where compiling has shown what they need; else those of the schedule count."""

    @property
    def registers(self) -> tuple[int, ...]:
        """Registers per thread planned for every group."""
        return self.budget or self.made.registers

    @property
    def blackwell(self) -> bool:
        """Whether products accumulate in tensor memory."""
        return self.machine.has("tensor_memory")

    @property
    def dtype(self) -> str:
        """Element type of the operands."""
        return str(self.program.options["dtype"])


def warp_kernel(kernel: KernelPlan, machine: Machine) -> WarpKernel:
    """Return what the emitter prints of a planned kernel; raises NotEmittable, and as `lower_schedule`."""
    if kernel.program is None or kernel.groups is None:
        raise NotEmittable(kernel=kernel.name, reason=kernel.groupless or "it has no schedule over warp groups")
    groups = kernel.groups
    facts = facts_of(kernel.program, machine, groups.warps, groups.schedule)
    lowered = lower_schedule(groups.warps, groups.schedule, facts)
    return WarpKernel(
        kernel.name,
        kernel.program,
        machine,
        groups.warps,
        groups.schedule,
        groups.certificate,
        lowered,
        kernel.predictions,
        groups.budget,
    )


def identifier(name: str) -> str:
    """Return a Python name for a value, buffer or group."""
    return name.replace(".", "_")


def buffer_name(program: WarpProgram, name: str) -> str:
    """Return a Python name for a buffer: one over which a register value of that name is handed has another."""
    values = {
        instruction.subject
        for group in program.groups
        for instruction in group.instructions()
        if instruction.action is Action.PERFORM and not instruction.result
    }
    if name not in values:
        return identifier(name)
    return identifier(name) + ("_memory" if program.buffer(name).memory is Memory.TENSOR else "_shared")


def loads_only(group: WarpGroup, program: TileProgram) -> bool:
    """Whether a group only issues copies: one of its warps does all the work."""
    names = {operation.name: operation.kind.value for operation in program.operations}
    performed = [names.get(i.subject) for i in group.instructions() if i.action.value == "perform"]
    return bool(performed) and all(kind == "load" for kind in performed)


def issues_only(kernel: WarpKernel, group: WarpGroup) -> bool:
    """Whether a group only issues products whose results lie in tensor memory."""
    products = {operation.name for operation in kernel.program.operations if operation.kind is OperationKind.MMA}
    performed = {i.subject for i in group.instructions() if i.action is Action.PERFORM}
    return kernel.blackwell and performed <= products


@dataclass(frozen=True, slots=True)
class Budgets:
    """Registers per thread: what the kernel is launched with, and what each group has after `setmaxnreg`."""

    launch: int
    groups: tuple[int, ...]


def budgets(kernel: WarpKernel, planned: tuple[int, ...], default: int, narrow: tuple[bool, ...]) -> Budgets:
    """Return what Gluon must be told so that every group gets at least its planned registers.

    Registers are allocated to four warps at a time: groups of one warp (`narrow`) share them. One instance runs on a
    multiprocessor, so groups that compute share all of its registers, each as much beyond its plan as the others: what
    is planned is what they use, and what is granted on top keeps ptxas from spilling. Triton gives the default group
    (position `default`) what the others leave of launch registers x allocations, and ptxas wants the launch figure to
    hold one instruction's registers at least.
    """
    small = [at for at in range(len(planned)) if narrow[at]]
    packed = [small[at : at + WARPS_TOGETHER] for at in range(0, len(small), WARPS_TOGETHER)]
    units = [[default], *([at] for at in range(len(planned)) if not narrow[at] and at != default), *packed]
    granted = [_stepped(max(LEAST_REGISTERS, *(planned[at] for at in unit))) for unit in units]
    needed = granted[: len(units) - len(packed)]
    _share(granted, needed, _floored(kernel.warps.limits.registers_of_file // len(units)) * len(units))
    launch = max(_stepped(ceil(sum(granted) / len(units))), _launch_floor(kernel))
    _share(granted, needed, launch * len(units))
    granted[0] += launch * len(units) - sum(granted)
    found = {at: registers for unit, registers in zip(units, granted, strict=True) for at in unit}
    return Budgets(launch, tuple(found[at] for at in range(len(planned))))


def _stepped(registers: int) -> int:
    return ceil(registers / SETMAXNREG_STEP) * SETMAXNREG_STEP


def _floored(registers: int) -> int:
    return registers // SETMAXNREG_STEP * SETMAXNREG_STEP


def _share(granted: list[int], planned: list[int], total: int) -> None:
    """Raise the groups that compute, which have a plan, step by step: those with the least beyond their plan first."""
    while sum(granted) + SETMAXNREG_STEP <= total:
        low = [at for at in range(len(planned)) if granted[at] + SETMAXNREG_STEP <= MOST_REGISTERS]
        if not low:
            return
        granted[min(low, key=lambda at: granted[at] - planned[at])] += SETMAXNREG_STEP


def _launch_floor(kernel: WarpKernel) -> int:
    """Return the fewest registers with which ptxas compiles the widest `wgmma`: its accumulators and 26 more (seen)."""
    if kernel.blackwell:
        return LEAST_LAUNCH_REGISTERS
    columns = max(o.result.shape[1] for o in kernel.program.operations if o.kind is OperationKind.MMA)
    return ceil((min(columns, LARGEST_INSTRUCTION_N) // 2 + 32) / SETMAXNREG_STEP) * SETMAXNREG_STEP
