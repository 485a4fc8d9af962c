"""Large neighbourhood search: a few machines set free at a time, chosen where load is badly spread."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from treadle.ir.cluster.reassignment import Reassignment, cost
from treadle.solvers.reassignment.neighbourhoods import Neighbourhood
from treadle.solvers.reassignment.state import State

_MOST_FREE = 160
_SIZES = (2, 3, 4, 6, 8)
_SECONDS = {2: 0.3, 3: 0.3, 4: 0.4, 6: 0.6, 8: 0.9}
_FORGET = 0.9
_EXPLORE = 0.03
"""Weight of a size that has gained nothing lately."""
_OVERHEAD_S = 0.01
"""Seconds per neighbourhood beside its solve."""


class Improvement:
    """Improves an assignment in place; `step` sets some machines free once."""

    def __init__(
        self,
        instance: Reassignment,
        start: tuple[int, ...],
        seed: int,
        wall_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.instance = instance
        self.at = list(start)
        self.value = cost(instance, start)
        self.random = random.Random(seed)
        self.seed = seed
        self.wall_s = wall_s
        self.state = State(instance)
        for process, machine in enumerate(start):
            if machine != self.state.at[process]:
                self.state.shift(process, machine)
        count = len(instance.machines)
        self.sizes = [size for size in _SIZES if size <= count] or [count]
        self.merit = dict.fromkeys(self.sizes, 1.0)
        """Recent gain per second of neighbourhoods by size, relative to the best size."""
        self.seconds = {size: _SECONDS.get(size, 1.0) / 3 for size in self.sizes}
        """Seconds a neighbourhood takes, by size: a share of time follows merit, not a share of tries."""
        self.version = [0] * count
        """How often each machine has changed."""
        self.closed: set[tuple[tuple[int, int], ...]] = set()
        """Machines, as they stood, among which nothing better exists."""

    def run(self, left: Callable[[], bool], progress: Callable[[str], None]) -> tuple[int, ...]:
        """Improve until `left` says no; return the assignment."""
        while left():
            before = self.value
            self.step()
            if self.value < before:
                progress(f"cost {self.value}")
        return tuple(self.at)

    def step(self) -> None:
        """Set some machines free, and take over what is not worse."""
        weights = [(_EXPLORE + self.merit[s]) / self.seconds[s] for s in self.sizes]
        size = self.random.choices(self.sizes, weights)[0]
        machines = self._machines(size)
        key = tuple((machine, self.version[machine]) for machine in sorted(machines))
        if key in self.closed:
            return
        free = [process for process, machine in enumerate(self.at) if machine in machines]
        everything = len(free) <= _MOST_FREE
        if not everything:
            free = self.random.sample(free, _MOST_FREE)
        self.seed += 1
        neighbourhood = Neighbourhood(self.instance, self.at, machines, free)
        found = neighbourhood.solve(_SECONDS.get(size, 1.0), self.seed, self.wall_s())
        before = self.value
        if found is not None:
            self._take(found)
        if neighbourhood.closed and everything:
            self.closed.add(tuple((machine, self.version[machine]) for machine in sorted(machines)))
        spent_s = neighbourhood.spent_s + _OVERHEAD_S
        self.seconds[size] = _FORGET * self.seconds[size] + (1 - _FORGET) * spent_s
        rate = (before - self.value) / spent_s / max(1.0, 1e-3 * self.value)
        self.merit[size] = _FORGET * self.merit[size] + (1 - _FORGET) * min(1.0, rate)

    def _take(self, found: dict[int, int]) -> None:
        candidate = list(self.at)
        for process, machine in found.items():
            candidate[process] = machine
        value = cost(self.instance, tuple(candidate))
        if value > self.value:
            return
        for process, machine in found.items():
            if machine != self.state.at[process]:
                self.version[machine] += 1
                self.version[int(self.state.at[process])] += 1
                self.state.shift(process, machine)
        self.at, self.value = candidate, value

    def _machines(self, size: int) -> set[int]:
        """Return machines: one or more where safe capacity lies idle or load is dear, the others at random."""
        state = self.state
        everyone = range(len(self.instance.machines))
        if self.random.random() < 0.5:
            merit = np.maximum(state.safety - state.used, 0) @ state.load_weights
        else:
            merit = state.machine_cost(state.used, slice(None))
        weights = [float(m) + 1.0 for m in merit]
        chosen = set(self.random.choices(everyone, weights, k=max(1, size // 3)))
        while len(chosen) < size:
            chosen.add(self.random.randrange(len(weights)))
        return chosen
