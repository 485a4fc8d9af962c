"""A schedule of an operator loop, what makes it legal, and the re-derivation of its bounds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from treadle.ir.diagnostics import Finding
from treadle.ir.operator.loop import Mode, OperatorLoop


@dataclass(frozen=True, slots=True)
class OperatorSchedule:
    """Period, and per operator its mode and the start in its own iteration.

    For a one-shot loop the period is the makespan.
    """

    loop: str
    period_ns: int
    start_ns: dict[str, int]
    modes: dict[str, str]

    def mode(self, loop: OperatorLoop, name: str) -> Mode:
        """Return the chosen mode of an operator."""
        return loop.operator(name).mode(self.modes[name])


def latency_ns(loop: OperatorLoop, schedule: OperatorSchedule) -> int:
    """Return the time from the first start to the last end of one iteration."""
    starts = schedule.start_ns
    return max(starts[name] + schedule.mode(loop, name).duration_ns for name in loop.index) - min(starts.values())


def check(loop: OperatorLoop, schedule: OperatorSchedule) -> list[Finding]:
    """Return every reason why the schedule is not legal. Codes: TRD480 names, TRD481 order, TRD482 streams."""
    names = set(loop.index)
    known = {operator.name: {mode.name for mode in operator.modes} for operator in loop.operators}
    if set(schedule.start_ns) != names or set(schedule.modes) != names or schedule.loop != loop.name:
        return [Finding("TRD480", loop.name, "schedule of other operators")]
    if wrong := [name for name in sorted(names) if schedule.modes[name] not in known[name]]:
        return [Finding("TRD480", f"{loop.name}.{wrong[0]}", "unknown mode", str(sorted(known[wrong[0]])))]
    return [*_check_starts(loop, schedule), *_check_dependences(loop, schedule), *_check_streams(loop, schedule)]


def _check_starts(loop: OperatorLoop, schedule: OperatorSchedule) -> list[Finding]:
    findings: list[Finding] = []
    for name, start in schedule.start_ns.items():
        duration = schedule.mode(loop, name).duration_ns
        if start < 0:
            findings.append(Finding("TRD481", f"{loop.name}.{name}", "starts before time 0", ">= 0", str(start)))
        if duration > schedule.period_ns:
            findings.append(
                Finding("TRD481", f"{loop.name}.{name}", "overlaps itself", f"<= {schedule.period_ns}", str(duration))
            )
        if not loop.periodic and start + duration > schedule.period_ns:
            findings.append(Finding("TRD481", f"{loop.name}.{name}", "ends after the makespan"))
    if schedule.start_ns and min(schedule.start_ns.values()) > 0:
        findings.append(Finding("TRD481", loop.name, "nothing starts at time 0"))
    return findings


def _check_dependences(loop: OperatorLoop, schedule: OperatorSchedule) -> list[Finding]:
    findings: list[Finding] = []
    for dependence in loop.dependences:
        ended = schedule.start_ns[dependence.source] + schedule.mode(loop, dependence.source).duration_ns
        earliest = ended - schedule.period_ns * dependence.distance
        found = schedule.start_ns[dependence.target]
        if found < earliest:
            where = f"{loop.name}: {dependence.source} -> {dependence.target}"
            findings.append(
                Finding("TRD481", where, "starts before its operand is there", f">= {earliest}", str(found))
            )
    return findings


def stream_profile(loop: OperatorLoop, schedule: OperatorSchedule, stream: str) -> list[tuple[int, int, int]]:
    """Return a stream's load over one period as (from_ns, to_ns, thousandths)."""
    period = schedule.period_ns
    steps: dict[int, int] = defaultdict(int)
    for name in loop.index:
        mode = schedule.mode(loop, name)
        share = mode.shares_milli.get(stream, 0)
        begin = schedule.start_ns[name] % period
        end = begin + mode.duration_ns
        for low, high in ((begin, min(end, period)), (0, end - period)):
            if share and high > low:
                steps[low] += share
                steps[high] -= share
    cuts = sorted({0, period, *steps})
    profile: list[tuple[int, int, int]] = []
    level = 0
    for low, high in pairwise(cuts):
        level += steps.get(low, 0)
        profile.append((low, high, level))
    return profile


def _check_streams(loop: OperatorLoop, schedule: OperatorSchedule) -> list[Finding]:
    findings: list[Finding] = []
    for stream in loop.streams:
        for low, high, load in stream_profile(loop, schedule, stream.name):
            if load > stream.capacity_milli:
                where = f"{loop.name}.{stream.name}, {low} to {high} ns"
                findings.append(
                    Finding("TRD482", where, "stream is overbooked", f"<= {stream.capacity_milli}", str(load))
                )
                break
    return findings


def volume_bound_ns(loop: OperatorLoop, weights: dict[str, Fraction]) -> Fraction:
    """Return the period that stream volumes force, for multipliers `weights >= 0` by stream (docs/design/overlap.md).

    For any mode choice the weighted volume fits into the weighted capacity of one period.
    """
    if any(weight < 0 for weight in weights.values()):
        return Fraction(0)
    capacity = sum(
        (weights.get(stream.name, Fraction(0)) * stream.capacity_milli for stream in loop.streams), Fraction(0)
    )
    if capacity <= 0:
        return Fraction(0)
    volume = sum((min(_weighted(mode, weights) for mode in operator.modes) for operator in loop.operators), Fraction(0))
    return volume / capacity


def _weighted(mode: Mode, weights: dict[str, Fraction]) -> Fraction:
    shares = mode.shares_milli.items()
    return mode.duration_ns * sum((weights.get(stream, Fraction(0)) * share for stream, share in shares), Fraction(0))


def recurrence_bound_ns(loop: OperatorLoop, cycle: list[str]) -> Fraction:
    """Return the period that a cycle of dependences forces: shortest durations over the least total distance.

    `cycle` names operators in order; returns 0 when they do not form a cycle of dependences.
    """
    total_ns, distance = 0, 0
    for source, target in zip(cycle, [*cycle[1:], *cycle[:1]], strict=True):
        distances = [d.distance for d in loop.dependences if (d.source, d.target) == (source, target)]
        if not distances:
            return Fraction(0)
        distance += min(distances)
        total_ns += min(mode.duration_ns for mode in loop.operator(source).modes)
    return Fraction(total_ns, distance) if distance else Fraction(0)
