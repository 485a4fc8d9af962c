"""Registers of a group by its program's order: which values are there at once, as a compiler sees them."""

from __future__ import annotations

from collections import Counter, defaultdict

from treadle.ir.tile.warps import WarpLoop
from treadle.ir.warp.program import Action, Instruction, WarpGroup, WarpProgram

Version = tuple[str, int, int]
"""A value of an iteration, and how often its group has read it from a slot: every read is a copy of its own."""


def registers_in_order(program: WarpProgram, warps: WarpLoop) -> tuple[int, ...]:
    """Return the most registers per thread that tracked values take at once in every group, `fixed_registers` included.

    A value is there from the instruction that makes it (or reads it from a slot) to the last one that reads it; an
    asynchronous reader that holds it for its whole latency lets go when a wait covers it. A reader with no hold cycles
    puts its result in the operand's place. A value that is read from its slot once more need not be kept until then.
    Counted over a few more iterations than overlap.
    """
    return tuple(_peak(group, program, warps) + warps.limits.fixed_registers for group in program.groups)


def _peak(group: WarpGroup, program: WarpProgram, warps: WarpLoop) -> int:
    size = {value.name: value.registers for value in warps.values}
    latency = {operation.name: operation.latency_cycles for operation in warps.loop.operations}
    replaced = {(v.name, r.operation) for v in warps.values for r in v.readers if r.hold_cycles == 0}
    held = {(v.name, r.operation) for v in warps.values for r in v.readers if 0 < latency[r.operation] <= r.hold_cycles}
    lines = [
        (instruction, step - instruction.stage)
        for step, instructions in group.steps(2 * group.stages + 2)
        for instruction in instructions
    ]
    last = _last_uses(lines, size, held)
    ends: dict[int, list[Version]] = defaultdict(list)
    for version, position in last.items():
        ends[position].append(version)
    live: dict[Version, int] = {}
    fetched: Counter[tuple[str, int]] = Counter()
    peak = 0
    for position, (instruction, iteration) in enumerate(lines):
        over = [version for version in ends[position] if version in live]
        for version in over:
            if (version[0], instruction.subject) in replaced:
                del live[version]
        made = _made(instruction, iteration, fetched)
        if made is not None and made[0] in size and made in last:
            live[made] = size[made[0]]
        peak = max(peak, sum(live.values()))
        for version in over:
            live.pop(version, None)
    return peak


def _made(instruction: Instruction, iteration: int, fetched: Counter[tuple[str, int]]) -> Version | None:
    """Return what an instruction puts in registers, and count it where it is a copy."""
    if instruction.action is Action.PERFORM and not instruction.result:
        return instruction.subject, iteration, 0
    if instruction.action is Action.READ:
        value = instruction.subject, iteration - instruction.operands[0].distance
        fetched[value] += 1
        return *value, fetched[value]
    return None


def _last_uses(
    lines: list[tuple[Instruction, int]], size: dict[str, int], held: set[tuple[str, str]]
) -> dict[Version, int]:
    """Return the position behind which every value is no more needed."""
    last: dict[Version, int] = {}
    flying: dict[str, list[list[Version]]] = defaultdict(list)
    fetched: Counter[tuple[str, int]] = Counter()
    for position, (instruction, iteration) in enumerate(lines):
        _made(instruction, iteration, fetched)
        values = [
            (source.value, iteration - source.distance)
            for source in instruction.operands
            if not source.buffer and not source.invariant and source.value in size
        ]
        if instruction.action is Action.WRITE:
            values = [(instruction.subject, iteration)]
        reads = [(*value, fetched[value]) for value in values]
        for version in reads:
            last[version] = position
        if instruction.action is Action.PERFORM and instruction.queue:
            kept = [version for version in reads if (version[0], instruction.subject) in held]
            flying[instruction.queue].append(kept)
        if instruction.action is Action.WAIT:
            queue = flying[instruction.subject]
            for versions in queue[: max(0, len(queue) - instruction.pending)]:
                for version in versions:
                    last[version] = position
            del queue[: max(0, len(queue) - instruction.pending)]
    return last
