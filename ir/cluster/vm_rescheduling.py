"""Rescheduling of virtual machines: fewest stranded cores with few migrations.

A host's free cores beyond a whole multiple of `chunk_cores` are fragments: no virtual machine of that size can use
them. The fragment rate is the share of all free cores that are fragments (VMR2L, EuroSys 2025, with 16 cores).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class VirtualMachines:
    """Hosts as (cores, memory), machines as (cores, memory) with the host each runs on, and how many may migrate."""

    hosts: tuple[tuple[int, int], ...]
    machines: tuple[tuple[int, int], ...]
    at: tuple[int, ...]
    most_migrations: int
    chunk_cores: int = 16
    apart: tuple[tuple[int, ...], ...] = ()
    """Groups of machines that must be on different hosts."""

    def __post_init__(self) -> None:
        if len(self.at) != len(self.machines) or any(not 0 <= host < len(self.hosts) for host in self.at):
            raise InvalidValue(message="every virtual machine needs an existing host")
        if self.chunk_cores < 1 or self.most_migrations < 0:
            raise InvalidValue(message=f"chunks of {self.chunk_cores} cores, {self.most_migrations} migrations")


def free_cores(instance: VirtualMachines, at: tuple[int, ...]) -> list[int]:
    """Return the free cores of every host."""
    free = [cores for cores, _ in instance.hosts]
    for (cores, _), host in zip(instance.machines, at, strict=True):
        free[host] -= cores
    return free


def fragments(instance: VirtualMachines, at: tuple[int, ...]) -> int:
    """Return the free cores that no machine of `chunk_cores` can use."""
    return sum(free % instance.chunk_cores for free in free_cores(instance, at))


def fragment_rate(instance: VirtualMachines, at: tuple[int, ...]) -> Fraction:
    """Return the share of free cores that are fragments (0 when nothing is free)."""
    return Fraction(fragments(instance, at), max(1, sum(free_cores(instance, at))))


def fragments_bound(instance: VirtualMachines) -> int:
    """Return a bound on the fragments, without search.

    A migration touches two hosts, so the hosts with the fewest fragments but twice the migrations keep theirs; and
    chunks come whole, so that all fragments together leave what all free cores leave.
    """
    chunk, free = instance.chunk_cores, free_cores(instance, instance.at)
    kept = sorted(cores % chunk for cores in free)[: max(0, len(free) - 2 * instance.most_migrations)]
    least = sum(kept)
    return least + (sum(free) - least) % chunk


def check(instance: VirtualMachines, at: tuple[int, ...]) -> list[Finding]:
    """Return why an assignment is not legal.

    Codes: TRD460 form, TRD461 capacity, TRD464 machines that must be apart, TRD467 too many migrations.
    """
    if len(at) != len(instance.machines) or any(not 0 <= host < len(instance.hosts) for host in at):
        return [Finding("TRD460", "assignment", "one existing host per virtual machine")]
    findings: list[Finding] = []
    for host, room in enumerate(instance.hosts):
        for d, name in enumerate(("cores", "memory")):
            used = sum(size[d] for size, where in zip(instance.machines, at, strict=True) if where == host)
            if used > room[d]:
                findings.append(Finding("TRD461", f"host {host}", f"{name} overfull", f"<= {room[d]}", str(used)))
    for group in instance.apart:
        if len({at[machine] for machine in group}) < len(group):
            findings.append(Finding("TRD464", f"machines {group}", "two of them share a host"))
    moved = sum(a != b for a, b in zip(at, instance.at, strict=True))
    if moved > instance.most_migrations:
        findings.append(
            Finding("TRD467", "assignment", "too many migrations", f"<= {instance.most_migrations}", str(moved))
        )
    return findings
