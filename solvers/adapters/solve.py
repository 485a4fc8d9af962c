"""Adapters onto replicas: least relative peak load, then fewest moves, by exchanges and by CP-SAT from there."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.layout.adapters import (
    AdaptersPlan,
    AdaptersProblem,
    Replica,
    least_moves,
    load_bound,
    relative_loads,
)
from treadle.ir.layout.errors import DoesNotFit
from treadle.solvers.adapters.exchange import exchanged
from treadle.solvers.backend import Limits, Outcome, solve

_STEPS = 1_000_000
"""Resolution of loads inside the solver: the total relative load in steps."""


def solve_adapters(problem: AdaptersProblem, limits: Limits | None = None) -> tuple[AdaptersPlan, Certificate]:
    """Return homes of least peak load, then fewest moves; raises DoesNotFit when slots or memory cannot hold them."""
    limits = limits or Limits(deterministic_s=2.0)
    slots = sum(replica.slots for replica in problem.replicas)
    if slots < len(problem.adapters):
        raise DoesNotFit(need=len(problem.adapters), unit="slots", where="in total", capacity=slots)
    start = exchanged(problem)
    if start is None or not _proven(start):
        start = _lower_peak(problem, start, limits, slots)
    if not start.moves or start.moves == least_moves(problem, max(relative_loads(start))):
        return start, certificate_of(start)
    moved = _Model(problem, max(relative_loads(start))).fewest_moves(start, limits)
    plan = start if moved is None else min(start, moved, key=lambda one: (max(relative_loads(one)), one.moves))
    return plan, certificate_of(plan)


def _proven(plan: AdaptersPlan) -> bool:
    return max(relative_loads(plan)) == load_bound(plan.problem)[0]


def _lower_peak(problem: AdaptersProblem, start: AdaptersPlan | None, limits: Limits, slots: int) -> AdaptersPlan:
    """Search for a lower peak than the start's, or for any homes where there is no start."""
    loads = _Model(problem)
    outcome = solve(loads.model, limits, hint=loads.hint(start))
    if outcome.status is Status.INFEASIBLE:
        raise DoesNotFit(
            need="more", unit="slots or bytes", where="(no assignment fits every replica)", capacity="too small"
        )
    found = loads.plan(outcome) if outcome.solved else None
    if found is None and start is None:
        raise DoesNotFit(need="unknown", unit="slots", where="(search limit reached)", capacity=slots)
    return min((one for one in (start, found) if one is not None), key=lambda one: max(relative_loads(one)))


def certificate_of(plan: AdaptersPlan) -> Certificate:
    """State the peak load against its bound, and the moves against zero."""
    value = max(relative_loads(plan))
    bound, proof, argument = load_bound(plan.problem)
    closed = Status.OPTIMAL if float(value) == float(bound) else Status.FEASIBLE
    evidence = {"argument": argument}
    peak = Level("peak load", "load", float(value), min(float(bound), float(value)), closed, proof, evidence)
    least = least_moves(plan.problem, value)
    still = Status.OPTIMAL if plan.moves == least else Status.FEASIBLE
    moves = Level("moves", "adapters", plan.moves, least, still, ProofKind.COUNT)
    return Certificate("adapters", "adapter loads as given, each on one replica", (peak, moves))


class _Model:
    """One binary per adapter and replica, and the peak in steps; or a peak that may not be exceeded."""

    def __init__(self, problem: AdaptersProblem, most: Fraction | None = None) -> None:
        self.problem = problem
        self.there: dict[tuple[str, int], cp_model.IntVar] = {}
        self.model = cp_model.CpModel()
        self.on = [
            [self.model.new_bool_var(f"{adapter.name}@{replica.name}") for replica in problem.replicas]
            for adapter in problem.adapters
        ]
        total = sum((Fraction(adapter.load) for adapter in problem.adapters), Fraction(0)) or Fraction(1)
        self.scale = _STEPS / total
        self.peak = self.model.new_int_var(0, 1 << 50 if most is None else floor(most * self.scale), "peak")
        for row in self.on:
            self.model.add_exactly_one(row)
        for position, replica in enumerate(problem.replicas):
            column = [row[position] for row in self.on]
            steps = [int(Fraction(adapter.load) * self.scale / Fraction(replica.speed)) for adapter in problem.adapters]
            self.model.add(sum(step * one for step, one in zip(steps, column, strict=True)) <= self.peak)
            self.model.add(sum(column) <= replica.slots)
            if problem.held_bytes(problem.adapters) > replica.memory_bytes:
                self._limit_memory(position, replica, column)
        self.model.minimize(self.peak)

    def _limit_memory(self, position: int, replica: Replica, column: list[cp_model.IntVar]) -> None:
        """A shared block is there as soon as one of its adapters is."""
        used = [size * one for size, one in zip(self._own_bytes(), column, strict=True)]
        for block in self.problem.blocks:
            there = self.there[block.name, position] = self.model.new_bool_var(f"{block.name} on {replica.name}")
            for adapter, one in zip(self.problem.adapters, column, strict=True):
                if block.name in adapter.blocks:
                    self.model.add_implication(one, there)
            used.append(block.memory_bytes * there)
        self.model.add(sum(used) <= replica.memory_bytes)

    def _own_bytes(self) -> list[int]:
        return [adapter.memory_bytes for adapter in self.problem.adapters]

    def plan(self, outcome: Outcome) -> AdaptersPlan:
        """Read the homes out of a solution."""
        homes = tuple(next(g for g, one in enumerate(row) if outcome[one]) for row in self.on)
        return AdaptersPlan(self.problem, homes)

    def hint(self, plan: AdaptersPlan | None) -> list[tuple[cp_model.IntVar, int]]:
        """Return all variables as a plan has them."""
        if plan is None:
            return []
        hint = [
            (one, int(g == home)) for row, home in zip(self.on, plan.homes, strict=True) for g, one in enumerate(row)
        ]
        for (name, position), there in self.there.items():
            pairs = zip(self.problem.adapters, plan.homes, strict=True)
            hint.append((there, int(any(home == position and name in adapter.blocks for adapter, home in pairs))))
        return [*hint, (self.peak, floor(max(relative_loads(plan)) * self.scale))]

    def fewest_moves(self, start: AdaptersPlan, limits: Limits) -> AdaptersPlan | None:
        """Minimise moves under the model's peak."""
        names = [replica.name for replica in self.problem.replicas]
        stays = [
            row[names.index(adapter.current)]
            for adapter, row in zip(self.problem.adapters, self.on, strict=True)
            if adapter.current in names
        ]
        self.model.maximize(sum(stays))
        second = solve(self.model, limits, hint=self.hint(start))
        return self.plan(second) if second.solved else None
