"""What a proof log has to refute for a claim about a loop: schedules that are too short, or take too few bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from treadle.ir.errors import InvalidValue
from treadle.ir.proof_log.problem import Problem, Term
from treadle.ir.tile.constraints import arcs, free_bytes
from treadle.ir.tile.cycles import longest_paths
from treadle.ir.tile.loop import Loop


@dataclass(slots=True)
class Draft:
    """A problem of starts at an interval, being stated: the start of every operation, its window, and its slot."""

    ii: int
    windows: list[tuple[int, int]]
    problem: Problem = field(default_factory=Problem)
    starts: list[Term] = field(default_factory=list[Term])
    slots: dict[int, Term] = field(default_factory=dict[int, Term])

    def slot(self, vertex: int) -> Term:
        """Return the start modulo the interval: the start itself, moved, where its window lies in one stage."""
        if vertex not in self.slots:
            self.slots[vertex] = _slot(self.problem, self.ii, self.windows[vertex], self.starts[vertex])
        return self.slots[vertex]


def shorter(loop: Loop, ii: int, most_cycles: int) -> Problem | None:
    """Return the problem of a schedule at interval `ii` that is no longer than `most_cycles`.

    Its variables are the starts, within what longest paths leave of the length, then slots, stages and ring depths.
    Returns None where the paths alone leave no start to some operation.

    Raises:
        InvalidValue: a recurrence exceeds the interval.
    """
    found = draft(loop, ii, most_cycles)
    return None if found is None else found.problem


def draft(loop: Loop, ii: int, most_cycles: int) -> Draft | None:
    """Return the problem of `shorter` with what more constraints need; raises as it does."""
    windows = _windows(loop, ii, most_cycles)
    return None if any(first > last for first, last in windows) else drafted(loop, ii, windows, {})


def drafted(loop: Loop, ii: int, windows: Sequence[tuple[int, int]], slots: dict[str, int]) -> Draft:
    """Return the problem of starts in given windows, some of them at a given slot modulo the interval.

    Starts are moved by whole intervals so that none is negative.
    """
    lift = -(min(first for first, _ in windows) // ii) * ii
    windows = [(first + lift, last + lift) for first, last in windows]
    found = Draft(ii, windows)
    problem = found.problem
    starts = found.starts = [problem.variable(first, last) for first, last in windows]
    for arc in arcs(loop):
        delay = arc.delay_cycles - ii * arc.distance
        if windows[arc.source][1] + delay > windows[arc.target][0]:
            problem.at_most([starts[arc.source], _minus(starts[arc.target])], -delay)
    for name, slot in slots.items():
        problem.equal([found.slot(loop.index[name])], slot)
    _add_units(found, loop)
    _add_rings(problem, loop, ii, starts)
    return found


def cheaper(loop: Loop, ii: int, most_cycles: int, most_bytes: int) -> Problem | None:
    """Return the problem of a schedule as `shorter` has it whose rings take no more than `most_bytes` together."""
    problem = shorter(loop, ii, most_cycles)
    if problem is not None:
        depths = range(len(problem.bounds) - len(loop.rings), len(problem.bounds))
        problem.at_most([Term(depth, r.slot_bytes) for depth, r in zip(depths, loop.rings, strict=True)], most_bytes)
    return problem


def _minus(term: Term) -> Term:
    return Term(term.variable, -term.scale, -term.offset)


def _windows(loop: Loop, ii: int, most_cycles: int) -> list[tuple[int, int]]:
    edges = [(arc.source, arc.target, arc.delay_cycles - ii * arc.distance) for arc in arcs(loop)]
    count = len(loop.operations)
    ends = [(count, vertex, operation.latency_cycles) for vertex, operation in enumerate(loop.operations)]
    heads = longest_paths(count, edges)
    tails = longest_paths(count + 1, [*ends, *((target, source, weight) for source, target, weight in edges)])
    if heads is None or tails is None:
        raise InvalidValue(message=f"a recurrence of `{loop.name}` exceeds the interval {ii}")
    return [(head, most_cycles - tail) for head, tail in zip(heads[0], tails[0][:count], strict=True)]


def _add_units(found: Draft, loop: Loop) -> None:
    """Keep limited units within their instances modulo the interval: every use twice, at its slot and one later."""
    ii = found.ii
    for unit in loop.units:
        users = [v for v, operation in enumerate(loop.operations) if operation.unit == unit.name]
        whole = sum(loop.operations[v].occupancy_cycles // ii for v in users)
        partial = [v for v in users if loop.operations[v].occupancy_cycles % ii]
        if unit.count is None or len(partial) <= unit.count - whole:
            continue
        rests = [loop.operations[v].occupancy_cycles % ii for v in partial]
        slots = [found.slot(v) for v in partial]
        if max(rests) > 1:
            slots += [Term(slot.variable, 1, slot.offset + ii) for slot in slots]
            rests += rests
        found.problem.cumulative(slots, rests, unit.count - whole)


def _slot(problem: Problem, ii: int, window: tuple[int, int], start: Term) -> Term:
    """Return the start modulo the interval: the start itself, moved, where its window lies in one stage."""
    first, last = window[0] // ii, window[1] // ii
    if first == last:
        return Term(start.variable, 1, -ii * first)
    slot = problem.variable(0, ii - 1)
    stage = problem.variable(first, last)
    problem.equal([slot, Term(stage.variable, ii), _minus(start)], 0)
    return slot


def _add_rings(problem: Problem, loop: Loop, ii: int, starts: list[Term]) -> None:
    """Give every ring as many slots as its lifetimes need, and every memory room for them."""
    depths: dict[str, Term] = {}
    for ring in loop.rings:
        depth = depths[ring.name] = problem.variable(1, ring.max_depth)
        for reader in ring.readers:
            held = reader.hold_cycles + ii * reader.distance
            terms = [starts[loop.index[reader.operation]], _minus(starts[loop.index[ring.producer]])]
            problem.at_most([*terms, Term(depth.variable, -ii)], -held)
    for memory in dict.fromkeys(ring.memory for ring in loop.rings):
        uses = [Term(depths[r.name].variable, r.slot_bytes) for r in loop.rings if r.memory == memory and r.slot_bytes]
        if uses:
            problem.at_most(uses, free_bytes(loop, memory))
