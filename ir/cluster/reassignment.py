"""Machine reassignment (ROADEF/EURO challenge 2012): the problem, what makes an assignment legal, and its cost.

Names follow the challenge's subject (Google, "Machine reassignment problem", 2012).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine: where it is, what it has, from where on its load costs, and what moving away from it costs."""

    neighborhood: int
    location: int
    capacity: tuple[int, ...]
    safety_capacity: tuple[int, ...]
    move_cost: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """Processes of one service run on different machines, in at least `spread` locations, near those it depends on."""

    spread: int
    depends_on: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a service, what it needs, and what moving it costs."""

    service: int
    requirement: tuple[int, ...]
    move_cost: int


@dataclass(frozen=True, slots=True)
class Balance:
    """What is free of `second` should be at least `target` times what is free of `first`, on every machine."""

    first: int
    second: int
    target: int
    weight: int


@dataclass(frozen=True, slots=True)
class Reassignment:
    """An instance. `transient[r]`: the old machine of a moved process holds resource r too."""

    transient: tuple[bool, ...]
    load_weights: tuple[int, ...]
    machines: tuple[Machine, ...]
    services: tuple[Service, ...]
    processes: tuple[Process, ...]
    balances: tuple[Balance, ...]
    process_move_weight: int
    service_move_weight: int
    machine_move_weight: int
    initial: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.initial) != len(self.processes):
            raise InvalidValue(message=f"{len(self.initial)} machines for {len(self.processes)} processes")
        if any(not 0 <= machine < len(self.machines) for machine in self.initial):
            raise InvalidValue(message="the initial assignment names a machine that does not exist")


@dataclass(frozen=True, slots=True)
class ReassignmentBody:
    """The body of a plan of kind `reassignment`."""

    instance: Reassignment
    assignment: tuple[int, ...]


Usage = list[list[int]]
"""(machines, resources)"""


def usage(instance: Reassignment, assignment: tuple[int, ...], *, held: bool = False) -> Usage:
    """Return what every machine gives; with `held`, also what moved processes still hold of transient resources."""
    used = [[0] * len(instance.transient) for _ in instance.machines]
    for process, machine, before in zip(instance.processes, assignment, instance.initial, strict=True):
        for r, amount in enumerate(process.requirement):
            used[machine][r] += amount
            if held and before != machine and instance.transient[r]:
                used[before][r] += amount
    return used


def check(instance: Reassignment, assignment: tuple[int, ...]) -> list[Finding]:
    """Return every reason why the assignment is not legal.

    Codes: TRD460 form, TRD461 capacity (transient use included), TRD464 conflict, TRD465 spread, TRD463 dependency.
    """
    machines = instance.machines
    if len(assignment) != len(instance.processes) or any(not 0 <= m < len(machines) for m in assignment):
        return [Finding("TRD460", "assignment", "one existing machine per process")]
    findings = [
        Finding("TRD461", f"machine {m}", f"resource {r} is overfull", f"<= {machines[m].capacity[r]}", str(amount))
        for m, row in enumerate(usage(instance, assignment, held=True))
        for r, amount in enumerate(row)
        if amount > machines[m].capacity[r]
    ]
    homes: dict[int, list[int]] = defaultdict(list)
    for process, machine in zip(instance.processes, assignment, strict=True):
        homes[process.service].append(machine)
    for service, at in sorted(homes.items()):
        findings += _check_service(instance, service, at, homes)
    return findings


def _check_service(instance: Reassignment, service: int, at: list[int], homes: dict[int, list[int]]) -> list[Finding]:
    findings: list[Finding] = []
    machines, where = instance.machines, f"service {service}"
    if len(set(at)) < len(at):
        findings.append(Finding("TRD464", where, "two of its processes share a machine"))
    locations = len({machines[m].location for m in at})
    if locations < instance.services[service].spread:
        expected = f">= {instance.services[service].spread}"
        findings.append(Finding("TRD465", where, "too few locations", expected, str(locations)))
    for needed in instance.services[service].depends_on:
        near = {machines[m].neighborhood for m in homes[needed]}
        if any(machines[m].neighborhood not in near for m in at):
            findings.append(Finding("TRD463", where, f"a process is not near service {needed}"))
    return findings


def cost(instance: Reassignment, assignment: tuple[int, ...]) -> int:
    """Return the challenge's total cost: load, balance, process moves, service moves, machine moves."""
    used = usage(instance, assignment)
    total = 0
    for machine, row in zip(instance.machines, used, strict=True):
        for r, weight in enumerate(instance.load_weights):
            total += weight * max(0, row[r] - machine.safety_capacity[r])
        free = [capacity - amount for capacity, amount in zip(machine.capacity, row, strict=True)]
        for balance in instance.balances:
            total += balance.weight * max(0, balance.target * free[balance.first] - free[balance.second])
    moved: Counter[int] = Counter()
    for process, now, before in zip(instance.processes, assignment, instance.initial, strict=True):
        if now != before:
            moved[process.service] += 1
            total += instance.process_move_weight * process.move_cost
            total += instance.machine_move_weight * instance.machines[before].move_cost[now]
    return total + instance.service_move_weight * max(moved.values(), default=0)


def volume_bound(instance: Reassignment) -> int:
    """Return a bound on the cost: load and balance of all machines together, as if they were one (both are convex)."""
    total = 0
    asked = [sum(p.requirement[r] for p in instance.processes) for r in range(len(instance.transient))]
    safe = [sum(m.safety_capacity[r] for m in instance.machines) for r in range(len(asked))]
    free = [sum(m.capacity[r] for m in instance.machines) - amount for r, amount in enumerate(asked)]
    for r, weight in enumerate(instance.load_weights):
        total += weight * max(0, asked[r] - safe[r])
    for balance in instance.balances:
        total += balance.weight * max(0, balance.target * free[balance.first] - free[balance.second])
    return total
