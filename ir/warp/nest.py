"""Several loops of one kernel over one set of warp groups.

An instance runs its loops in order, `repeats` times. A warp group of the kernel runs at most one group of each loop's
schedule; groups with a role (loads) are the same group in all loops. Between two loops all groups meet at a barrier,
when what they issued is over: so warp programs that are legal one by one stay so behind each other, and rings of
different loops may lie in the same memory. Registers are set once: a group has as many as its hungriest loop needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.ir.diagnostics import Finding
from treadle.ir.tile.warps import WarpLoop, WarpSchedule


@dataclass(frozen=True, slots=True)
class NestedLoop:
    """A scheduled loop of a kernel; group k of its schedule is the kernel's group `homes[k]`."""

    warps: WarpLoop
    made: WarpSchedule
    homes: tuple[int, ...]

    @property
    def roles(self) -> dict[int, str]:
        """Roles of the kernel's groups in this loop; empty for groups without one."""
        return {self.homes[self.made.groups[issue.operation]]: issue.role for issue in self.warps.issues}


def main_loop(warps: WarpLoop, made: WarpSchedule) -> NestedLoop:
    """Return the loop that numbers the kernel's groups: its own come first."""
    return NestedLoop(warps, made, tuple(range(made.group_count)))


def kernel_registers(loops: Sequence[NestedLoop]) -> tuple[int, ...]:
    """Return the registers per thread of every group of the kernel: the most that one of its loops needs."""
    most: dict[int, int] = {}
    for loop in loops:
        for home, registers in zip(loop.homes, loop.made.registers, strict=True):
            most[home] = max(most.get(home, 0), registers)
    return tuple(most[home] for home in sorted(most))


def check_nest(where: str, loops: Sequence[NestedLoop]) -> list[Finding]:
    """Return every reason why loops, each with a legal schedule, cannot run on one set of warp groups.

    Codes: TRD570 groups and roles, TRD571 registers.
    """
    for loop in loops:
        if len(loop.homes) != loop.made.group_count or len(set(loop.homes)) != len(loop.homes):
            found = f"{list(loop.homes)} for {loop.made.group_count} groups"
            return [Finding("TRD570", f"{where}: {loop.warps.loop.name}", "groups have no group each", "", found)]
    limits = loops[0].warps.limits
    used = {home for loop in loops for home in loop.homes}
    if used != set(range(len(used))) or len(used) > limits.most_groups:
        expected = f"0, 1, ... and at most {limits.most_groups}"
        return [Finding("TRD570", where, "groups of the kernel", expected, str(sorted(used)))]
    findings: list[Finding] = []
    roles: dict[int, str] = {}
    for loop in loops:
        for home, role in loop.roles.items():
            if roles.setdefault(home, role) != role:
                place = f"{where}: {loop.warps.loop.name}, group {home}"
                findings.append(Finding("TRD570", place, "a group changes its role", roles[home], role))
    registers = kernel_registers(loops)
    total = sum(registers) if limits.reallocation else max(registers) * len(registers)
    if total > limits.registers_of_file:
        most = f"<= {limits.registers_of_file}"
        findings.append(Finding("TRD571", where, "register file is overfull over all loops", most, str(total)))
    return findings
