"""What a compiled Gluon kernel must show to be the plan's: no spills, its instructions, registers and barriers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from treadle.codegen.gluon.emit import register_budgets
from treadle.codegen.gluon.frames import INSTRUCTION_K_BYTES
from treadle.codegen.gluon.kernel import LARGEST_INSTRUCTION_N, WarpKernel, identifier, issues_only, loads_only
from treadle.codegen.gluon.machine_code import GroupLoop, count, disassemble, group_loops
from treadle.codegen.triton.compile import KernelBinary
from treadle.ir.tile.program import DTYPE_BYTES, OperationKind
from treadle.ir.warp.program import Action, WarpGroup

CLOSE_REGISTERS = 8
"""Registers may differ from the plan by so many."""
INSTRUCTION_M = 64
"""Rows of one `wgmma` (PTX ISA)."""


@dataclass(frozen=True, slots=True)
class GroupEvidence:
    """A group's plan beside its machine code, an iteration of the steady state."""

    group: str
    registers_planned: int
    registers_granted: int
    registers_used: int
    products_planned: int
    products: int
    waits_planned: int
    waits: int
    signals_planned: int
    signals: int
    barriers: int
    """`bar.sync` within the group: Triton lets all warps arrive before one of them signals."""
    issue_cycles: int
    """Issue slots of a warp in the schedule."""
    instructions: int
    local: int = 0
    """Accesses to local memory in all of the group's code."""
    computes: bool = True
    """Whether the group does more than issue copies and products."""
    registers_scheduled: int = 0
    """Registers of the schedule, from before compiling has shown what its values need."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A compiled kernel beside its plan."""

    spill_bytes: int
    counts: dict[str, int]
    groups: tuple[GroupEvidence, ...]
    mismatches: tuple[str, ...]

    @property
    def short_of_registers(self) -> bool:
        """Whether registers are what the plan has too few of: all else is as planned."""
        register_reasons = ("registers", "local memory")
        return all(any(word in reason for word in register_reasons) for reason in self.mismatches)


def examine(kernel: WarpKernel, binary: KernelBinary) -> Evidence:
    """Return what the binary shows; mismatches say in words what is not as planned.

    Without a disassembler only spills are known, and that is a mismatch of its own.
    """
    code = disassemble(binary.data)
    if not code:
        return Evidence(binary.spill_bytes, {}, (), ("the binary cannot be disassembled: cuobjdump is missing",))
    counts = count(code)
    groups = _groups(kernel, group_loops(code))
    return Evidence(binary.spill_bytes, counts, groups, tuple(_mismatches(kernel, binary, counts, groups)))


def _groups(kernel: WarpKernel, loops: tuple[GroupLoop, ...]) -> tuple[GroupEvidence, ...]:
    """Match groups to the first loop of each region of code: by what an iteration does, then by registers.

    Later loops of a region are the same steps with masks.
    """
    left = list({loop.region: loop for loop in reversed(loops)}.values())[::-1]
    granted = register_budgets(kernel).groups
    found: dict[int, GroupLoop] = {}
    for at, group in enumerate(kernel.warp_program.groups):
        copies = loads_only(group, kernel.program)
        fitting = [loop for loop in left if bool(loop.counts["tma_load"]) == copies]
        if fitting:
            found[at] = min(fitting, key=partial(_difference, kernel, group, granted[at]))
            left.remove(found[at])
    return tuple(_evidence(kernel, at, found.get(at)) for at in range(len(kernel.warp_program.groups)))


def _difference(kernel: WarpKernel, group: WarpGroup, granted: int, loop: GroupLoop) -> tuple[int, int]:
    """Return how far a loop is from a group's steady state: in products, waits and signals, then in registers."""
    counts = loop.counts
    products = abs(counts["wgmma"] + counts["tcgen05"] - _products(kernel, group))
    waits = abs(counts["wait"] - _count(group, Action.GET, Action.ACQUIRE, Action.TAKE))
    signals = abs(counts["signal"] - _signals(kernel, group))
    return products + waits + signals, abs(loop.granted - granted)


def _evidence(kernel: WarpKernel, at: int, loop: GroupLoop | None) -> GroupEvidence:
    group = kernel.warp_program.groups[at]
    counts = loop.counts if loop is not None else {}
    products = counts.get("wgmma", 0) + counts.get("tcgen05", 0)
    return GroupEvidence(
        group=identifier(group.name),
        registers_planned=kernel.registers[at],
        registers_granted=loop.granted if loop is not None else register_budgets(kernel).groups[at],
        registers_used=loop.registers if loop is not None else 0,
        products_planned=_products(kernel, group),
        products=products,
        waits_planned=_count(group, Action.GET, Action.ACQUIRE, Action.TAKE),
        waits=counts.get("wait", 0),
        signals_planned=_signals(kernel, group),
        signals=counts.get("signal", 0),
        barriers=counts.get("barrier", 0),
        issue_cycles=_issue_cycles(kernel, at),
        instructions=counts.get("instructions", 0),
        local=loop.local if loop is not None else 0,
        computes=not loads_only(group, kernel.program) and not issues_only(kernel, group),
        registers_scheduled=kernel.made.registers[at],
    )


def _count(group: WarpGroup, *actions: Action) -> int:
    return sum(instruction.action in actions for instruction in group.steady)


def _signals(kernel: WarpKernel, group: WarpGroup) -> int:
    """A copy's put is the arrival that expects its bytes; a put after a product is a commit."""
    return _count(group, Action.PUT, Action.RELEASE, Action.PASS)


def _products(kernel: WarpKernel, group: WarpGroup) -> int:
    """Return the tensor-core instructions of one iteration."""
    made = {i.subject for i in group.steady if i.action is Action.PERFORM}
    total = 0
    for operation in kernel.program.operations:
        if operation.kind is not OperationKind.MMA or operation.name not in made:
            continue
        rows, columns = operation.result.shape
        dtype = kernel.program.tile_of(operation.operands[1].value.partition(".")[0]).dtype
        steps = -(-int(operation.depth * DTYPE_BYTES[dtype]) // INSTRUCTION_K_BYTES)
        tall = max(1, rows // (128 if kernel.blackwell else INSTRUCTION_M))
        total += tall * -(-columns // LARGEST_INSTRUCTION_N) * steps
    return total


def _issue_cycles(kernel: WarpKernel, at: int) -> int:
    return sum(issue.issue_cycles for issue in kernel.warps.issues if kernel.made.groups[issue.operation] == at)


def _mismatches(
    kernel: WarpKernel, binary: KernelBinary, counts: dict[str, int], groups: tuple[GroupEvidence, ...]
) -> list[str]:
    found: list[str] = []
    if binary.spill_bytes:
        found.append(f"{binary.spill_bytes} bytes of registers spill")
    capacity = round(kernel.machine.value("shared_capacity_bytes"))
    if binary.smem_bytes > capacity:
        found.append(f"{binary.smem_bytes} bytes of shared memory; {capacity} are there")
    for name in ("tcgen05" if kernel.blackwell else "wgmma", "tma_load", "setmaxnreg"):
        if not counts[name]:
            found.append(f"no {name} instruction")
    if counts["local"]:
        found.append(f"{counts['local']} accesses to local memory")
    for group in groups:
        found += _group_mismatches(group)
    return found


def _group_mismatches(group: GroupEvidence) -> list[str]:
    found: list[str] = []
    if not group.instructions:
        return [f"group `{group.group}` has no loop in the machine code"]
    if group.registers_used > group.registers_granted:
        found.append(f"group `{group.group}` names {group.registers_used} of {group.registers_granted} registers")
    for what, planned, seen in (
        ("products", group.products_planned, group.products),
        ("waits", group.waits_planned, group.waits),
        ("signals", group.signals_planned, group.signals),
    ):
        if planned != seen:
            found.append(f"group `{group.group}` has {seen} {what} an iteration; planned are {planned}")
    if group.computes and abs(group.registers_used - group.registers_planned) > CLOSE_REGISTERS:
        found.append(
            f"group `{group.group}` uses {group.registers_used} registers; planned are {group.registers_planned}"
        )
    return found
