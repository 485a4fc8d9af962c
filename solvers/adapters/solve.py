"""Adapters onto replicas: least relative peak load, then fewest moves, by CP-SAT from a greedy start."""

from __future__ import annotations

from fractions import Fraction

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.layout.adapters import (
    Adapter,
    AdaptersPlan,
    AdaptersProblem,
    Replica,
    load_bound,
    relative_loads,
)
from treadle.ir.layout.errors import DoesNotFit
from treadle.solvers.backend import Limits, Outcome, solve

_STEPS = 1_000_000
"""Resolution of loads inside the solver: the total relative load in steps."""


def solve_adapters(problem: AdaptersProblem, limits: Limits | None = None) -> tuple[AdaptersPlan, Certificate]:
    """Return homes of least peak load, then fewest moves; raises DoesNotFit when slots or memory cannot hold them."""
    limits = limits or Limits(deterministic_s=2.0)
    slots = sum(replica.slots for replica in problem.replicas)
    if slots < len(problem.adapters):
        raise DoesNotFit(need=len(problem.adapters), unit="slots", where="in total", capacity=slots)
    loads = _Model(problem)
    outcome = solve(loads.model, limits, hint=loads.greedy_hint())
    if outcome.status is Status.INFEASIBLE:
        raise DoesNotFit(
            need="more", unit="slots or bytes", where="(no assignment fits every replica)", capacity="too small"
        )
    if not outcome.solved:
        raise DoesNotFit(need="unknown", unit="slots", where="(search limit reached)", capacity=slots)
    plan = loads.plan(outcome)
    moved = loads.fewest_moves(outcome, limits)
    if moved is not None and max(relative_loads(moved)) <= max(relative_loads(plan)):
        plan = moved
    return plan, certificate_of(plan)


def certificate_of(plan: AdaptersPlan) -> Certificate:
    """State the peak load against its bound, and the moves against zero."""
    value = max(relative_loads(plan))
    bound, proof, argument = load_bound(plan.problem)
    closed = Status.OPTIMAL if float(value) == float(bound) else Status.FEASIBLE
    evidence = {"argument": argument}
    peak = Level("peak load", "load", float(value), min(float(bound), float(value)), closed, proof, evidence)
    still = Status.OPTIMAL if plan.moves == 0 else Status.FEASIBLE
    moves = Level("moves", "adapters", plan.moves, 0, still, ProofKind.COUNT)
    return Certificate("adapters", "adapter loads as given, each on one replica", (peak, moves))


class _Model:
    """One binary per adapter and replica, and the peak in steps."""

    def __init__(self, problem: AdaptersProblem) -> None:
        self.problem = problem
        self.model = cp_model.CpModel()
        self.on = [
            [self.model.new_bool_var(f"{adapter.name}@{replica.name}") for replica in problem.replicas]
            for adapter in problem.adapters
        ]
        total = sum((Fraction(adapter.load) for adapter in problem.adapters), Fraction(0)) or Fraction(1)
        self.peak = self.model.new_int_var(0, 1 << 50, "peak")
        for row in self.on:
            self.model.add_exactly_one(row)
        for position, replica in enumerate(problem.replicas):
            column = [row[position] for row in self.on]
            steps = [
                int(Fraction(adapter.load) * _STEPS / total / Fraction(replica.speed)) for adapter in problem.adapters
            ]
            self.model.add(sum(step * one for step, one in zip(steps, column, strict=True)) <= self.peak)
            self.model.add(sum(column) <= replica.slots)
            if problem.held_bytes(problem.adapters) > replica.memory_bytes:
                self._limit_memory(replica, column)
        self.model.minimize(self.peak)

    def _limit_memory(self, replica: Replica, column: list[cp_model.IntVar]) -> None:
        """A shared block is there as soon as one of its adapters is."""
        used = [size * one for size, one in zip(self._own_bytes(), column, strict=True)]
        for block in self.problem.blocks:
            there = self.model.new_bool_var(f"{block.name} on {replica.name}")
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

    def greedy_hint(self) -> list[tuple[cp_model.IntVar, int]]:
        """Heaviest adapter first, on the replica that stays least loaded among those with room."""
        replicas = self.problem.replicas
        load, free = [Fraction(0)] * len(replicas), [replica.slots for replica in replicas]
        held: list[list[Adapter]] = [[] for _ in replicas]
        hint: list[tuple[cp_model.IntVar, int]] = []
        order = sorted(range(len(self.on)), key=lambda a: (-self.problem.adapters[a].load, a))
        for index in order:
            adapter = self.problem.adapters[index]
            room = [
                g
                for g, replica in enumerate(replicas)
                if free[g] and self.problem.held_bytes((*held[g], adapter)) <= replica.memory_bytes
            ]
            if not room:
                return []
            home = min(room, key=lambda g: (load[g] + Fraction(adapter.load)) / Fraction(replicas[g].speed))
            load[home] += Fraction(adapter.load)
            free[home] -= 1
            held[home].append(adapter)
            hint += [(one, int(g == home)) for g, one in enumerate(self.on[index])]
        return hint

    def fewest_moves(self, outcome: Outcome, limits: Limits) -> AdaptersPlan | None:
        """Keep the peak, minimise moves."""
        names = [replica.name for replica in self.problem.replicas]
        stays = [
            row[names.index(adapter.current)]
            for adapter, row in zip(self.problem.adapters, self.on, strict=True)
            if adapter.current in names
        ]
        if not stays:
            return None
        self.model.add(self.peak <= outcome[self.peak])
        self.model.maximize(sum(stays))
        hint = [(one, outcome[one]) for row in self.on for one in row]
        second = solve(self.model, limits, hint=hint)
        return self.plan(second) if second.solved else None
