"""Re-derives what a certificate claims of a warp schedule, from the loop with warps alone.

Evidence beyond that of `claims` (whose kinds for ``ii`` and ``length`` hold here too):

- ``ii`` by `resource`: issue_cycles and groups, or longest_issue_cycles, or flights (a limit by name).
- ``traffic_bytes``, ``barriers`` by `count`: forced, the number of dependences between roles.
- ``exposed_waits`` by `count`: forced, those of operations that must share a group.
- ``groups`` by `resource`: interval, issue_cycles, roles.
- ``groups`` by `capacity`: interval, registers (of one group for all without a role), values, roles.
- ``registers`` by `capacity`: interval, traffic_bytes, values (those that overlap).
- ``ii`` by `enumeration`: basis, refuted; every assignment to groups from the basis on is refuted by issue cycles and
  recurrences (`assignments.least_interval`), then the intervals one by one, by registers too.
- any other level by `enumeration`: interval, most (levels decided before); no assignment has less
  (`assignments.least`).
- any other level by `enumeration` with ``orders``: interval, most, refuted; paths under the orders of the full unit and
  assignments leave nothing (`warp_refutation`). Of ``ii``: basis and refuted, every interval so.
- any other level by `enumeration` with ``turns``: interval, most, refuted; a search over turns leaves nothing
  (`turns`). Of ``ii``: basis, refuted, and ``turns``, ranges (first and last interval) that it refutes at once.
- any level by `proof-log`: see `warp_logs`.
- any level by `solver`: basis, and who answered; ``ii`` also the refuted intervals. ``second`` says whether another
  encoding agrees, and over how many questions, which is a solver's word as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.diagnostics import Finding
from treadle.ir.tile.assignments import DECIDED, WalkTooLong, least, least_interval, least_roomy
from treadle.ir.tile.claims import DERIVATIONS, Recheck, Refused, check_status, expect, guarded, named_solver
from treadle.ir.tile.register_bound import register_bound, single_group_bound
from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.stays import homes_of
from treadle.ir.tile.turn_search import Effort, SearchTooLong
from treadle.ir.tile.turns import first_found
from treadle.ir.tile.warp_logs import by_logs, by_orders, check_counted, check_logs, refuted_levels
from treadle.ir.tile.warps import WarpLoop, WarpSchedule, barriers, exposed_waits, least_flight_intervals, traffic_bytes

UNITS = {
    "ii": "cycles",
    "traffic_bytes": "bytes",
    "barriers": "1",
    "exposed_waits": "1",
    "groups": "1",
    "registers": "1",
    "length": "cycles",
}
"""Levels of a warp schedule with their units; ``ii`` comes first, the others in any order."""


def recheck_warps(warps: WarpLoop, made: WarpSchedule, certificate: Certificate) -> Recheck:
    """Recompute every level of the certificate; legality is `warps.check_warps`'s concern. Codes as in `claims`."""
    where = f"{warps.loop.name}.certificate"
    names = [level.name for level in certificate.levels]
    units = [level.unit for level in certificate.levels]
    proper = names[:1] == ["ii"] and len(set(names)) == len(names) and set(names) <= set(UNITS)
    if not proper or units != [UNITS[name] for name in names] or any(level.maximize for level in certificate.levels):
        finding = Finding("TRD410", where, "levels are not those of a warp schedule", str(list(UNITS)), str(names))
        return Recheck(0, 0, (finding,))
    if certificate.problem != f"pipeline/{warps.loop.name}":
        found = certificate.problem
        return Recheck(0, 0, (Finding("TRD410", where, "another problem", f"pipeline/{warps.loop.name}", found),))
    findings: list[Finding] = []
    for position, level in enumerate(certificate.levels):
        before = certificate.levels[:position]
        for check in (_check_value, _check_status, _check_bound):
            try:
                check(warps, made, level, before)
            except Refused as refusal:
                findings.append(Finding(refusal.parts[0], f"{where}.{level.name}", *refusal.parts[1:]))
    checkable = sum(level.proof.checkable for level in certificate.levels)
    count = len(certificate.levels)
    return Recheck(count + checkable, count - checkable, tuple(findings))


def check_interval(warps: WarpLoop, bound: int, proof: ProofKind, evidence: dict[str, Any]) -> None:
    """Recompute a bound on the interval of a loop over warp groups, whatever its schedule is; raises Refused."""
    none = WarpSchedule(Schedule(warps.loop.name, bound, {}, 0, {}), {}, ())
    status = Status.FEASIBLE
    _check_bound(warps, none, Level("ii", UNITS["ii"], bound + 1, bound, status, proof, evidence), ())


def value_of(warps: WarpLoop, made: WarpSchedule, name: str) -> int:
    """Return what a level of the objective counts in a schedule."""
    match name:
        case "ii":
            return made.schedule.ii_cycles
        case "traffic_bytes":
            return traffic_bytes(warps, made.groups)
        case "barriers":
            return barriers(warps, made.groups)
        case "exposed_waits":
            return exposed_waits(warps, made.groups)
        case "groups":
            return made.group_count
        case "registers":
            return max(made.registers)
        case _:
            return made.schedule.length_cycles


def _check_value(warps: WarpLoop, made: WarpSchedule, level: Level, before: tuple[Level, ...]) -> None:
    expected = value_of(warps, made, level.name)
    if level.value != expected:
        raise Refused("TRD411", "the value is not that of the schedule", expected, level.value)


def _check_status(warps: WarpLoop, made: WarpSchedule, level: Level, before: tuple[Level, ...]) -> None:
    check_status(warps.loop, made.schedule, level)


def _check_bound(warps: WarpLoop, made: WarpSchedule, level: Level, before: tuple[Level, ...]) -> None:
    bound = level.bound
    if bound is None:
        return
    if level.proof is ProofKind.SOLVER:
        guarded(lambda: _by_solver(warps, made, level, before, bound))
    else:
        guarded(lambda: _derive(warps, made, level.name, level.proof, bound, level.evidence, before))


def _by_solver(warps: WarpLoop, made: WarpSchedule, level: Level, before: tuple[Level, ...], bound: float) -> None:
    basis = level.evidence["basis"]
    _derive(warps, made, level.name, ProofKind(basis["proof"]), basis["value"], basis["evidence"], before)
    named_solver(level.evidence)
    if bound <= basis["value"]:
        raise Refused("TRD413", "the solver's bound is not above its basis", basis["value"], bound)
    if level.name == "ii":
        _expect_refuted(warps, basis["value"], int(bound), level.evidence["refuted"])
    elif level.evidence["raw_status"] == "OPTIMAL":
        expect("value that the solver calls optimal", value_of(warps, made, level.name), bound)
    second = level.evidence.get("second", {"agrees": False})
    if second != {"agrees": False} and not (second["agrees"] is True and int(second["questions"]) >= 0):
        raise Refused("TRD414", "what the second encoding says", "whether it agrees, over how many questions", second)


def _derive(
    warps: WarpLoop,
    made: WarpSchedule,
    name: str,
    kind: ProofKind,
    bound: float,
    evidence: dict[str, Any],
    before: tuple[Level, ...],
) -> None:
    own = _OWN.get((name, kind))
    if name == "ii" and "unit" in evidence:
        own = None
    if own is not None:
        own(warps, made, bound, evidence, before)
        return
    known = DERIVATIONS.get((name, kind))
    if known is None or kind in (ProofKind.SOLVER, ProofKind.ENUMERATION):
        raise Refused("TRD414", "a kind of proof this level does not have", "", kind.value)
    known(warps.loop, made.schedule, bound, evidence)


def _interval_by_issue(
    warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> None:
    if "longest_issue_cycles" in evidence:
        longest = max(issue.issue_cycles for issue in warps.issues)
        expect("longest issue", longest, evidence["longest_issue_cycles"])
        expect("longest issue", longest, bound)
        return
    if "flights" in evidence:
        least_of = {limit.name: value for limit, value in least_flight_intervals(warps)}
        expect("interval by operations in flight", least_of[evidence["flights"]], bound)
        return
    cycles, groups = _free_issue_cycles(warps), warps.limits.most_groups - len(warps.roles)
    expect("issue cycles", cycles, evidence["issue_cycles"])
    expect("groups without a role", groups, evidence["groups"])
    expect("issue cycles over the most groups", -(-cycles // groups), bound)


def _free_issue_cycles(warps: WarpLoop) -> int:
    return sum(issue.issue_cycles for issue in warps.issues if not issue.role)


def _forced(count: Callable[[Any], int]) -> Callable[..., None]:
    def derive(
        warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
    ) -> None:
        role = {issue.operation: issue.role for issue in warps.issues}
        ends = warps.loop.dependences
        forced = [c for c in warps.crossings if role[ends[c.dependence].source] != role[ends[c.dependence].target]]
        expect("dependences between roles", len(forced), evidence["forced"])
        expect("traffic between roles", sum(count(crossing) for crossing in forced), bound)

    return derive


def _waits_of_classes(
    warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> None:
    """Operations that must share a group expose these waits, whatever else is in it."""
    least_waits = exposed_waits(warps, homes_of(warps, None))
    expect("waits beside synchronous work they must share a group with", least_waits, evidence["forced"])
    expect("exposed waits", least_waits, bound)


def _groups_by_issue(
    warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> None:
    interval, cycles = made.schedule.ii_cycles, _free_issue_cycles(warps)
    expect("interval of the schedule", interval, evidence["interval"])
    expect("issue cycles", cycles, evidence["issue_cycles"])
    expect("roles", len(warps.roles), evidence["roles"])
    free = any(not issue.role for issue in warps.issues)
    expect("groups by issue cycles", len(warps.roles) + max(int(free), -(-cycles // interval)), bound)


def _groups_by_registers(
    warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> None:
    """One group for all operations without a role exceeds its registers, so there are two of them at least."""
    expect("interval of the schedule", made.schedule.ii_cycles, evidence["interval"])
    registers, names = single_group_bound(warps, made.schedule.ii_cycles)
    expect("registers of one group", registers, evidence["registers"])
    expect("values that overlap", list(names), evidence["values"])
    expect("roles", len(warps.roles), evidence["roles"])
    if registers <= warps.limits.registers_per_group:
        most = f"> {warps.limits.registers_per_group}"
        raise Refused("TRD413", "one group has the registers that are needed", most, registers)
    expect("groups by registers", len(warps.roles) + 2, bound)


def _paced(warps: WarpLoop, basis: int, most: int) -> int:
    """Return the least interval that issue cycles and recurrences over groups allow."""
    try:
        return least_interval(warps, basis, most)
    except WalkTooLong:
        return basis


def _interval_by_walk(
    warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> None:
    intervals = _refuted_intervals(warps, made, bound, evidence, before)
    interval = intervals[0] if intervals else int(bound)
    ranges, effort = evidence.get("turns", []), Effort()
    while interval < bound:
        try:
            passed = least_roomy(warps, interval, int(bound))
        except WalkTooLong:
            passed = interval
        if passed > interval:
            interval = passed
            continue
        turned = next(((low, high) for low, high in ranges if low <= interval <= high), None)
        if turned is not None:
            check_turned(warps, turned, {}, effort)
            interval = turned[1] + 1
            continue
        if evidence.get("orders") is not True:
            raise Refused("TRD413", f"an assignment to groups is left at interval {interval}")
        check_counted(warps, interval, {})
        interval += 1


def check_turned(warps: WarpLoop, intervals: tuple[int, int], most: dict[str, int], effort: Effort) -> None:
    """Refuse a refutation that a search over turns does not repeat."""
    try:
        found = first_found(warps, int(intervals[0]), int(intervals[1]), most, effort)
    except (WalkTooLong, SearchTooLong):
        raise Refused("TRD413", "the search over turns is too long to repeat") from None
    if found is not None:
        raise Refused("TRD413", f"the search over turns leaves a schedule at interval {intervals[0]}")


def _interval_by_logs(
    warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> None:
    refuted = _refuted_intervals(warps, made, bound, evidence, before)
    for interval, logs, exact in zip(refuted, evidence["logs"], evidence["exact"], strict=True):
        check_logs(warps, interval, {}, logs, exact)


def _refuted_intervals(
    warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> list[int]:
    """Return the intervals from the basis, as issue and recurrences over groups raise it, up to the bound."""
    basis = evidence["basis"]
    kind = ProofKind(basis["proof"])
    if kind in (ProofKind.SOLVER, ProofKind.ENUMERATION):
        raise Refused("TRD414", "a basis needs a kind that involves no search", "", kind.value)
    _derive(warps, made, "ii", kind, basis["value"], basis["evidence"], before)
    return _expect_refuted(warps, basis["value"], int(bound), evidence["refuted"])


def _expect_refuted(warps: WarpLoop, basis: int, bound: int, refuted: list[int]) -> list[int]:
    """Refuse a list of refuted intervals that leaves out one between those that issue and recurrences exclude and the
    bound; a search may have begun below them, since it walks over a longer range at once.
    """
    first = _paced(warps, basis, bound)
    if basis <= min(refuted, default=bound) <= first:
        first = min(refuted, default=bound)
    expect("intervals refuted", list(range(first, bound)), refuted)
    return refuted


def _by_walk(name: str) -> Callable[..., None]:
    def derive(
        warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
    ) -> None:
        if evidence.get("orders") is True:
            by_orders(name, warps, made, bound, evidence, before)
            return
        if evidence.get("turns") is True:
            interval = made.schedule.ii_cycles
            most = refuted_levels(name, interval, bound, evidence, before)
            check_turned(warps, (interval, interval), most, Effort())
            return
        expect("interval of the schedule", made.schedule.ii_cycles, evidence["interval"])
        decided = {level.name: level.value for level in before if level.name != "ii"}
        expect("levels decided before", decided, evidence["most"])
        try:
            found = least(warps, made.schedule.ii_cycles, evidence["most"], name, value_of(warps, made, name))
        except WalkTooLong:
            raise Refused("TRD413", "the assignments are too many to go through") from None
        expect(f"least {name} of an assignment", found, bound)

    return derive


def _registers_by_overlap(
    warps: WarpLoop, made: WarpSchedule, bound: float, evidence: dict[str, Any], before: tuple[Level, ...]
) -> None:
    expect("interval of the schedule", made.schedule.ii_cycles, evidence["interval"])
    decided = {level.name: level.value for level in before}
    expect("traffic decided before", decided.get("traffic_bytes"), evidence["traffic_bytes"])
    value, names = register_bound(warps, made.schedule.ii_cycles, evidence["traffic_bytes"])
    expect("values that overlap", list(names), evidence["values"])
    expect("registers of overlapping values", value, bound)


_OWN: dict[tuple[str, ProofKind], Callable[..., None]] = {
    ("ii", ProofKind.RESOURCE): _interval_by_issue,
    ("traffic_bytes", ProofKind.COUNT): _forced(lambda crossing: crossing.bytes),
    ("barriers", ProofKind.COUNT): _forced(lambda crossing: crossing.barriers),
    ("exposed_waits", ProofKind.COUNT): _waits_of_classes,
    ("groups", ProofKind.RESOURCE): _groups_by_issue,
    ("groups", ProofKind.CAPACITY): _groups_by_registers,
    ("registers", ProofKind.CAPACITY): _registers_by_overlap,
    ("ii", ProofKind.ENUMERATION): _interval_by_walk,
    ("ii", ProofKind.PROOF_LOG): _interval_by_logs,
    **{(name, ProofKind.ENUMERATION): _by_walk(name) for name in (*DECIDED, "registers", "length")},
    **{(name, ProofKind.PROOF_LOG): by_logs(name) for name in (*DECIDED, "registers", "length")},
}
