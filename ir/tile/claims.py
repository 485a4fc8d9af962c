"""Re-derives what a certificate claims of a modulo schedule, from the loop alone.

Evidence by level and kind (`reference` is that of `constraints.Arc`):

- ``ii``: `count` none; `resource` unit, occupied_cycles, instances; `recurrence` cycle (references in order);
  `capacity` memory; `enumeration` basis, refuted, nodes; `solver` basis, refuted, nodes, and who answered.
- ``length``: `recurrence` interval (longest path at it); `resource` interval, unit, instances, earliest, remaining,
  work_cycles; `proof-log` interval, refuted, log; `solver` basis and who answered.
- ``ring_bytes``: `recurrence` interval (fewest slots by longest paths); `proof-log` interval, length, refuted, log;
  `solver` basis and who answered.

A `basis` is the bound below the search: value, proof and evidence of a kind above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue
from treadle.ir.proof_log.errors import UnreadableProof, WrongStep
from treadle.ir.proof_log.packed import unpacked
from treadle.ir.proof_log.problem import Problem
from treadle.ir.proof_log.replay import replay
from treadle.ir.tile.constraints import Arc, arc_of, arcs, free_bytes
from treadle.ir.tile.cycles import longest_paths
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.refutation import cheaper, shorter
from treadle.ir.tile.refute import refuted
from treadle.ir.tile.schedule import Schedule

LEVELS = (("ii", "cycles"), ("length", "cycles"), ("ring_bytes", "bytes"))
"""Levels of a modulo schedule in order, with their units; a certificate has a first part of them."""
MAX_NODES = 1_000_000
"""Largest search a checker is willing to repeat."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """Claims recomputed, claims that rest on a solver's word, and what is wrong."""

    rederived: int
    on_solver_word: int
    findings: tuple[Finding, ...]


class Refused(Exception):
    """A claim that does not hold: the finding's code, message, expectation and what was found."""

    def __init__(self, code: str, message: str, expected: object = "", found: object = "") -> None:
        super().__init__(message)
        self.parts = (code, message, str(expected), str(found))


def recheck(loop: Loop, schedule: Schedule, certificate: Certificate) -> Recheck:
    """Recompute every level of the certificate; the schedule itself is `schedule.check`'s concern.

    Codes: TRD410 levels, TRD411 value, TRD412 status, TRD413 bound, TRD414 evidence.
    """
    where = f"{loop.name}.certificate"
    findings = [Finding("TRD410", where, *parts) for parts in _check_levels(loop, certificate)]
    if findings:
        return Recheck(0, 0, tuple(findings))
    rederived = on_word = 0
    for level in certificate.levels:
        for check in (_check_value, check_status, _check_bound):
            try:
                check(loop, schedule, level)
            except Refused as refusal:
                findings.append(Finding(refusal.parts[0], f"{where}.{level.name}", *refusal.parts[1:]))
        rederived += 1 + level.proof.checkable
        on_word += not level.proof.checkable
    return Recheck(rederived, on_word, tuple(findings))


def _check_levels(loop: Loop, certificate: Certificate) -> list[tuple[str, str, str]]:
    wrong: list[tuple[str, str, str]] = []
    expected = LEVELS if loop.rings else LEVELS[:2]
    found = tuple((level.name, level.unit) for level in certificate.levels)
    if not found or found != expected[: len(found)]:
        wrong.append(("levels are not those of a modulo schedule", str(expected), str(found)))
    if certificate.problem != f"modulo/{loop.name}":
        wrong.append(("certificate of another problem", f"modulo/{loop.name}", certificate.problem))
    if any(level.maximize for level in certificate.levels):
        wrong.append(("every level is minimized", "minimize", "maximize"))
    return wrong


def check_interval(loop: Loop, bound: int, proof: ProofKind, evidence: dict[str, Any]) -> None:
    """Recompute a bound on the interval of a loop, whatever its schedule is; raises Refused."""
    none = Schedule(loop.name, bound, {}, 0, {})
    _check_bound(loop, none, Level("ii", "cycles", bound + 1, bound, Status.FEASIBLE, proof, evidence))


def _check_value(loop: Loop, schedule: Schedule, level: Level) -> None:
    expected = _value_of(loop, schedule, level.name)
    if level.value != expected:
        raise Refused("TRD411", "the value is not that of the schedule", expected, level.value)


def _value_of(loop: Loop, schedule: Schedule, level: str) -> int:
    return {
        "ii": schedule.ii_cycles,
        "length": schedule.length_cycles,
        "ring_bytes": sum(ring.slot_bytes * schedule.ring_depths[ring.name] for ring in loop.rings),
    }[level]


def check_status(loop: Loop, schedule: Schedule, level: Level) -> None:
    """Refuse a status that is not what value and bound give."""
    expected = Status.OPTIMAL if level.bound == level.value else Status.FEASIBLE
    if level.status is not expected:
        raise Refused("TRD412", "the status is not what value and bound give", expected.value, level.status.value)


def _check_bound(loop: Loop, schedule: Schedule, level: Level) -> None:
    if level.bound is None:
        return
    derive = DERIVATIONS.get((level.name, level.proof))
    if derive is None:
        raise Refused("TRD414", "a kind of proof this level does not have", "", level.proof.value)
    bound, evidence = level.bound, level.evidence
    guarded(lambda: derive(loop, schedule, bound, evidence))


def guarded(derive: Callable[[], None]) -> None:
    """Run a derivation; evidence it cannot read is refused too."""
    try:
        derive()
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise Refused("TRD414", f"the evidence lacks or misstates {error}") from None
    except InvalidValue as error:
        raise Refused("TRD414", str(error)) from None


def expect(what: str, expected: object, found: object) -> None:
    """Refuse a bound that is not what was recomputed."""
    if expected != found:
        raise Refused("TRD413", what, expected, found)


def _count(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    expect("an interval is at least one cycle", 1, bound)


def _interval_by_resource(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    unit = loop.unit(evidence["unit"])
    if unit.count is None:
        raise Refused("TRD413", f"unit `{unit.name}` is unlimited")
    occupied = sum(operation.occupancy_cycles for operation in loop.operations if operation.unit == unit.name)
    expect(f"cycles of unit `{unit.name}`", occupied, evidence["occupied_cycles"])
    expect(f"instances of unit `{unit.name}`", unit.count, evidence["instances"])
    expect(f"cycles of unit `{unit.name}` over its instances", -(-occupied // unit.count), bound)


def _interval_by_recurrence(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    cycle = [arc_of(loop, reference) for reference in evidence["cycle"]]
    for arc, following in zip(cycle, [*cycle[1:], *cycle[:1]], strict=True):
        if arc.target != following.source:
            names = (loop.operations[arc.target].name, loop.operations[following.source].name)
            raise Refused("TRD413", "the cycle is broken", *names)
    distance = sum(arc.distance for arc in cycle)
    if distance <= 0:
        raise Refused("TRD413", "the cycle has no distance", ">= 1", distance)
    expect("delay over distance of the cycle", -(-sum(arc.delay_cycles for arc in cycle) // distance), bound)


def _interval_by_capacity(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    memory = evidence["memory"]
    free = free_bytes(loop, memory)
    below = least_ring_bytes(loop, ceil(bound) - 1, memory)
    if below <= free:
        raise Refused("TRD413", f"`{memory}` also fits one cycle below the bound", f"> {free} bytes", f"{below} bytes")
    overfull = [
        c.memory for c in loop.capacities if least_ring_bytes(loop, int(bound), c.memory) > free_bytes(loop, c.memory)
    ]
    expect("memories overfull at the bound itself", [], overfull)


def _interval_by_refutation(
    loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any], *, repeat: bool
) -> None:
    basis = evidence["basis"]
    _check_basis("ii", loop, schedule, basis)
    expect("intervals refuted", list(range(basis["value"], int(bound))), evidence["refuted"])
    nodes = evidence["nodes"]
    if not 1 <= nodes <= MAX_NODES:
        raise Refused("TRD414", "size of the search to repeat", f"1 to {MAX_NODES}", nodes)
    for interval in evidence["refuted"] if repeat else ():
        if not refuted(loop, interval, nodes):
            raise Refused("TRD413", f"interval {interval} is not refuted by a search of {nodes} nodes")


def _interval_by_enumeration(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    _interval_by_refutation(loop, schedule, bound, evidence, repeat=True)


def _interval_by_solver(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    _interval_by_refutation(loop, schedule, bound, evidence, repeat=False)
    named_solver(evidence)


def _length_by_path(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    head, tail = _times(loop, schedule, evidence)
    expect("longest path of the iteration", max(h + t for h, t in zip(head, tail, strict=True)), bound)


def _length_by_unit(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    head, tail = _times(loop, schedule, evidence)
    unit = loop.unit(evidence["unit"])
    if unit.count is None:
        raise Refused("TRD413", f"unit `{unit.name}` is unlimited")
    expect(f"instances of unit `{unit.name}`", unit.count, evidence["instances"])
    earliest, remaining = evidence["earliest"], evidence["remaining"]
    work = sum(
        operation.occupancy_cycles
        for vertex, operation in enumerate(loop.operations)
        if operation.unit == unit.name
        and operation.occupancy_cycles
        and head[vertex] >= earliest
        and tail[vertex] - operation.occupancy_cycles >= remaining
    )
    expect("cycles of the operations between the two times", work, evidence["work_cycles"])
    if work == 0:
        raise Refused("TRD413", "no operation lies between the two times")
    expect("earliest start, work and remaining time", earliest - (-work // unit.count) + remaining, bound)


def _by_solver(level: str) -> Callable[[Loop, Schedule, float, dict[str, Any]], None]:
    def derive(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
        _check_basis(level, loop, schedule, evidence["basis"])
        if bound <= evidence["basis"]["value"]:
            raise Refused("TRD413", "the solver's bound is not above its basis", evidence["basis"]["value"], bound)
        named_solver(evidence)
        if evidence["raw_status"] == "OPTIMAL":
            expect("value that the solver calls optimal", _value_of(loop, schedule, level), bound)

    return derive


def _length_by_log(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    expect("interval of the schedule", schedule.ii_cycles, evidence["interval"])
    expect("length below the bound", bound - 1, evidence["refuted"])
    _replay(shorter(loop, schedule.ii_cycles, evidence["refuted"]), evidence["log"])


def _bytes_by_log(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    expect("interval of the schedule", schedule.ii_cycles, evidence["interval"])
    expect("length of the schedule", schedule.length_cycles, evidence["length"])
    expect("bytes below the bound", bound - 1, evidence["refuted"])
    _replay(cheaper(loop, schedule.ii_cycles, schedule.length_cycles, evidence["refuted"]), evidence["log"])


def _replay(problem: Problem | None, log: str) -> None:
    """Refuse a log that does not refute the problem, and one for what longest paths refute already."""
    if problem is None:
        raise Refused("TRD414", "longest paths alone refute this; no proof log is needed")
    try:
        replay(problem, unpacked(log))
    except (UnreadableProof, WrongStep) as error:
        raise Refused("TRD413", str(error)) from None


def _bytes_by_paths(loop: Loop, schedule: Schedule, bound: float, evidence: dict[str, Any]) -> None:
    expect("interval of the schedule", schedule.ii_cycles, evidence["interval"])
    expect("fewest ring bytes by longest paths", least_ring_bytes(loop, schedule.ii_cycles, None), bound)


def _check_basis(level: str, loop: Loop, schedule: Schedule, basis: dict[str, Any]) -> None:
    kind = ProofKind(basis["proof"])
    if kind in (ProofKind.SOLVER, ProofKind.ENUMERATION) or (level, kind) not in DERIVATIONS:
        raise Refused("TRD414", "a basis needs a kind that involves no search", "", kind.value)
    DERIVATIONS[level, kind](loop, schedule, basis["value"], basis["evidence"])


def named_solver(evidence: dict[str, Any]) -> None:
    """Refuse a solver's word without the solver's name."""
    for name in ("solver", "version", "raw_status"):
        if not isinstance(evidence[name], str) or not evidence[name]:
            raise Refused("TRD414", f"the solver's `{name}` is not named")


def _times(loop: Loop, schedule: Schedule, evidence: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return longest paths to each start and from each start to the end of the iteration."""
    interval = schedule.ii_cycles
    expect("interval of the schedule", interval, evidence["interval"])
    edges = [(arc.source, arc.target, _weight(arc, interval)) for arc in arcs(loop)]
    count = len(loop.operations)
    ends = [(count, vertex, operation.latency_cycles) for vertex, operation in enumerate(loop.operations)]
    heads = longest_paths(count, edges)
    tails = longest_paths(count + 1, [*ends, *((target, source, weight) for source, target, weight in edges)])
    if heads is None or tails is None:
        raise Refused("TRD413", f"a recurrence exceeds the interval {interval}")
    return heads[0], tails[0][:count]


def least_ring_bytes(loop: Loop, interval: int, memory: str | None) -> int:
    """Return the fewest bytes of the rings of a memory (of all, if None) at an interval, by longest paths."""
    total = 0
    for ring in loop.rings:
        if memory is not None and ring.memory != memory:
            continue
        reach = _reach(loop, interval, loop.index[ring.producer])
        need = 1
        for reader in ring.readers:
            path = reach[loop.index[reader.operation]]
            if path is not None:
                need = max(need, -(-(path + reader.hold_cycles + interval * reader.distance) // interval))
        total += need * ring.slot_bytes
    return total


def _reach(loop: Loop, interval: int, origin: int) -> list[int | None]:
    """Return longest paths from one operation; None where there is none."""
    if interval < 1:
        raise Refused("TRD413", "an interval is at least one cycle", 1, interval)
    values: list[int | None] = [None] * len(loop.operations)
    values[origin] = 0
    every = arcs(loop)
    for _ in range(len(values) + 1):
        changed = False
        for arc in every:
            start = values[arc.source]
            if start is None:
                continue
            reach, there = start + _weight(arc, interval), values[arc.target]
            if there is None or reach > there:
                values[arc.target] = reach
                changed = True
        if not changed:
            return values
    raise Refused("TRD413", f"a recurrence exceeds the interval {interval}")


def _weight(arc: Arc, interval: int) -> int:
    return arc.delay_cycles - interval * arc.distance


Derivation = Callable[[Loop, Schedule, float, dict[str, Any]], None]
DERIVATIONS: dict[tuple[str, ProofKind], Derivation] = {
    ("ii", ProofKind.COUNT): _count,
    ("ii", ProofKind.RESOURCE): _interval_by_resource,
    ("ii", ProofKind.RECURRENCE): _interval_by_recurrence,
    ("ii", ProofKind.CAPACITY): _interval_by_capacity,
    ("ii", ProofKind.ENUMERATION): _interval_by_enumeration,
    ("ii", ProofKind.SOLVER): _interval_by_solver,
    ("length", ProofKind.RECURRENCE): _length_by_path,
    ("length", ProofKind.RESOURCE): _length_by_unit,
    ("length", ProofKind.PROOF_LOG): _length_by_log,
    ("length", ProofKind.SOLVER): _by_solver("length"),
    ("ring_bytes", ProofKind.RECURRENCE): _bytes_by_paths,
    ("ring_bytes", ProofKind.PROOF_LOG): _bytes_by_log,
    ("ring_bytes", ProofKind.SOLVER): _by_solver("ring_bytes"),
}
