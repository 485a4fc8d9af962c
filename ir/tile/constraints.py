"""The difference constraints of a loop: start(target) >= start(source) + delay - ii * distance, and who states them.

Dependences give one each; a ring of depth D gives one per reader, from the reader back to the producer, since a slot
may be refilled only when its last reader has let go. Memory capacity limits the depth a ring can have at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from treadle.ir.errors import InvalidValue
from treadle.ir.tile.loop import Loop, Ring

NOTHING: Mapping[str, int] = MappingProxyType({})
"""Bytes by memory: none."""


@dataclass(frozen=True, slots=True)
class Arc:
    """start(target) >= start(source) + delay_cycles - ii_cycles * distance, by operation index.

    `reference` names the statement in the loop: ``{"dependence": 12}``, or ``{"ring": "K", "reader": 0}`` for a ring at
    its greatest possible depth.
    """

    source: int
    target: int
    delay_cycles: int
    distance: int
    reference: dict[str, Any]


def depth_limit(loop: Loop, ring: Ring, taken: Mapping[str, int] = NOTHING) -> int:
    """Return the greatest depth the ring can have: its own limit, and what memory leaves beside one slot of each other.

    May be less than 1, when even one slot per ring does not fit. `taken` are bytes of memories that no ring may use.
    """
    free = free_bytes(loop, ring.memory) - taken.get(ring.memory, 0)
    others = sum(other.slot_bytes for other in loop.rings if other.memory == ring.memory and other.name != ring.name)
    if ring.slot_bytes == 0:
        return ring.max_depth if free >= others else 0
    return min(ring.max_depth, (free - others) // ring.slot_bytes)


def free_bytes(loop: Loop, memory: str) -> int:
    """Return how many bytes of a memory rings may use."""
    return sum(c.capacity_bytes - c.fixed_bytes for c in loop.capacities if c.memory == memory)


def dependence_arc(loop: Loop, position: int) -> Arc:
    """Return the arc of the dependence at `position`."""
    dependence = loop.dependences[position]
    return Arc(
        loop.index[dependence.source],
        loop.index[dependence.target],
        dependence.delay_cycles,
        dependence.distance,
        {"dependence": position},
    )


def ring_arc(loop: Loop, ring: Ring, reader_position: int, depth: int) -> Arc:
    """Return the arc from a reader back to the producer of a ring with `depth` slots."""
    reader = ring.readers[reader_position]
    return Arc(
        loop.index[reader.operation],
        loop.index[ring.producer],
        reader.hold_cycles,
        depth - reader.distance,
        {"ring": ring.name, "reader": reader_position},
    )


def arcs(loop: Loop, taken: Mapping[str, int] = NOTHING) -> tuple[Arc, ...]:
    """Return every arc of the loop, rings at their greatest possible depth beside the bytes that are taken."""
    found = [dependence_arc(loop, position) for position in range(len(loop.dependences))]
    for ring in loop.rings:
        limit = depth_limit(loop, ring, taken)
        found += [ring_arc(loop, ring, position, limit) for position in range(len(ring.readers))]
    return tuple(found)


def arc_of(loop: Loop, reference: object) -> Arc:
    """Return the arc that a reference names; raises InvalidValue when it names nothing of the loop."""
    match reference:
        case {"dependence": int(position)} if 0 <= position < len(loop.dependences):
            return dependence_arc(loop, position)
        case {"ring": str(name), "reader": int(position)}:
            for ring in loop.rings:
                if ring.name == name and 0 <= position < len(ring.readers):
                    return ring_arc(loop, ring, position, depth_limit(loop, ring))
        case _:
            pass
    raise InvalidValue(message=f"{reference!r} names no dependence or ring reader of loop `{loop.name}`")
