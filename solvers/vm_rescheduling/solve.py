"""Fewest fragments under a migration limit: CP-SAT on a variable per machine and host, large ones by a search."""

from __future__ import annotations

from dataclasses import dataclass

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.errors import InconsistentCluster
from treadle.ir.cluster.vm_rescheduling import VirtualMachines, check, fragments, fragments_bound
from treadle.solvers.backend import Limits, solve
from treadle.solvers.vm_rescheduling.search import add_host, search

_SMALL_CELLS, _MOST_CELLS = 500, 8_000
"""Machines times hosts: up to the first no search is needed, above the second the whole model is not built."""
_SEARCHED = 0.5
"""Share of the limit that the search gets in between."""


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
    floor, cells = fragments_bound(instance), len(instance.machines) * len(instance.hosts)
    share = 0.0 if cells <= _SMALL_CELLS else _SEARCHED if cells <= _MOST_CELLS else 1.0
    at = search(instance, floor, share * deterministic_s, seed)
    bound, evidence = floor, dict[str, object]()
    if fragments(instance, at) > floor and cells <= _MOST_CELLS:
        at, bound, evidence = _whole(instance, at, floor, Limits((1 - share) * deterministic_s, seed=seed))
    value = fragments(instance, at)
    status = Status.OPTIMAL if bound == value else Status.FEASIBLE
    proof = ProofKind.CAPACITY if bound == floor else ProofKind.SOLVER
    level = Level("fragments", "cores", value, bound, status, proof, {} if bound == floor else evidence)
    return Rescheduled(at, Certificate("vm-rescheduling", "fragments/1", (level,)))


def _whole(
    instance: VirtualMachines, at: tuple[int, ...], floor: int, limits: Limits
) -> tuple[tuple[int, ...], int, dict[str, object]]:
    """Solve the whole model from an assignment; return the best one, its bound, and the solver's report."""
    model = cp_model.CpModel()
    stands = [[model.new_bool_var("") for _ in instance.hosts] for _ in instance.machines]
    for row in stands:
        model.add_exactly_one(row)
    rest = [
        add_host(model, instance, host, {machine: row[host] for machine, row in enumerate(stands)})
        for host in range(len(instance.hosts))
    ]
    for group in instance.apart:
        for host in range(len(instance.hosts)):
            model.add_at_most_one([stands[machine][host] for machine in group])
    stays = [row[host] for row, host in zip(stands, instance.at, strict=True)]
    model.add(cp_model.LinearExpr.sum(stays) >= len(stays) - instance.most_migrations)
    model.add(cp_model.LinearExpr.sum(rest) >= floor)
    model.minimize(cp_model.LinearExpr.sum(rest))
    hint = [(v, int(host == now)) for row, now in zip(stands, at, strict=True) for host, v in enumerate(row)]
    outcome = solve(model, limits, hint=hint)
    if outcome.solved:
        found = tuple(next(host for host, v in enumerate(row) if outcome[v]) for row in stands)
        at = min(at, found, key=lambda one: fragments(instance, one))
    return at, max(floor, round(outcome.bound or 0.0)), outcome.report.evidence()
