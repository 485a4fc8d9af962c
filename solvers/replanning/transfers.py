"""The transfer list of a re-plan: for every rank what it lacks, from whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from treadle.ir.training.check_replan import State, cells, own_cell
from treadle.ir.training.elastic import CHECKPOINT, Recovery, Transfer
from treadle.ir.training.holdings import (
    PARTS,
    Cell,
    Part,
    Pieces,
    Sizes,
    Span,
    expert_classes,
    holders_of,
    missing,
    rank_of,
    same_class,
    span,
    splits,
)
from treadle.ir.training.plan import Degrees


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring pieces of equal size that the same old stages hold."""

    first: int
    after: int
    sizes: Sizes
    sources: tuple[int, ...]


class Transfers:
    """Makes the transfers of one re-plan."""

    def __init__(self, state: State, degrees: Degrees, pieces: Pieces, recovery: Recovery) -> None:
        self.state, self.old, self.new = state, state.before.degrees, degrees
        self.pieces, self.recovery = pieces, recovery
        self._runs: dict[int, tuple[_Run, ...]] = {}
        self._sent: Counter[Cell] = Counter()
        self._alive: dict[tuple[int, int], list[int]] = {}
        self._homes: dict[int, tuple[int, ...]] = {}
        for piece in range(len(pieces.sizes)):
            homes = (stage for stage, held in enumerate(state.pieces.stages) if piece in held)
            self._homes[piece] = tuple(homes)

    def all(self, seats: tuple[int, ...]) -> tuple[Transfer, ...]:
        """Return every transfer: slices, which have one source, then copies from whoever sends least."""
        found: list[Transfer] = []
        for sliced in (True, False):
            for cell in cells(self.new):
                own = own_cell(self.state.unit, self.old, self.new, seats, cell)
                for run in self.runs(cell[0]):
                    for part, size in zip(PARTS, run.sizes, strict=True):
                        if size and splits(part, self.old) == sliced:
                            found += self._of_part(cell, own, run, part, size)
        return tuple(found)

    def runs(self, stage: int) -> tuple[_Run, ...]:
        """Return the runs of a new stage."""
        if stage not in self._runs:
            runs: list[_Run] = []
            for piece in self.pieces.stages[stage]:
                sizes, homes = self.pieces.sizes[piece], self._homes[piece]
                last = runs[-1] if runs else None
                if last and (last.after, last.sizes, last.sources) == (piece, sizes, homes):
                    runs[-1] = _Run(last.first, piece + 1, sizes, homes)
                else:
                    runs.append(_Run(piece, piece + 1, sizes, homes))
            self._runs[stage] = tuple(runs)
        return self._runs[stage]

    def _of_part(self, cell: Cell, own: Cell | None, run: _Run, part: Part, size: int) -> Iterator[Transfer]:
        need = span(part, size, self.new, cell[1])
        if self.recovery is Recovery.CHECKPOINT:
            if need[0] < need[1]:
                target = rank_of(self.new, cell)
                yield Transfer(CHECKPOINT, target, part, run.first, run.after, *need)
            return
        have = (0, 0)
        if own and own[0] in run.sources and same_class(part, self.old, own[1], cell[1]):
            have = span(part, size, self.old, own[1])
        for lack in missing(need, have):
            for source, piece, mirror in self._sources(run.sources, cell[1], part, size, lack):
                first, target = rank_of(self.old, source), rank_of(self.new, cell)
                found = Transfer(first, target, part, run.first, run.after, *piece, mirror=mirror)
                self._sent[source] += found.lane_bytes
                yield found

    def _sources(
        self, stages: tuple[int, ...], holder: int, part: Part, size: int, lack: Span
    ) -> Iterator[tuple[Cell, Span, bool]]:
        """Yield who has the missing bytes: a copy in turn, or each slice's holder (its mirror if it was lost)."""
        if not splits(part, self.old):
            yield self._next_copy(stages, part, holder), lack, False
            return
        classes = expert_classes(self.old) if part.routed else 1
        count = holders_of(self.old) // classes
        at = lack[0] * count // size
        while at and at * size // count > lack[0]:
            at -= 1
        for index in range(at, count):
            other = index * classes + (holder % classes if part.routed else 0)
            here = span(part, size, self.old, other)
            start, end = max(here[0], lack[0]), min(here[1], lack[1])
            if here[0] >= lack[1]:
                return
            if start < end:
                cell, mirror = self._holder(stages, other)
                yield cell, (start, end), mirror

    def _holder(self, stages: tuple[int, ...], holder: int) -> tuple[Cell, bool]:
        for stage in stages:
            if self.state.alive((stage, holder)):
                return (stage, holder), False
        other = self.state.mirror((stages[0], holder))
        assert other is not None
        return other, True

    def _next_copy(self, stages: tuple[int, ...], part: Part, holder: int) -> Cell:
        classes = expert_classes(self.old) if part.routed else 1
        for stage in stages:
            key = stage, holder % classes if part.routed else -1
            if key not in self._alive:
                every = range(holder % classes, holders_of(self.old), classes)
                self._alive[key] = [number for number in every if self.state.alive((stage, number))]
            if alive := self._alive[key]:
                return stage, min(alive, key=lambda number: self._sent[stage, number])
        raise AssertionError("`survives` was not asked")
