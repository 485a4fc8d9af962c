"""Whether a pool of experts can have all GPU loads below a target: heavy replicas packed exactly, the rest as a fluid.

The relaxation: replicas of heavy experts are packed one by one. Light experts keep two properties only: a GPU has
exactly `slots / gpus` replicas, and any N slots carry at most the whole loads of the N largest light experts. If even
that has no solution, no placement has a peak below the target. Sizes are whole multiples of target / 2^40, rounded
down, which can only make a placement easier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction
from itertools import accumulate, groupby

HEAVY_SHARE = 6
"""An expert is heavy when this many times its load exceeds the target,"""
ROOM_SHARE = 2
"""or this many times its load exceeds the room that heavier experts leave on the average GPU."""
MOST_HEAVY = 12
"""Experts packed exactly, at most; the others count as light."""
STATES = 20_000
"""Ways to spread replicas that are made before the answer is `UNKNOWN`,"""
WAYS = 2000
"""and those of one expert alone."""
_UNIT = 1 << 40

Bin = tuple[int, tuple[int, ...]]
"""Load of the heavy replicas on a GPU, and the experts they belong to."""
Bins = tuple[Bin, ...]


class Answer(Enum):
    """What the search found."""

    POSSIBLE = "possible"
    """The relaxation has a solution; a placement may not."""
    IMPOSSIBLE = "impossible"
    """No placement has a peak below the target."""
    UNKNOWN = "unknown"
    """Too many states."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The answer, and packings where it is `POSSIBLE`: the heavy experts (positions in `loads`) on every GPU."""

    answer: Answer
    packings: tuple[tuple[tuple[int, ...], ...], ...] = ()


def skeleton(loads: Sequence[Fraction], slots: int, gpus: int, target: Fraction) -> Skeleton:
    """Search for a relaxed placement with a peak below a target; deterministic.

    Args:
        loads: load per expert.
        slots: replicas in all, a multiple of `gpus`, at least one per expert.
        gpus: GPUs of the pool.
        target: peak to stay below, above zero.
    """
    order = sorted(range(len(loads)), key=lambda expert: (-loads[expert], expert))
    few, many = _heavy(loads, order, gpus, target)
    found = _packed(loads, slots, gpus, target, order, few)
    if found.answer is Answer.IMPOSSIBLE or few == many:
        return found
    finer = _packed(loads, slots, gpus, target, order, many)
    if finer.answer is Answer.UNKNOWN:
        return found
    return replace(finer, packings=finer.packings + found.packings) if finer.packings else finer


def _packed(
    loads: Sequence[Fraction], slots: int, gpus: int, target: Fraction, order: Sequence[int], heavy: int
) -> Skeleton:
    """Search with the first experts of an order as the heavy ones."""
    search = _Search(
        tuple(loads[expert] / target for expert in order[:heavy]),
        tuple(int(loads[expert] * _UNIT / target) for expert in order[heavy:]),
        slots // gpus,
        slots - len(loads),
    )
    try:
        found = search.run(gpus)
    except _TooManyStates:
        return Skeleton(Answer.UNKNOWN)
    if found is None:
        return Skeleton(Answer.IMPOSSIBLE)
    return Skeleton(Answer.POSSIBLE, (tuple(tuple(order[expert] for expert in held) for _, held in found),))


def _heavy(loads: Sequence[Fraction], order: Sequence[int], gpus: int, target: Fraction) -> tuple[int, int]:
    """Return how many experts of an order of falling loads are heavy by their load, and by the room they need."""
    room, few = target, 0
    for number, expert in enumerate(order[:MOST_HEAVY]):
        large = loads[expert] * HEAVY_SHARE > target
        if not large and loads[expert] * ROOM_SHARE <= room:
            return few, number
        few += large
        room -= loads[expert] / gpus
    return few, min(MOST_HEAVY, len(order))


class _TooManyStates(Exception):
    """The search stopped at its limit."""


@dataclass(slots=True)
class _Search:
    """Depth-first over heavy experts: number of replicas, then the GPUs that take them, up to symmetry."""

    heavy: tuple[Fraction, ...]
    """Loads over the target, falling."""
    light: tuple[int, ...]
    """Loads in units, falling."""
    per_gpu: int
    spare: int
    largest: list[list[int]] = field(default_factory=list[list[int]])
    """For every number of packed experts: the sum of the N largest loads of the others."""
    least: list[int] = field(default_factory=list[int])
    """Replicas that each heavy expert needs."""
    needed: list[int] = field(default_factory=list[int])
    """Spare slots that the heavy experts from a position on need."""
    seen: set[object] = field(default_factory=set[object])
    states: int = 0

    def run(self, gpus: int) -> Bins | None:
        """Return a feasible packing of the heavy experts; None when there is none."""
        heavy = [self._size(expert, 1) for expert in range(len(self.heavy))]
        self.largest = [
            list(accumulate((*heavy[packed:], *self.light), initial=0)) for packed in range(len(self.heavy) + 1)
        ]
        self.least = [int(load) + 1 for load in self.heavy]
        self.needed = [0] * (len(self.heavy) + 1)
        for expert in range(len(self.heavy) - 1, -1, -1):
            self.needed[expert] = self.needed[expert + 1] + self.least[expert] - 1
        return self._visit(0, self.spare, ((0, ()),) * gpus) if self.needed[0] <= self.spare else None

    def _size(self, expert: int, replicas: int) -> int:
        return int(self.heavy[expert] * _UNIT / replicas)

    def _visit(self, expert: int, spare: int, bins: Bins) -> Bins | None:
        key = (expert, spare, tuple((load, len(held)) for load, held in bins))
        if key in self.seen or not self._others_fit(expert, bins):
            return None
        if expert == len(self.heavy):
            return bins
        self.seen.add(key)
        for replicas in range(self.least[expert], spare - self.needed[expert + 1] + 2):
            ways = spread(bins, expert, self._size(expert, replicas), replicas, self.per_gpu)
            self.states += 1 + len(ways)
            if self.states > STATES:
                raise _TooManyStates
            for after in ways:
                if found := self._visit(expert + 1, spare - replicas + 1, after):
                    return found
        return None

    def _others_fit(self, packed: int, bins: Bins) -> bool:
        """Whether the experts not packed yet fit over the tightest GPUs together, for every number of GPUs."""
        largest = self.largest[packed]
        free = sum(self.per_gpu - len(held) for _, held in bins)
        room = 0
        for load, held in sorted(bins, key=self._room_per_slot):
            room += _UNIT - load
            free -= self.per_gpu - len(held)
            if largest[-1] - largest[min(free, len(largest) - 1)] > room:
                return False
        return True

    def _room_per_slot(self, one: Bin) -> float:
        """Only an order: any order gives a necessary condition."""
        slots = self.per_gpu - len(one[1])
        return (_UNIT - one[0]) / slots if slots else -1.0


def spread(bins: Bins, expert: int, size: int, replicas: int, per_gpu: int) -> list[Bins]:
    """Return the ways to add equal replicas to GPUs below the target, most even first; like GPUs are not told apart."""
    kinds = [list(group) for _, group in groupby(bins, key=_kind)]
    most = [_most(group[0], size, per_gpu) for group in kinds]
    room = [sum(len(group) * many for group, many in zip(kinds[i:], most[i:], strict=True)) for i in range(len(kinds))]
    found: list[Bins] = []

    def visit(position: int, left: int, sofar: Bins) -> None:
        if position == len(kinds):
            found.append(tuple(sorted(sofar, key=_kind)))
            if len(found) > WAYS:
                raise _TooManyStates
            return
        alike = kinds[position]
        least = left - (room[position + 1] if position + 1 < len(kinds) else 0)
        for given in _falling(len(alike), left, min(left, most[position])):
            if sum(given) < least:
                continue
            pairs = zip(alike, given, strict=True)
            added = tuple((load + more * size, (*held, *((expert,) * more))) for (load, held), more in pairs)
            visit(position + 1, left - sum(given), (*sofar, *added))

    if kinds and room[0] >= replicas:
        visit(0, replicas, ())
    return sorted(found, key=lambda after: sum(load * load for load, _ in after))


def _most(one: Bin, size: int, per_gpu: int) -> int:
    load, held = one
    slots = per_gpu - len(held)
    return min(slots, (_UNIT - 1 - load) // size) if size else slots


def _kind(one: Bin) -> tuple[int, int]:
    return one[0], len(one[1])


def _falling(members: int, total: int, most: int) -> Iterator[tuple[int, ...]]:
    """Yield falling sequences of `members` numbers of at most `most`, in sum at most `total`."""
    if not members:
        yield ()
        return
    for first in range(min(most, total), -1, -1):
        for rest in _falling(members - 1, total - first, first):
            yield (first, *rest)
