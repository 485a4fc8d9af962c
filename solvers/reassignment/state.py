"""An assignment as arrays, with the change of cost of every shift and every swap of a process at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from treadle.ir.cluster.reassignment import Reassignment

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class State:
    """Where every process runs, what every machine holds, and how many of a service are where."""

    def __init__(self, instance: Reassignment) -> None:
        machines, processes = instance.machines, instance.processes
        self.instance = instance
        self.capacity = np.array([m.capacity for m in machines], dtype=np.int64)
        self.safety = np.array([m.safety_capacity for m in machines], dtype=np.int64)
        self.location = np.array([m.location for m in machines])
        self.neighborhood = np.array([m.neighborhood for m in machines])
        self.machine_move = np.array([m.move_cost for m in machines], dtype=np.int64) * instance.machine_move_weight
        self.need = np.array([p.requirement for p in processes], dtype=np.int64)
        self.service = np.array([p.service for p in processes])
        self.process_move = np.array([p.move_cost for p in processes], dtype=np.int64) * instance.process_move_weight
        self.load_weights = np.array(instance.load_weights, dtype=np.int64)
        self.transient = np.array(instance.transient, dtype=bool)
        self.initial = np.array(instance.initial, dtype=np.int64)
        self.at = self.initial.copy()
        services = len(instance.services)
        self.on_machine = np.zeros((services, len(machines)), dtype=np.int64)
        self.in_location = np.zeros((services, int(self.location.max()) + 1), dtype=np.int64)
        self.in_neighborhood = np.zeros((services, int(self.neighborhood.max()) + 1), dtype=np.int64)
        self.used = np.zeros_like(self.capacity)
        for process in range(len(processes)):
            self._count(process, int(self.at[process]), 1)
        self.held = self.used.copy()
        self.moved = np.zeros(services, dtype=np.int64)
        self.needed_by: list[list[int]] = [[] for _ in range(services)]
        for index, service in enumerate(instance.services):
            for needed in service.depends_on:
                self.needed_by[needed].append(index)
        self.spread = np.array([s.spread for s in instance.services])

    def _count(self, process: int, machine: int, change: int) -> None:
        service = self.service[process]
        self.used[machine] += change * self.need[process]
        self.on_machine[service, machine] += change
        self.in_location[service, self.location[machine]] += change
        self.in_neighborhood[service, self.neighborhood[machine]] += change

    def shift(self, process: int, target: int) -> None:
        """Move a process."""
        source, home = int(self.at[process]), int(self.initial[process])
        need = self.need[process]
        self._count(process, source, -1)
        self._count(process, target, 1)
        self.held[source] -= need * (~self.transient if source == home else True)
        self.held[target] += need * (~self.transient if target == home else True)
        self.moved[self.service[process]] += int(target != home) - int(source != home)
        self.at[process] = target

    def machine_cost(self, used: Integers, machines: Integers | slice) -> Integers:
        """Return load and balance cost of machines at a usage of shape (..., resources)."""
        over = np.maximum(used - self.safety[machines], 0)
        total: Integers = over @ self.load_weights
        free = self.capacity[machines] - used
        for balance in self.instance.balances:
            gap = balance.target * free[..., balance.first] - free[..., balance.second]
            total = total + balance.weight * np.maximum(gap, 0)
        return total

    def move_cost(self, process: int, machines: Integers | slice = slice(None)) -> Integers:
        """Return process and machine move cost of having the process on machines."""
        home = self.initial[process]
        targets = np.arange(len(self.capacity))[machines]
        cost: Integers = self.machine_move[home, machines] + self.process_move[process] * (targets != home)
        return cost

    def shift_deltas(self, process: int) -> tuple[Integers, Flags]:
        """Return the change of cost for every target (service moves aside), and which targets are legal."""
        source, need, home = int(self.at[process]), self.need[process], int(self.initial[process])
        now = self.machine_cost(self.used, slice(None))
        gain = self.machine_cost(self.used[source] - need, np.array(source)) - now[source]
        delta = self.machine_cost(self.used + need, slice(None)) - now + gain
        prices = self.move_cost(process)
        delta = delta + prices - prices[source]
        room = self.held + need
        room[home] -= need * self.transient if source != home else 0
        legal = (room <= self.capacity).all(axis=1) & (self.on_machine[self.service[process]] == 0)
        legal &= self.placing(process)
        legal[source] = False
        return delta, legal

    def placing(self, process: int) -> Flags:
        """Return the machines where spread and dependencies allow the process."""
        service, source = int(self.service[process]), int(self.at[process])
        counts = self.in_location[service].copy()
        counts[self.location[source]] -= 1
        distinct = int((counts > 0).sum())
        legal: Flags = distinct + (counts[self.location] == 0) >= self.spread[service]
        for needed in self.instance.services[service].depends_on:
            legal &= self.in_neighborhood[needed][self.neighborhood] > 0
        here = int(self.neighborhood[source])
        if self.in_neighborhood[service, here] == 1 and any(
            self.in_neighborhood[user, here] for user in self.needed_by[service]
        ):
            legal &= self.neighborhood == here
        return legal

    def swap_deltas(self, process: int, others: Integers) -> tuple[Integers, Flags]:
        """Return the change of cost of swapping machines with others (service moves aside), and which swaps fit.

        Spread and dependencies of the others are not looked at here: `swap` finds out.
        """
        source, need, home = int(self.at[process]), self.need[process], int(self.initial[process])
        targets, needs, homes = self.at[others], self.need[others], self.initial[others]
        now = self.machine_cost(self.used, slice(None))
        here = self.used[source] - need + needs
        there = self.used[targets] + need - needs
        delta = (
            self.machine_cost(here, np.array(source)) - now[source] + self.machine_cost(there, targets) - now[targets]
        )
        prices = self.move_cost(process)
        delta = delta + prices[targets] - prices[source]
        delta = delta + self.machine_move[homes, source] - self.machine_move[homes, targets]
        delta = delta + self.process_move[others] * ((source != homes) * 1 - (targets != homes))
        keep = self.transient
        here_held = self.held[source] - need * (~keep if source == home else True)
        here_held = here_held + np.where((homes == source)[:, None], needs * ~keep, needs)
        there_held = self.held[targets] - np.where((homes == targets)[:, None], needs * ~keep, needs)
        there_held = there_held + np.where((targets == home)[:, None], need * ~keep, need)
        fits = (here_held <= self.capacity[source]).all(axis=1) & (there_held <= self.capacity[targets]).all(axis=1)
        twins = self.service[others] == self.service[process]
        apart = (self.on_machine[self.service[process], targets] == 0) & self.placing(process)[targets]
        apart &= self.on_machine[self.service[others], source] == 0
        fits &= (targets != source) & (twins | apart)
        return delta, fits

    def swap(self, process: int, other: int) -> bool:
        """Swap two processes if every rule between services holds; return whether they were."""
        source, target = int(self.at[process]), int(self.at[other])
        self.shift(process, target)
        if self.service[process] == self.service[other] or self.placing(other)[source]:
            self.shift(other, source)
            return True
        self.shift(process, source)
        return False
