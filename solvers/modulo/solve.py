"""Schedules a loop: least initiation interval, then least length, then fewest ring bytes, each level with its proof."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from treadle.ir.certificate import Certificate, Level, Status
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.schedule import Schedule, length_of
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.modulo.interval import Effort, Interval, Progress, depths_of, least_interval
from treadle.solvers.modulo.length import Reached, fewest_ring_bytes, least_length, length_at
from treadle.solvers.modulo.network import Network, network_of


@dataclass(frozen=True, slots=True)
class Options:
    """How to schedule.

    `limits` hold for every question put to the solver; `levels` may be cut short after the interval or the length.
    """

    limits: Limits = field(default_factory=lambda: Limits(deterministic_s=10.0))
    restarts: int = 8
    levels: int = 3
    cost_model: str = "cycles of the loop as given"


@dataclass(frozen=True, slots=True)
class Solution:
    """A legal schedule and what is proven of it."""

    schedule: Schedule
    certificate: Certificate


def schedule(
    loop: Loop, options: Options | None = None, tell: Progress | None = None, earlier: Solution | None = None
) -> Solution:
    """Return the best schedule of a loop, with a certificate level per objective.

    Levels: `ii` (cycles), `length` (cycles), and `ring_bytes` (bytes) when the loop has rings.

    Args:
        loop: the cyclic scheduling problem.
        options: limits and effort.
        tell: called with a line of progress on longer work.
        earlier: a legal schedule of the same loop with its certificate; the search continues from both.

    Raises:
        MemoryExceeded, RingTooShallow: no interval is feasible.
    """
    options = options or Options()
    if earlier is not None and earlier.certificate.status is Status.OPTIMAL:
        return earlier
    tell = tell or (lambda _: None)
    effort = Effort(options.limits, options.restarts)
    network = network_of(loop)
    interval = least_interval(network, effort, tell, _known(network, earlier))
    levels = [_level("ii", "cycles", interval.ii, interval.bound)]
    reached = Reached(interval.starts, 0, interval.bound)
    if options.levels >= 2:
        reached = least_length(network, interval.ii, reached.starts, effort, tell)
        levels.append(_level("length", "cycles", reached.value, reached.bound))
    if options.levels >= 3 and loop.rings:
        length = reached
        reached = fewest_ring_bytes(network, interval.ii, length.starts, length.value, effort, tell)
        # Where the length was left open, fewer bytes may come with a shorter one, which they then have to keep to.
        while (shorter := length_at(network, reached.starts)) < length.value:
            length = replace(length, value=shorter, starts=reached.starts)
            reached = fewest_ring_bytes(network, interval.ii, length.starts, shorter, effort, tell)
        levels[-1] = _level("length", "cycles", length.value, length.bound)
        levels.append(_level("ring_bytes", "bytes", reached.value, reached.bound))
    return Solution(
        _schedule_of(network, interval.ii, reached.starts),
        Certificate(f"modulo/{loop.name}", options.cost_model, tuple(levels)),
    )


def _known(network: Network, earlier: Solution | None) -> Interval | None:
    if earlier is None:
        return None
    level = earlier.certificate["ii"]
    bound = Bound(round(level.bound or 0), level.proof, dict(level.evidence))
    starts = tuple(earlier.schedule.start_cycles[operation.name] for operation in network.loop.operations)
    return Interval(earlier.schedule.ii_cycles, starts, bound)


def _level(name: str, unit: str, value: int, bound: Bound) -> Level:
    status = Status.OPTIMAL if bound.value == value else Status.FEASIBLE
    return Level(name, unit, value, bound.value, status, bound.proof, bound.evidence)


def _schedule_of(network: Network, ii: int, starts: tuple[int, ...]) -> Schedule:
    loop = network.loop
    start_cycles = {operation.name: start for operation, start in zip(loop.operations, starts, strict=True)}
    return Schedule(loop.name, ii, start_cycles, length_of(loop, start_cycles), depths_of(network, ii, starts))
