"""Bytes that stay in place when a seat of the old plan takes a block of the new one, and bounds on all of them.

Everything is per lane and a whole number of bytes. A *face* of a seat or block is what decides the copies it has or
needs, slices apart: its (stage, expert class) per cell. Pairs whose slices overlap are few; for the others the bytes
kept depend on the two faces alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import product

from treadle.ir.training.elastic import unit_of
from treadle.ir.training.holdings import (
    PARTS,
    Cell,
    Part,
    Sizes,
    cell_of,
    expert_classes,
    holders_of,
    overlap,
    pieces_of,
    same_class,
    slice_of,
    span,
    splits,
)
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout

Face = tuple[tuple[int, int], ...]
Counted = tuple[tuple[Sizes, int], ...]


class Keeping:
    """Old and new plan side by side."""

    def __init__(self, before: ParallelBody, degrees: Degrees, layout: StageLayout) -> None:
        self.old, self.new, self.unit = before.degrees, degrees, unit_of(before)
        self.slots = self.unit // degrees.tensor
        self.classes = expert_classes(degrees)
        self._old_pieces = pieces_of(before.model, before.spec, before.degrees, before.layout)
        self._new_pieces = pieces_of(before.model, before.spec, degrees, layout)
        self._split = tuple(part for part in PARTS if splits(part, degrees))
        self._shared: dict[tuple[int, int], Counted] = {}
        self._sliced: dict[tuple[int, int], tuple[tuple[Part, int, int], ...]] = {}
        self._copies: dict[tuple[Face, Face], int] = {}

    @property
    def blocks(self) -> int:
        """Seats that the new plan takes."""
        return -(-self.new.gpus // self.unit)

    def seat_cells(self, seat: int) -> list[Cell | None]:
        """Return the old cells of a seat."""
        return _cells_of(self.old, self.unit, self.slots, seat)

    def block_cells(self, block: int) -> list[Cell | None]:
        """Return the new cells of a block."""
        return _cells_of(self.new, self.unit, self.slots, block)

    def face(self, found: Sequence[Cell | None]) -> Face:
        """Return the face of a seat's or block's cells."""
        return tuple((cell[0], cell[1] % self.classes) if cell else (-1, -1) for cell in found)

    @cached_property
    def needed_bytes(self) -> int:
        """Bytes that all cells of the new plan need on one lane: holders of a class share a split part."""
        holders, total = holders_of(self.new), 0
        for stage in self._new_pieces.stages:
            for piece in stage:
                for part, size in zip(PARTS, self._new_pieces.sizes[piece], strict=True):
                    once = self.classes if part.routed else 1
                    total += size * (once if splits(part, self.new) else holders)
        return total

    def shared(self, old_stage: int, new_stage: int) -> Counted:
        """Return the sizes of the pieces two stages share, with how many there are of each."""
        key = old_stage, new_stage
        if key not in self._shared:
            pieces = self._old_pieces.shared(old_stage, self._new_pieces, new_stage)
            counts = Counter(self._old_pieces.sizes[piece] for piece in pieces)
            self._shared[key] = tuple(counts.items())
        return self._shared[key]

    def copies(self, seat_face: Face, block_face: Face) -> int:
        """Return the bytes of whole copies that stay, for seats and blocks of these faces."""
        key = seat_face, block_face
        if key not in self._copies:
            total = 0
            for old, new in zip(seat_face, block_face, strict=True):
                if min(*old, *new) < 0:
                    continue
                for sizes, count in self.shared(old[0], new[0]):
                    for part, size in zip(PARTS, sizes, strict=True):
                        if not splits(part, self.new) and (not part.routed or old[1] == new[1]):
                            total += size * count
            self._copies[key] = total
        return self._copies[key]

    def kept(self, seat: int, block: int) -> int:
        """Return all bytes that stay when a seat takes a block."""
        olds, news = self.seat_cells(seat), self.block_cells(block)
        total = self.copies(self.face(olds), self.face(news))
        for old, new in zip(olds, news, strict=True):
            if old and new:
                total += self._slices(old, new)
        return total

    def _slices(self, old: Cell, new: Cell) -> int:
        total = 0
        for part, size, count in self._sliced_of(old[0], new[0]):
            if same_class(part, self.new, old[1], new[1]):
                here = span(part, size, self.old, old[1])
                total += count * overlap(here, span(part, size, self.new, new[1]))
        return total

    def _sliced_of(self, old_stage: int, new_stage: int) -> tuple[tuple[Part, int, int], ...]:
        """Return (part, size, number of pieces) of everything split that two stages share."""
        key = old_stage, new_stage
        if key not in self._sliced:
            self._sliced[key] = tuple(
                (part, sizes[PARTS.index(part)], count)
                for sizes, count in self.shared(*key)
                for part in self._split
                if sizes[PARTS.index(part)]
            )
        return self._sliced[key]

    def near(self, seats: Sequence[int]) -> dict[tuple[int, int], int]:
        """Return the bytes kept for every (seat, block) whose slices overlap."""
        places: dict[tuple[int, Cell], int] = {}
        for seat in seats:
            for slot, cell in enumerate(self.seat_cells(seat)):
                if cell:
                    places[slot, cell] = seat
        if not self._split:
            return {}
        pairs: dict[tuple[int, int], None] = {}
        sharing: dict[int, list[int]] = defaultdict(list)
        for new_stage in range(self.new.pipeline):
            sharing[new_stage] = [old for old in range(self.old.pipeline) if self.shared(old, new_stage)]
        for block in range(self.blocks):
            for slot, cell in enumerate(self.block_cells(block)):
                if cell is None:
                    continue
                for holder, stage in product(self._overlapping(cell[1]), sharing[cell[0]]):
                    seat = places.get((slot, (stage, holder)), -1)
                    if seat >= 0:
                        pairs[seat, block] = None
        return {pair: self.kept(*pair) for pair in pairs}

    def _overlapping(self, holder: int) -> list[int]:
        """Return the old holders whose slices may overlap those of a new holder."""
        found: dict[int, None] = {}
        for part in self._split:
            index, count = slice_of(part, self.new, holder)
            classes = self.classes if part.routed else 1
            before = holders_of(self.old) // classes
            for other in range(index * before // count, -(-(index + 1) * before // count)):
                found[other * classes + (holder % classes if part.routed else 0)] = None
        return list(found)


def _cells_of(degrees: Degrees, unit: int, slots: int, number: int) -> list[Cell | None]:
    first = number * unit
    ranks = [first + slot * degrees.tensor for slot in range(slots)]
    return [cell_of(degrees, rank) if rank < degrees.gpus else None for rank in ranks]


def kept_bound(keeping: Keeping, seats: Sequence[int], of_seats: Sequence[int], of_blocks: Sequence[int]) -> int | None:
    """Return a bound on the bytes kept on one lane from dual prices, or None when the prices are not valid.

    Prices u of seats (not negative) and v of blocks bound every choice of seats when u + v >= bytes kept for each pair;
    the bound is their sum (linear assignment, Kuhn 1955).
    """
    if len(of_seats) != len(seats) or len(of_blocks) != keeping.blocks or min(of_seats, default=0) < 0:
        return None
    price = dict(zip(seats, of_seats, strict=True))
    least_seat: dict[Face, int] = {}
    for seat in seats:
        face = keeping.face(keeping.seat_cells(seat))
        least_seat[face] = min(price[seat], least_seat.get(face, price[seat]))
    least_block: dict[Face, int] = {}
    for block, value in enumerate(of_blocks):
        face = keeping.face(keeping.block_cells(block))
        least_block[face] = min(value, least_block.get(face, value))
    for seat_face, seat_price in least_seat.items():
        for block_face, block_price in least_block.items():
            if seat_price + block_price < keeping.copies(seat_face, block_face):
                return None
    for (seat, block), kept in keeping.near(seats).items():
        if price[seat] + of_blocks[block] < kept:
            return None
    return sum(of_seats) + sum(of_blocks)
