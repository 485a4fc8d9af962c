"""Fewest fragments under a migration limit: CP-SAT on one variable per machine and host."""

from __future__ import annotations

from dataclasses import dataclass

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.errors import InconsistentCluster
from treadle.ir.cluster.vm_rescheduling import VirtualMachines, check, fragments
from treadle.solvers.backend import Limits, solve


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """The host of every virtual machine, and how good that is."""

    at: tuple[int, ...]
    certificate: Certificate


def reschedule_vms(instance: VirtualMachines, deterministic_s: float = 10.0, seed: int = 0) -> Rescheduled:
    """Return an assignment with few fragments, never worse than the current one.

    Raises:
        InconsistentCluster: the current assignment is not legal.
    """
    if findings := check(instance, instance.at):
        raise InconsistentCluster(message=f"the current assignment is not legal: {findings[0]}")
    model = cp_model.CpModel()
    stands = [[model.new_bool_var("") for _ in instance.hosts] for _ in instance.machines]
    for row in stands:
        model.add_exactly_one(row)
    rest = [_add_host(model, instance, host, stands) for host in range(len(instance.hosts))]
    for group in instance.apart:
        for host in range(len(instance.hosts)):
            model.add_at_most_one([stands[machine][host] for machine in group])
    stays = [row[host] for row, host in zip(stands, instance.at, strict=True)]
    model.add(cp_model.LinearExpr.sum(stays) >= len(stays) - instance.most_migrations)
    floor = _floor(instance)
    model.add(cp_model.LinearExpr.sum(rest) >= floor)
    model.minimize(cp_model.LinearExpr.sum(rest))
    hint = [(v, int(host == now)) for row, now in zip(stands, instance.at, strict=True) for host, v in enumerate(row)]
    outcome = solve(model, Limits(deterministic_s, seed=seed), hint=hint)
    at = instance.at
    if outcome.solved:
        at = tuple(next(host for host, v in enumerate(row) if outcome[v]) for row in stands)
    value = fragments(instance, at)
    proven = max(floor, round(outcome.bound or 0.0))
    status = Status.OPTIMAL if proven == value else Status.FEASIBLE
    proof = ProofKind.CAPACITY if proven == floor else ProofKind.SOLVER
    evidence = {} if proven == floor else outcome.report.evidence()
    level = Level("fragments", "cores", value, proven, status, proof, evidence)
    return Rescheduled(at, Certificate("vm-rescheduling", "fragments/1", (level,)))


def _floor(instance: VirtualMachines) -> int:
    """Return a bound without search: chunks come whole, so all free cores together leave at least their remainder."""
    free = sum(cores for cores, _ in instance.hosts) - sum(cores for cores, _ in instance.machines)
    return free % instance.chunk_cores


def _add_host(
    model: cp_model.CpModel, instance: VirtualMachines, host: int, stands: list[list[cp_model.IntVar]]
) -> cp_model.IntVar:
    """Add a host's capacities; return its fragments."""
    cores, memory = instance.hosts[host]
    here = [row[host] for row in stands]
    used = cp_model.LinearExpr.weighted_sum(here, [size for size, _ in instance.machines])
    model.add(used <= cores)
    model.add(cp_model.LinearExpr.weighted_sum(here, [size for _, size in instance.machines]) <= memory)
    chunks = model.new_int_var(0, cores // instance.chunk_cores, "")
    rest = model.new_int_var(0, instance.chunk_cores - 1, "")
    model.add(used + instance.chunk_cores * chunks + rest == cores)
    return rest
