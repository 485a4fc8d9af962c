"""Homes of adapters by greedy choice and exchanges: what the exact model starts from, and often the best already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from treadle.ir.layout.adapters import Adapter, AdaptersPlan, AdaptersProblem, load_bound, relative_loads

ROUNDS = 2000
"""Exchanges at most."""


@dataclass(slots=True)
class Homes:
    """Adapters by replica, and the load of each."""

    problem: AdaptersProblem
    homes: list[int]
    held: list[list[int]] = field(default_factory=list[list[int]])
    loads: list[Fraction] = field(default_factory=list[Fraction])

    def __post_init__(self) -> None:
        self.held = [[] for _ in self.problem.replicas]
        self.loads = [Fraction(0)] * len(self.held)
        for index, home in enumerate(self.homes):
            if home >= 0:
                self._add(index, home)

    def _add(self, index: int, home: int) -> None:
        self.homes[index] = home
        self.held[home].append(index)
        self.loads[home] += Fraction(self.problem.adapters[index].load)

    def _remove(self, index: int) -> None:
        home = self.homes[index]
        self.held[home].remove(index)
        self.loads[home] -= Fraction(self.problem.adapters[index].load)
        self.homes[index] = -1

    def relative(self, home: int, more: Fraction = Fraction(0)) -> Fraction:
        """Return load over speed of a replica with some load more."""
        return (self.loads[home] + more) / Fraction(self.problem.replicas[home].speed)

    def fits(self, home: int, comes: int, leaves: int = -1) -> bool:
        """Whether slots and memory of a replica hold an adapter in the place of another (-1: of none)."""
        replica, adapters = self.problem.replicas[home], self.problem.adapters
        together: list[Adapter] = [adapters[index] for index in (*self.held[home], comes) if index != leaves]
        return len(together) <= replica.slots and self.problem.held_bytes(together) <= replica.memory_bytes

    def move(self, index: int, home: int, other: int = -1) -> None:
        """Move an adapter, and another one into its place."""
        before = self.homes[index]
        if before >= 0:
            self._remove(index)
        if other >= 0:
            self._remove(other)
            self._add(other, before)
        self._add(index, home)

    def plan(self) -> AdaptersPlan:
        """Return the homes as a plan."""
        return AdaptersPlan(self.problem, tuple(self.homes))


def exchanged(problem: AdaptersProblem) -> AdaptersPlan | None:
    """Return homes from which no move and no exchange lowers the peak; None where no start finds room.

    Of two starts, today's homes and a greedy choice, the lower peak counts, then the fewer moves.
    """
    found: list[AdaptersPlan] = []
    for state in (_today(problem), _greedy(problem)):
        if state is not None:
            least = load_bound(problem)[0]
            for _ in range(ROUNDS):
                if max(map(state.relative, range(len(state.held)))) <= least or not _improve(state):
                    break
            _send_home(state)
            found.append(state.plan())
    return min(found, key=lambda one: (max(relative_loads(one)), one.moves), default=None)


def _today(problem: AdaptersProblem) -> Homes | None:
    """Adapters where they are, new ones on the least loaded replica with room; None where that does not fit."""
    places = {replica.name: position for position, replica in enumerate(problem.replicas)}
    state = Homes(problem, [-1] * len(problem.adapters))
    for index, adapter in enumerate(problem.adapters):
        if (home := places.get(adapter.current, -1)) >= 0:
            if not state.fits(home, index):
                return None
            state.move(index, home)
    return _filled(state) if any(home >= 0 for home in state.homes) else None


def _greedy(problem: AdaptersProblem) -> Homes | None:
    return _filled(Homes(problem, [-1] * len(problem.adapters)))


def _filled(state: Homes) -> Homes | None:
    """Give homes to all without one: heaviest first, on the replica that stays least loaded among those with room."""
    adapters = state.problem.adapters
    left = [index for index, home in enumerate(state.homes) if home < 0]
    for index in sorted(left, key=lambda one: (-adapters[one].load, -adapters[one].memory_bytes, one)):
        room = [home for home in range(len(state.held)) if state.fits(home, index)]
        if not room:
            return None
        load = Fraction(adapters[index].load)
        state.move(index, min(room, key=lambda home: state.relative(home, load)))
    return state


def _improve(state: Homes) -> bool:
    """Make the best move or exchange with the fullest replica; returns False when none lowers the higher of the two."""
    worst = max(range(len(state.held)), key=state.relative)
    peak = state.relative(worst)
    options = sorted((after, home, index, other) for after, home, index, other in _options(state, worst, peak))
    for _, home, index, other in options:
        if state.fits(home, index, other) and (other < 0 or state.fits(worst, other, index)):
            state.move(index, home, other)
            return True
    return False


def _options(state: Homes, worst: int, peak: Fraction) -> Iterator[tuple[Fraction, int, int, int]]:
    """Yield what takes load off a replica: the higher load after it, the other replica, what goes, what comes."""
    adapters = state.problem.adapters
    for index in state.held[worst]:
        for home in range(len(state.held)):
            if home == worst:
                continue
            for other in (-1, *state.held[home]):
                less = Fraction(adapters[index].load) - (Fraction(adapters[other].load) if other >= 0 else 0)
                if less > 0 and (there := state.relative(home, less)) < peak:
                    yield max(there, state.relative(worst, -less)), home, index, other


def _send_home(state: Homes) -> None:
    """Move adapters back to where they are now, where the peak allows it, alone or in exchange."""
    problem = state.problem
    places = {replica.name: position for position, replica in enumerate(problem.replicas)}
    peak = max(state.relative(home) for home in range(len(state.held)))
    for index, adapter in enumerate(problem.adapters):
        home = places.get(adapter.current, -1)
        if home < 0 or state.homes[index] == home:
            continue
        for other in (-1, *state.held[home]):
            if _goes_home(state, index, home, other, places, peak):
                state.move(index, home, other)
                break


def _goes_home(state: Homes, index: int, home: int, other: int, places: dict[str, int], peak: Fraction) -> bool:
    adapters, here = state.problem.adapters, state.homes[index]
    if other >= 0 and places.get(adapters[other].current, -1) == home:
        return False
    less = Fraction(adapters[index].load) - (Fraction(adapters[other].load) if other >= 0 else 0)
    within = state.relative(home, less) <= peak and state.relative(here, -less) <= peak
    return within and state.fits(home, index, other) and (other < 0 or state.fits(here, other, index))
