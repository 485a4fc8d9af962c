"""What makes a re-plan legal: seats, microbatches, and transfers that bring every rank exactly what it lacks.

Codes: TRD632 seats, TRD633 microbatches per data rank, TRD634 transfers, TRD635 where the state comes from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from treadle.ir.diagnostics import Finding
from treadle.ir.training.check import check_experts, check_layout, check_sequence, check_tensor
from treadle.ir.training.check_options import check_options
from treadle.ir.training.elastic import (
    CHECKPOINT,
    Recovery,
    ReplanBody,
    Transfer,
    grain_of,
    least_count,
    seats_left,
    unit_of,
)
from treadle.ir.training.holdings import (
    PARTS,
    Cell,
    Part,
    Pieces,
    Span,
    cell_of,
    expert_classes,
    holders_of,
    missing,
    pieces_of,
    rank_of,
    same_class,
    span,
    splits,
)
from treadle.ir.training.plan import Degrees, ParallelBody

Wanted = tuple[int, int, Part]
"""(first rank of the target, piece, part)."""


def check_replan(body: ReplanBody) -> list[Finding]:
    """Return every reason why a re-plan is not legal; an empty list means legal."""
    findings = check_seats(body)
    findings += check_counts(body)
    before, degrees = body.before, body.degrees
    findings += [item for kind in before.model.kinds for item in check_tensor(kind, degrees.tensor)]
    findings += check_sequence(before.spec, degrees) + check_experts(before.model, degrees)
    findings += check_layout(before.model, degrees, body.layout)
    findings += check_options(before.model, before.cluster, before.spec, degrees)
    kept = ("tensor", "expert", "expert_tensor", "zero", "order", "sharding", "context_mode", "offload")
    if moved := [name for name in kept if getattr(degrees, name) != getattr(before.degrees, name)]:
        findings.append(Finding("TRD632", f"degrees.{moved[0]}", "a re-plan keeps this degree"))
    return findings or check_transfers(body)


def check_seats(body: ReplanBody) -> list[Finding]:
    """Every block has a seat of its own that is left."""
    left = set(seats_left(body.before, body.event.lost))
    findings: list[Finding] = []
    needed = -(-body.degrees.gpus // body.unit)
    if len(body.seats) != needed:
        findings.append(Finding("TRD632", "seats", "number of seats", str(needed), str(len(body.seats))))
    if len(set(body.seats)) != len(body.seats):
        findings.append(Finding("TRD632", "seats", "a seat is taken twice"))
    findings += [
        Finding("TRD632", f"seats[{block}]", "the seat has a lost node", "", str(seat))
        for block, seat in enumerate(body.seats)
        if seat not in left
    ]
    return findings


def check_counts(body: ReplanBody) -> list[Finding]:
    """The microbatches of all data ranks make the batch; each rank has enough for its schedule."""
    degrees = body.degrees
    findings: list[Finding] = []
    if len(body.counts) != degrees.data:
        findings.append(Finding("TRD633", "counts", "data ranks", str(degrees.data), str(len(body.counts))))
    total, batch = sum(body.counts) * degrees.micro_batch, body.before.spec.global_batch
    if total != batch:
        findings.append(Finding("TRD633", "counts", "do not make the global batch", str(batch), str(total)))
    least, grain = least_count(degrees), grain_of(degrees)
    for number, count in enumerate(body.counts):
        if count < least or count % grain:
            expected = f"at least {least}, a multiple of {grain}"
            findings.append(Finding("TRD633", f"counts[{number}]", "microbatches", expected, str(count)))
    if body.terms.even and len(set(body.counts)) > 1:
        findings.append(Finding("TRD633", "counts", "differ, and the terms ask for even ones"))
    return findings


@dataclass(frozen=True, slots=True)
class State:
    """What the cells of the old plan hold, and which of them are left."""

    before: ParallelBody
    pieces: Pieces
    left: frozenset[int]
    unit: int
    mirrored: bool

    def alive(self, cell: Cell) -> bool:
        """Whether a cell still runs."""
        return rank_of(self.before.degrees, cell) // self.unit in self.left

    def held(self, cell: Cell, holder: int, part: Part, piece: int) -> Span:
        """Return what an old cell has of a piece, for someone who needs the experts of `holder`'s class."""
        if piece not in self.pieces.stages[cell[0]] or not same_class(part, self.before.degrees, cell[1], holder):
            return 0, 0
        return span(part, self.pieces.sizes[piece][PARTS.index(part)], self.before.degrees, cell[1])

    def mirror(self, cell: Cell) -> Cell | None:
        """Return the cell whose host memory mirrors another's slices: a seat's cells on, of the same stage."""
        degrees = self.before.degrees
        count, here = holders_of(degrees), rank_of(degrees, cell) // self.unit
        for step in _steps(self.unit // degrees.tensor, count):
            other = cell[0], (cell[1] + step) % count
            if rank_of(degrees, other) // self.unit != here:
                return other
        return None


def state_of(before: ParallelBody, lost: tuple[int, ...], mirrored: bool) -> State:
    """Return the state that is left after losing nodes."""
    pieces = pieces_of(before.model, before.spec, before.degrees, before.layout)
    return State(before, pieces, frozenset(seats_left(before, lost)), unit_of(before), mirrored)


def survives(state: State) -> bool:
    """Whether every byte of the training state has a copy that is left."""
    degrees = state.before.degrees
    classes, count = expert_classes(degrees), holders_of(degrees)
    for stage in range(degrees.pipeline):
        alive = [state.alive((stage, holder)) for holder in range(count)]
        if all(alive):
            continue
        if any(not any(alive[number::classes]) for number in range(classes)):
            return False
        if not any(splits(part, degrees) for part in PARTS):
            continue
        for holder in (number for number in range(count) if not alive[number]):
            other = state.mirror((stage, holder)) if state.mirrored else None
            if other is None or not state.alive(other):
                return False
    return True


def cells(degrees: Degrees) -> Iterator[Cell]:
    """Yield all cells of a plan."""
    for stage in range(degrees.pipeline):
        for holder in range(holders_of(degrees)):
            yield stage, holder


def own_cell(body_unit: int, before: Degrees, after: Degrees, seats: tuple[int, ...], cell: Cell) -> Cell | None:
    """Return the old cell whose GPUs a new cell takes; None for GPUs that had no part in the old plan."""
    block, local = divmod(rank_of(after, cell), body_unit)
    rank = seats[block] * body_unit + local
    return cell_of(before, rank) if rank < before.gpus else None


def check_transfers(body: ReplanBody) -> list[Finding]:
    """Every cell gets exactly the bytes it needs and does not have, from cells that have them."""
    state = state_of(body.before, body.event.lost, body.terms.mirrored)
    recovery = Recovery.LIVE if survives(state) else Recovery.CHECKPOINT
    if recovery is not body.recovery:
        return [Finding("TRD635", "recovery", "state comes from", recovery.value, body.recovery.value)]
    brought: dict[Wanted, list[Span]] = defaultdict(list)
    findings: list[Finding] = []
    for number, transfer in enumerate(body.transfers):
        if not _has(state, body, transfer):
            findings.append(Finding("TRD634", f"transfers[{number}]", "the source does not hold these bytes"))
        for piece in range(transfer.first, transfer.after):
            brought[transfer.target, piece, transfer.part].append((transfer.start, transfer.end))
    return findings + _check_needs(state, body, brought)


def _check_needs(state: State, body: ReplanBody, brought: dict[Wanted, list[Span]]) -> list[Finding]:
    before, degrees = body.before, body.degrees
    pieces = pieces_of(before.model, before.spec, degrees, body.layout)
    findings: list[Finding] = []
    for cell in cells(degrees):
        target = rank_of(degrees, cell)
        own = own_cell(body.unit, before.degrees, degrees, body.seats, cell)
        for piece in pieces.stages[cell[0]]:
            for part, size in zip(PARTS, pieces.sizes[piece], strict=True):
                need = span(part, size, degrees, cell[1])
                live = body.recovery is Recovery.LIVE and own is not None
                have = state.held(own, cell[1], part, piece) if live and own is not None else (0, 0)
                if _joined(brought.pop((target, piece, part), [])) != _joined(list(missing(need, have))):
                    where = f"rank {target}, piece {piece}, {part.value}"
                    findings.append(Finding("TRD634", where, "transfers do not bring what is missing"))
    findings += [Finding("TRD634", f"rank {key[0]}, piece {key[1]}", "is brought and not needed") for key in brought]
    return findings


def _joined(spans: list[Span]) -> list[Span]:
    """Return spans in order with neighbours joined; overlapping ones stay apart, and so differ from any need."""
    found: list[Span] = []
    for item in sorted(spans):
        if found and found[-1][1] == item[0]:
            found[-1] = found[-1][0], item[1]
        else:
            found.append(item)
    return found


def _has(state: State, body: ReplanBody, transfer: Transfer) -> bool:
    """Whether the source of a transfer has the bytes."""
    if transfer.first >= transfer.after or transfer.start >= transfer.end or transfer.start < 0:
        return False
    if body.recovery is Recovery.CHECKPOINT:
        return transfer.source == CHECKPOINT and not transfer.mirror
    old = body.before.degrees
    if not 0 <= transfer.source < old.gpus or not 0 <= transfer.target < body.degrees.gpus:
        return False
    source, holder = cell_of(old, transfer.source), cell_of(body.degrees, transfer.target)[1]
    if rank_of(old, source) != transfer.source or not state.alive(source):
        return False
    holding = [source]
    if transfer.mirror:
        if not state.mirrored or not splits(transfer.part, old):
            return False
        holding = [cell for cell in _neighbours(state, source) if state.mirror(cell) == source]
    for cell in holding:
        spans = [state.held(cell, holder, transfer.part, piece) for piece in range(transfer.first, transfer.after)]
        if all(start <= transfer.start and transfer.end <= end for start, end in spans):
            return True
    return False


def _neighbours(state: State, cell: Cell) -> Iterator[Cell]:
    degrees = state.before.degrees
    count = holders_of(degrees)
    for step in _steps(state.unit // degrees.tensor, count):
        yield cell[0], (cell[1] - step) % count


def _steps(first: int, count: int) -> Iterator[int]:
    """Yield the distances between holders, those of a seat's length and more first."""
    yield from range(first, count)
    yield from range(1, min(first, count))


def padded_spec_batch(degrees: Degrees, counts: tuple[int, ...]) -> int:
    """Return the batch of an even plan whose every data rank runs as many microbatches as the fullest one."""
    return max(counts) * degrees.data * degrees.micro_batch


def as_parallel(body: ReplanBody) -> ParallelBody:
    """Return the new plan as an even parallel plan of the padded batch, on the nodes it takes."""
    before = body.before
    spec = replace(before.spec, global_batch=padded_spec_batch(body.degrees, body.counts))
    return ParallelBody(before.model, before.cluster, spec, body.degrees, body.layout, body.stages)
