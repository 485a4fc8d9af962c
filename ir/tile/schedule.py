"""A modulo schedule of a loop, and what makes it legal.

Operation `v` of iteration `i` starts at `start_cycles[v] + i * ii_cycles`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.loop import Loop, Ring


@dataclass(frozen=True, slots=True)
class Schedule:
    """Start cycle of every operation at one initiation interval, and the depth of every ring."""

    loop: str
    ii_cycles: int
    start_cycles: dict[str, int]
    length_cycles: int
    ring_depths: dict[str, int]

    def __post_init__(self) -> None:
        if self.ii_cycles < 1:
            raise InvalidValue(message=f"schedule of `{self.loop}` has the initiation interval {self.ii_cycles}")

    def slot(self, operation: str) -> int:
        """Modulo slot: start modulo the initiation interval."""
        return self.start_cycles[operation] % self.ii_cycles

    def stage(self, operation: str) -> int:
        """Stage: how many initiation intervals after its iteration's start the operation begins."""
        return self.start_cycles[operation] // self.ii_cycles

    @property
    def stages(self) -> int:
        """Number of stages that overlap in the steady state."""
        return 1 + max(start // self.ii_cycles for start in self.start_cycles.values())


def length_of(loop: Loop, start_cycles: dict[str, int]) -> int:
    """Return the length in cycles of one iteration: from cycle 0 to the last result."""
    return max(start_cycles[operation.name] + operation.latency_cycles for operation in loop.operations)


def lifetime_cycles(ring: Ring, schedule: Schedule) -> int:
    """Return how long one slot of the ring is held: from the producer's start until the last reader lets go."""
    return (
        max(
            schedule.start_cycles[reader.operation] + reader.hold_cycles + schedule.ii_cycles * reader.distance
            for reader in ring.readers
        )
        - schedule.start_cycles[ring.producer]
    )


def modulo_profile(loop: Loop, schedule: Schedule, unit: str) -> list[tuple[int, int, int]]:
    """Return the unit's use over one initiation interval as (from_cycle, to_cycle, instances in use)."""
    period = schedule.ii_cycles
    steps: dict[int, int] = defaultdict(int)
    base = 0
    for operation in loop.operations:
        if operation.unit != unit or operation.occupancy_cycles == 0:
            continue
        whole, rest = divmod(operation.occupancy_cycles, period)
        base += whole
        begin = schedule.slot(operation.name)
        if rest and begin + rest <= period:
            steps[begin] += 1
            steps[begin + rest] -= 1
        elif rest:
            steps[begin] += 1
            steps[0] += 1
            steps[begin + rest - period] -= 1
            steps[period] -= 1
    profile: list[tuple[int, int, int]] = []
    level = base
    cuts = sorted({0, period, *steps})
    for begin, end in pairwise(cuts):
        level += steps.get(begin, 0)
        profile.append((begin, end, level))
    return profile


def check(loop: Loop, schedule: Schedule) -> list[Finding]:
    """Return every reason why `schedule` is not a legal schedule of `loop`; an empty list means legal.

    Codes: TRD401 names, TRD402 start, TRD403 dependence, TRD404 unit capacity, TRD405 ring depth, TRD406 memory,
    TRD407 length.
    """
    names = _check_names(loop, schedule)
    if names:
        return names
    return [
        *_check_starts(schedule),
        *_check_dependences(loop, schedule),
        *_check_units(loop, schedule),
        *_check_rings(loop, schedule),
        *_check_memories(loop, schedule),
        *_check_length(loop, schedule),
    ]


def _check_names(loop: Loop, schedule: Schedule) -> list[Finding]:
    findings: list[Finding] = []
    if schedule.loop != loop.name:
        findings.append(Finding("TRD401", loop.name, "schedule of another loop", loop.name, schedule.loop))
    for kind, expected, found in (
        ("operations", {operation.name for operation in loop.operations}, set(schedule.start_cycles)),
        ("rings", {ring.name for ring in loop.rings}, set(schedule.ring_depths)),
    ):
        if expected != found:
            difference = sorted(expected ^ found)
            findings.append(Finding("TRD401", loop.name, f"{kind} differ: {', '.join(difference[:5])}"))
    return findings


def _check_starts(schedule: Schedule) -> list[Finding]:
    findings = [
        Finding("TRD402", f"{schedule.loop}.{name}", "starts before cycle 0", ">= 0", str(start))
        for name, start in schedule.start_cycles.items()
        if start < 0
    ]
    earliest = min(schedule.start_cycles.values())
    if earliest > 0:
        findings.append(Finding("TRD402", schedule.loop, "nothing starts at cycle 0", "0", str(earliest)))
    return findings


def _check_dependences(loop: Loop, schedule: Schedule) -> list[Finding]:
    findings: list[Finding] = []
    for dependence in loop.dependences:
        earliest = (
            schedule.start_cycles[dependence.source]
            + dependence.delay_cycles
            - schedule.ii_cycles * dependence.distance
        )
        found = schedule.start_cycles[dependence.target]
        if found < earliest:
            where = f"{loop.name}: {dependence.source} -> {dependence.target} (distance {dependence.distance})"
            findings.append(
                Finding("TRD403", where, "starts before its operand is there", f">= {earliest}", str(found))
            )
    return findings


def _check_units(loop: Loop, schedule: Schedule) -> list[Finding]:
    findings: list[Finding] = []
    for unit in loop.units:
        if unit.count is None:
            continue
        for begin, end, used in modulo_profile(loop, schedule, unit.name):
            if used > unit.count:
                where = f"{loop.name}.{unit.name}, modulo slots {begin} to {end - 1}"
                findings.append(Finding("TRD404", where, "unit is overbooked", f"<= {unit.count}", str(used)))
                break
    return findings


def _check_rings(loop: Loop, schedule: Schedule) -> list[Finding]:
    findings: list[Finding] = []
    for ring in loop.rings:
        depth = schedule.ring_depths[ring.name]
        where = f"{loop.name}.{ring.name}"
        if not 1 <= depth <= ring.max_depth:
            findings.append(Finding("TRD405", where, "depth out of range", f"1 to {ring.max_depth}", str(depth)))
        needed = -(-lifetime_cycles(ring, schedule) // schedule.ii_cycles)
        if depth < needed:
            findings.append(
                Finding("TRD405", where, "a slot is overwritten while it is read", f">= {needed}", str(depth))
            )
    return findings


def _check_memories(loop: Loop, schedule: Schedule) -> list[Finding]:
    findings: list[Finding] = []
    for capacity in loop.capacities:
        used = capacity.fixed_bytes + sum(
            ring.slot_bytes * schedule.ring_depths[ring.name] for ring in loop.rings if ring.memory == capacity.memory
        )
        if used > capacity.capacity_bytes:
            where = f"{loop.name}.{capacity.memory}"
            findings.append(
                Finding("TRD406", where, "memory is overfull", f"<= {capacity.capacity_bytes} bytes", f"{used} bytes")
            )
    return findings


def _check_length(loop: Loop, schedule: Schedule) -> list[Finding]:
    expected = length_of(loop, schedule.start_cycles)
    if schedule.length_cycles != expected:
        return [
            Finding("TRD407", loop.name, "length is not that of the starts", str(expected), str(schedule.length_cycles))
        ]
    return []
