"""What lowering a schedule to a warp program must know of operations beyond the loop: operands, results, waiting."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.tile.program import Memory
from treadle.ir.tile.warps import WarpLoop
from treadle.ir.warp.program import Buffer, Queue, Source


@dataclass(frozen=True, slots=True)
class Performed:
    """An issued operation of the loop. Operands name the operations that make them (or invariants).

    `result` is the buffer that the result goes to, empty for registers. An asynchronous operation is waited for through
    its `queue`, or, without one, through the barrier it signals when it is done. `chained` operations that accumulate
    into a result of their own kind follow each other on the unit without a wait. A `staged` one reads from a slot of
    its own, which its group fills again only after the one of the iteration before has read it.
    """

    operation: str
    operands: tuple[Source, ...] = ()
    result: str = ""
    asynchronous: bool = False
    queue: str = ""
    chained: bool = False
    transaction: bool = False
    staged: bool = False


@dataclass(frozen=True, slots=True)
class SharedUnit:
    """A unit that groups issue to in turns: those of `groups` (all, when empty), with operations of `least_cycles`."""

    unit: str
    groups: tuple[int, ...] = ()
    least_cycles: int = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of all issued operations; `buffers` are those that are no rings of the loop (accumulators).

    `signal_cycles` is what a barrier between groups takes one way, `turn_cycles` handing over a turn (a named barrier,
    which has no slots and no phases to look at); `shared_units` are those that groups use in turns.
    """

    operations: tuple[Performed, ...]
    buffers: tuple[Buffer, ...] = ()
    queues: tuple[Queue, ...] = ()
    shared_units: tuple[SharedUnit, ...] = ()
    warps_per_group: int = 4
    signal_cycles: int = 0
    turn_cycles: int = 0

    def of(self, operation: str) -> Performed:
        """Return the facts of an operation; raises KeyError."""
        for performed in self.operations:
            if performed.operation == operation:
                return performed
        raise KeyError(operation)


def facts_of_loop(warps: WarpLoop) -> Facts:
    """Return what a loop without a tile program lets one assume.

    Every dependence is a value; the producers of rings are asynchronous and signal a barrier, all else is synchronous.
    """
    rings = {ring.producer: ring.name for ring in warps.loop.rings}
    issued = {issue.operation for issue in warps.issues}
    operations: list[Performed] = []
    for operation in warps.loop.operations:
        if operation.name not in issued:
            continue
        reads = {
            (dependence.source, dependence.distance): None
            for dependence in warps.loop.dependences
            if dependence.target == operation.name and dependence.source in issued
        }
        sources = tuple(Source(value, distance=back, buffer=rings.get(value, "")) for value, back in reads)
        ring = rings.get(operation.name, "")
        operations.append(Performed(operation.name, sources, ring, bool(ring)))
    return Facts(tuple(operations))


MEMORIES = {"shared": Memory.SHARED, "tensor": Memory.TENSOR}
"""Memory of a loop's capacity by its name; any other is taken as shared memory."""
