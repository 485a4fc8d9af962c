"""Annealing over shifts, swaps and matchings of many processes at once, then neighbourhoods by CP-SAT."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.errors import InconsistentCluster
from treadle.ir.cluster.reassignment import Reassignment, check, cost, volume_bound
from treadle.solvers.reassignment.improve import Improvement
from treadle.solvers.reassignment.matchings import Matchings
from treadle.solvers.reassignment.state import State
from treadle.solvers.starts import run_starts

COST_MODEL = "roadef-2012"
_HEAT = 2.5
"""First temperature, in units of what the cost could fall per process."""
_SINGLES, _MATCHED = 60, 20
"""Steps of one process or two, and matchings of many, between two looks at the temperature."""
_SWAP_SAMPLE = 300
_ANNEALED = 0.65
"""Share of a window for annealing; neighbourhoods have the rest."""
_LAST_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How long to search: numbers of steps and of neighbourhoods (repeatable), or a wall-clock window."""

    steps: int = 100_000
    neighbourhoods: int = 40
    window_s: float | None = None
    seed: int = 0
    starts: int = 1
    """Searches from so many seeds, of which the best counts."""


@dataclass(frozen=True, slots=True)
class Reassigned:
    """The assignment, its cost and the certificate."""

    assignment: tuple[int, ...]
    cost: int
    certificate: Certificate


def reassign(
    instance: Reassignment,
    options: Options | None = None,
    progress: Callable[[str], None] | None = None,
    executor: Executor | None = None,
) -> Reassigned:
    """Return the best legal assignment found; never worse than the initial one.

    Args:
        instance: what is reassigned.
        options: of every search; the seeds of `options.starts` searches are `options.seed` and those after it.
        progress: called with a line of text now and then.
        executor: runs searches side by side; any `concurrent.futures.Executor`.

    Raises:
        InconsistentCluster: the initial assignment is not legal.
    """
    if findings := check(instance, instance.initial):
        raise InconsistentCluster(message=f"the initial assignment is not legal: {findings[0]}")
    options = options or Options()
    if options.starts <= 1:
        return _reassign_once((instance, options), progress)
    starts = [(instance, replace(options, seed=options.seed + number, starts=1)) for number in range(options.starts)]
    return min(run_starts(_reassign_once, starts, executor, progress), key=lambda found: found.cost)


def _reassign_once(start: tuple[Reassignment, Options], progress: Callable[[str], None] | None = None) -> Reassigned:
    instance, options = start
    search = _Search(instance, options, progress or (lambda _: None))
    best = _improve(instance, search.run(), search)
    value, bound = cost(instance, best), volume_bound(instance)
    status = Status.OPTIMAL if value == bound else Status.FEASIBLE
    level = Level("cost", "points", value, bound, status, ProofKind.CAPACITY)
    return Reassigned(best, value, Certificate("reassignment", COST_MODEL, (level,)))


def _improve(instance: Reassignment, best: tuple[int, ...], search: _Search) -> tuple[int, ...]:
    options = search.options

    def wall_s() -> float | None:
        spent_s = time.perf_counter() - search.started
        return None if options.window_s is None else max(0.01, options.window_s - _LAST_S - spent_s)

    improvement = Improvement(instance, best, options.seed, wall_s)
    floor, rounds = volume_bound(instance), 0

    def left() -> bool:
        nonlocal rounds
        rounds += 1
        spent_s = time.perf_counter() - search.started
        open_s = options.window_s is None or spent_s < options.window_s - _LAST_S
        return (
            improvement.value > floor and open_s and (options.window_s is not None or rounds <= options.neighbourhoods)
        )

    return improvement.run(left, search.progress)


class _Search:
    def __init__(self, instance: Reassignment, options: Options, progress: Callable[[str], None]) -> None:
        self.instance = instance
        self.options = options
        self.progress = progress
        self.state = State(instance)
        self.random = np.random.default_rng(options.seed)
        self.matchings = Matchings(instance, self.state, self.random)
        self.value = cost(instance, instance.initial)
        self.best_value = self.value
        self.best = self.state.at.copy()
        self.started = time.perf_counter()

    def run(self) -> tuple[int, ...]:
        """Cool from a temperature of typical changes down to one, and again from the best, until the limit."""
        floor = volume_bound(self.instance)
        hot = _HEAT * max(1.0, (self.value - floor) / len(self.instance.processes))
        steps = 0
        for cycle in range(1_000_000):
            start = self._spent(steps)
            length = 0.9 if cycle == 0 else 0.1
            while (spent := self._spent(steps)) < min(1.0, start + length) and self.best_value > floor:
                share = (spent - start) / length
                temperature = hot * (0.3**cycle) * (1.0 - share) ** 2
                for _ in range(_SINGLES):
                    self._step(temperature)
                for _ in range(_MATCHED):
                    self._match(temperature)
                steps += _SINGLES + _MATCHED
            if self._spent(steps) >= 1.0 or self.best_value <= floor:
                break
            self._return_to_best()
        self._descend()
        return tuple(int(machine) for machine in self.best)

    def _spent(self, steps: int) -> float:
        if self.options.window_s is not None:
            return (time.perf_counter() - self.started) / max(self.options.window_s * _ANNEALED, 1e-9)
        return steps / max(self.options.steps, 1)

    def _return_to_best(self) -> None:
        for process in np.flatnonzero(self.state.at != self.best).tolist():
            self.state.shift(process, int(self.best[process]))
        self.value = self.best_value
        self.progress(f"cost {self.best_value}")

    def _match(self, temperature: float) -> None:
        if change := self.matchings.step(temperature):
            self._moved(change)

    def _step(self, temperature: float) -> None:
        process = int(self.random.integers(len(self.state.at)))
        if self.random.random() < 0.5:
            self._shift(process, temperature)
        else:
            self._swap(process, temperature)

    def _shift(self, process: int, temperature: float) -> None:
        delta, legal = self.state.shift_deltas(process)
        targets = np.flatnonzero(legal)
        if not len(targets):
            return
        noisy = delta[targets] - temperature * np.log(self.random.random(len(targets)) + 1e-300)
        position = int(noisy.argmin())
        change = int(delta[targets[position]]) + self._service_change(process, int(targets[position]))
        if self._accepts(change, temperature):
            self.state.shift(process, int(targets[position]))
            self._moved(change)

    def _swap(self, process: int, temperature: float) -> None:
        count = len(self.state.at)
        others = self.random.choice(count, min(_SWAP_SAMPLE, count), replace=False)
        delta, legal = self.state.swap_deltas(process, others)
        possible = np.flatnonzero(legal)
        if not len(possible):
            return
        noisy = delta[possible] - temperature * np.log(self.random.random(len(possible)) + 1e-300)
        chosen = int(possible[int(noisy.argmin())])
        if not self._accepts(int(delta[chosen]), temperature):
            return
        before = int(self.state.moved.max())
        if self.state.swap(process, int(others[chosen])):
            more = int(self.state.moved.max()) - before
            self._moved(int(delta[chosen]) + more * self.instance.service_move_weight)

    def _service_change(self, process: int, target: int) -> int:
        state, service = self.state, int(self.state.service[process])
        home = int(state.initial[process])
        after = int(state.moved[service]) + int(target != home) - int(int(state.at[process]) != home)
        most = int(state.moved.max())
        if after > most:
            return self.instance.service_move_weight
        if after < state.moved[service] == most and int((state.moved == most).sum()) == 1:
            return -self.instance.service_move_weight
        return 0

    def _accepts(self, change: int, temperature: float) -> bool:
        return change <= 0 or (temperature > 0 and self.random.random() < math.exp(-min(700.0, change / temperature)))

    def _moved(self, change: int) -> None:
        self.value += change
        if self.value < self.best_value:
            self.best_value = self.value
            self.best = self.state.at.copy()

    def _descend(self) -> None:
        """Let every process of the best assignment take its best target while that helps."""
        self._return_to_best()
        for _ in range(3):
            before = self.best_value
            for process in range(len(self.state.at)):
                delta, legal = self.state.shift_deltas(process)
                targets = np.flatnonzero(legal & (delta < 0))
                if len(targets):
                    target = int(targets[int(delta[targets].argmin())])
                    change = int(delta[target]) + self._service_change(process, target)
                    if change < 0:
                        self.state.shift(process, target)
                        self._moved(change)
            if self.best_value == before:
                break
