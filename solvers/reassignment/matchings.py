"""Matchings: one process leaves every machine, and all find their machines anew at once, by least-cost assignment.

What leaves is chosen at random; where nothing leaves, one may come in. So a step ranges over all cyclic exchanges and
all chains of shifts among these processes (a very large neighbourhood in the sense of Ahuja et al., 2002), and keeps
every rule: against what stays, each place is open to a process or not, whatever the others do. What the others do is
looked at afterwards: spread, and processes that stay after all where what they need has left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treadle.ir.cluster.reassignment import Reassignment
from treadle.solvers.assignment import least_cost_assignment
from treadle.solvers.reassignment.state import Flags, Integers, State

_MOST_MACHINES = 100
_IDLE = (0.0, 0.1, 0.3, 0.5)
"""Shares of machines that nothing leaves, drawn per step."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """Rows of a matching: `process` (-1: none) leaves `machine`; needs, service and home of each."""

    machine: Integers
    process: Integers
    need: Integers
    service: Integers
    home: Integers

    @property
    def real(self) -> Flags:
        """Rows with a process."""
        found: Flags = self.process >= 0
        return found


class Matchings:
    """Improves or anneals a state in place; `step` returns the change of cost."""

    def __init__(self, instance: Reassignment, state: State, random: np.random.Generator) -> None:
        self.instance = instance
        self.state = state
        self.random = random
        self.users = np.zeros((len(instance.services),) * 2, dtype=np.float32)
        """(service, service it depends on)"""
        for user, service in enumerate(instance.services):
            self.users[user, list(service.depends_on)] = 1

    def step(self, temperature: float) -> int:
        """Match once, with Gumbel noise of a temperature on the costs; return the change of the whole cost."""
        leaving = self._leaving()
        here = self.state.used[leaving.machine] - leaving.need
        costs = self.state.machine_cost(here[None] + leaving.need[:, None], leaving.machine[None])
        costs = costs + self._move_costs(leaving)
        noisy = costs
        if temperature > 0:
            noisy = costs - np.floor(temperature * np.log(self.random.random(costs.shape) + 1e-300)).astype(np.int64)
        target = least_cost_assignment(noisy, self._open(leaving))
        rows = np.arange(len(target))
        change = int((costs[rows, target] - costs[rows, rows]).sum())
        return self._carry_out(leaving, target, change) if change <= temperature else 0

    def _leaving(self) -> Leaving:
        """Choose machines, and a process (or none) that leaves each."""
        state = self.state
        order = self.random.permutation(len(state.at))
        chosen = np.full(len(state.capacity), -1, dtype=np.int64)
        chosen[state.at[order]] = order
        chosen[self.random.random(len(chosen)) < self.random.choice(_IDLE)] = -1
        machines = np.arange(len(chosen))
        if len(machines) > _MOST_MACHINES:
            machines = np.sort(self.random.choice(machines, _MOST_MACHINES, replace=False))
        process = chosen[machines]
        real = process >= 0
        need = np.where(real[:, None], state.need[process], 0)
        return Leaving(
            machines,
            process,
            need,
            np.where(real, state.service[process], -1),
            np.where(real, state.initial[process], -1),
        )

    def _move_costs(self, leaving: Leaving) -> Integers:
        """Return (row, place) what it costs to have a process away from home."""
        state, real = self.state, leaving.real
        away = leaving.home[:, None] != leaving.machine[None]
        prices = state.machine_move[np.ix_(leaving.home, leaving.machine)]
        found: Integers = np.where(real[:, None], prices + state.process_move[leaving.process][:, None] * away, 0)
        return found

    def _open(self, leaving: Leaving) -> Flags:
        """Return (row, place) where capacity, conflicts and dependencies allow a process; each row's own is open."""
        state, real = self.state, leaving.real
        at_home = leaving.home[:, None] == leaving.machine[None]
        kept = leaving.need * ~state.transient
        held = state.held[leaving.machine] - np.where(np.diagonal(at_home)[:, None], kept, leaving.need)
        coming = np.where(at_home[:, :, None], kept[:, None], leaving.need[:, None])
        found: Flags = np.all(held[None] + coming <= state.capacity[leaving.machine][None], axis=2)
        services = leaving.service[real]
        on_machine = state.on_machine[np.ix_(services, leaving.machine)]
        twins = services[:, None] == leaving.service[None]
        found[real] &= on_machine - twins == 0
        self._keep_dependencies(leaving, found)
        np.fill_diagonal(found, val=True)
        return found

    def _keep_dependencies(self, leaving: Leaving, found: Flags) -> None:
        """Close places where what a service needs has left, and keep what others need for its own kind."""
        state, real = self.state, leaving.real
        hoods, services = state.neighborhood[leaving.machine], leaving.service[real]
        left = state.in_neighborhood.copy()
        np.subtract.at(left, (services, hoods[real]), 1)
        missing: Flags = np.asarray(self.users[services] @ (left == 0).astype(np.float32) > 0)
        found[real] &= ~missing[:, hoods]
        alone = left[services, hoods[real]] == 0
        asked = ((self.users[:, services].T > 0) & (left[:, hoods[real]].T > 0)).any(axis=1)
        for row in np.flatnonzero(real)[alone & asked].tolist():
            found[:, row] &= leaving.service == leaving.service[row]

    def _carry_out(self, leaving: Leaving, target: NDArray[np.int64], change: int) -> int:
        state = self.state
        moves = [
            (int(leaving.process[row]), int(leaving.machine[row]), int(leaving.machine[target[row]]))
            for row in np.flatnonzero(leaving.real & (target != np.arange(len(target)))).tolist()
        ]
        before = int(state.moved.max(initial=0))
        for process, _, machine in moves:
            state.shift(process, machine)
        if not all(self._keeps_rules(int(state.service[process]), machine) for process, machine, _ in moves):
            for process, machine, _ in moves:
                state.shift(process, machine)
            return 0
        return change + (int(state.moved.max(initial=0)) - before) * self.instance.service_move_weight

    def _keeps_rules(self, service: int, machine: int) -> bool:
        """Whether a service that has left a machine is spread enough, and nothing there misses it."""
        state = self.state
        hood = state.neighborhood[machine]
        spread = (state.in_location[service] > 0).sum() >= state.spread[service]
        missed = not state.in_neighborhood[service, hood] and any(
            state.in_neighborhood[user, hood] for user in state.needed_by[service]
        )
        return bool(spread) and not missed
