"""Which seat takes which block: the most bytes stay in place, as a least-cost flow, with prices that prove it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from treadle.costmodels.training_keeping import Face, Keeping
from treadle.solvers.flow import least_cost_flow


@dataclass(frozen=True, slots=True)
class Seating:
    """Seats by block, the bytes kept on one lane, and the prices of seats and blocks behind it."""

    seats: tuple[int, ...]
    kept_bytes: int
    seat_prices: tuple[int, ...]
    block_prices: tuple[int, ...]


@dataclass
class _Network:
    tails: list[int] = field(default_factory=list[int])
    heads: list[int] = field(default_factory=list[int])
    capacities: list[int] = field(default_factory=list[int])
    costs: list[int] = field(default_factory=list[int])

    def add(self, tail: int, head: int, capacity: int, cost: int) -> None:
        """Add an arc."""
        self.tails.append(tail)
        self.heads.append(head)
        self.capacities.append(capacity)
        self.costs.append(cost)


def seating(keeping: Keeping, seats: Sequence[int]) -> Seating:
    """Return the best seats for all blocks of a plan that has no more blocks than there are seats.

    Nodes: seats, blocks, one hub per face of a seat and of a block, and one for seats that stay idle. Pairs whose
    slices overlap have an arc of their own; all others pass the hubs, where only copies count. No arc is ever full, so
    potentials are prices for every pair.
    """
    blocks, near = keeping.blocks, keeping.near(seats)
    seat_faces = [keeping.face(keeping.seat_cells(seat)) for seat in seats]
    block_faces = [keeping.face(keeping.block_cells(block)) for block in range(blocks)]
    first = len(seats) + blocks
    hubs: dict[tuple[bool, Face], int] = {}
    for side, faces in ((True, seat_faces), (False, block_faces)):
        for face in faces:
            hubs.setdefault((side, face), first + len(hubs))
    anywhere, idle = first + len(hubs), first + len(hubs) + 1
    network, many = _Network(), len(seats)
    for number, face in enumerate(seat_faces):
        network.add(number, hubs[True, face], many, 0)
        network.add(number, idle, many, 0)
    for block, face in enumerate(block_faces):
        network.add(hubs[False, face], len(seats) + block, many, 0)
    for (side, face), hub in hubs.items():
        network.add(*((hub, anywhere) if side else (anywhere, hub)), many, 0)
        for (other_side, other), target in hubs.items() if side else ():
            if not other_side and (kept := keeping.copies(face, other)):
                network.add(hub, target, many, -kept)
    place = {seat: number for number, seat in enumerate(seats)}
    for (seat, block), kept in near.items():
        network.add(place[seat], len(seats) + block, many, -kept)
    return _solved(keeping, seats, network, idle, near)


def _solved(
    keeping: Keeping, seats: Sequence[int], network: _Network, idle: int, near: dict[tuple[int, int], int]
) -> Seating:
    blocks, count = keeping.blocks, len(seats)
    supplies = np.zeros(idle + 1, dtype=np.int64)
    supplies[:count], supplies[count : count + blocks], supplies[idle] = 1, -1, blocks - count
    arrays = [
        np.asarray(values, dtype=np.int64)
        for values in (network.tails, network.heads, network.capacities, network.costs)
    ]
    flow = least_cost_flow(arrays[0], arrays[1], arrays[2], arrays[3], supplies)
    chosen = _walked(keeping, seats, network, flow.flows.tolist())
    kept = sum(near.get((seat, block), -1) for block, seat in enumerate(chosen) if (seat, block) in near)
    kept += sum(keeping.kept(seat, block) for block, seat in enumerate(chosen) if (seat, block) not in near)
    rest = int(flow.potentials[idle])
    of_seats = tuple(int(value) - rest for value in flow.potentials[:count])
    of_blocks = tuple(rest - int(value) for value in flow.potentials[count : count + blocks])
    return Seating(chosen, kept, of_seats, of_blocks)


def _walked(keeping: Keeping, seats: Sequence[int], network: _Network, flows: list[int]) -> tuple[int, ...]:
    """Follow units of flow from seats to blocks; any way through the hubs costs the same."""
    leaving: dict[int, list[list[int]]] = {}
    for tail, head, amount in zip(network.tails, network.heads, flows, strict=True):
        if amount:
            leaving.setdefault(tail, []).append([head, amount])
    count, blocks = len(seats), keeping.blocks
    found: dict[int, int] = {}
    for number, seat in enumerate(seats):
        at = number
        while at in leaving and not count <= at < count + blocks:
            ways = leaving[at]
            ways[-1][1] -= 1
            at = ways[-1][0]
            if ways[-1][1] == 0:
                ways.pop()
            if at not in leaving and not count <= at < count + blocks:
                break
        if count <= at < count + blocks:
            found[at - count] = seat
    return tuple(found[block] for block in range(blocks))
