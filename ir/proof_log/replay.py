"""Replays a DRCP proof against a problem: every inference from its constraint, every nogood by unit propagation.

An inference is right if its premises and the opposite of its consequent contradict the constraint it names, seen alone;
how the solver came to it does not matter, so labels are not trusted. A nogood is right if assuming its atoms and
applying the steps it names, each of them right, ends in a contradiction. The empty nogood refutes the problem.
"""

from __future__ import annotations

from collections.abc import Iterable

from treadle.ir.proof_log.drcp import Atom, Inference, Nogood, Step, parse
from treadle.ir.proof_log.errors import WrongStep
from treadle.ir.proof_log.problem import Cumulative, Linear, Problem, Term


def replay(problem: Problem, text: str) -> int:
    """Check that a proof refutes a problem; return the number of its steps.

    Raises:
        UnreadableProof: the text is not of the DRCP form.
        WrongStep: a step does not follow, or the proof does not end in the empty nogood.
    """
    steps = parse(text)
    inferences: dict[int, Inference] = {}
    nogoods: dict[int, tuple[Atom, ...]] = {}
    for step in steps:
        if step.step <= len(problem.constraints) or step.step in inferences or step.step in nogoods:
            raise WrongStep(step=step.step, reason="its number is taken")
        if isinstance(step, Inference):
            if not _follows(problem, step, nogoods):
                raise WrongStep(step=step.step, reason=f"constraint {step.tag} allows its opposite")
            inferences[step.step] = step
        else:
            _check_nogood(problem, step, inferences, nogoods)
            nogoods[step.step] = step.atoms
    if not _refutes(steps):
        raise WrongStep(step="(last)", reason="the empty nogood is not reached")
    return len(steps)


def _refutes(steps: list[Step]) -> bool:
    return bool(steps) and isinstance(steps[-1], Nogood) and not steps[-1].atoms


class Domains:
    """What is assumed about the variables: first and last value, and values taken out in between."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.holes: dict[int, set[int]] = {}
        self.empty = False

    def bounds(self, variable: int) -> tuple[int, int]:
        """Return first and last value."""
        first, last = self.problem.bounds[variable]
        return self.first.get(variable, first), self.last.get(variable, last)

    def assume(self, atom: Atom) -> None:
        """Add a fact; `empty` tells whether nothing is left."""
        first, last = self.bounds(atom.variable)
        if atom.operator in (">=", "=="):
            first = max(first, atom.value)
        if atom.operator in ("<=", "=="):
            last = min(last, atom.value)
        holes = self.holes.setdefault(atom.variable, set())
        if atom.operator == "!=":
            holes.add(atom.value)
        while first in holes:
            first += 1
        while last in holes:
            last -= 1
        self.first[atom.variable], self.last[atom.variable] = first, last
        self.empty = self.empty or first > last

    def hold(self, atom: Atom) -> bool:
        """Whether a fact follows from what is assumed."""
        first, last = self.bounds(atom.variable)
        if atom.operator == "<=":
            return last <= atom.value
        if atom.operator == ">=":
            return first >= atom.value
        if atom.operator == "==":
            return first == last == atom.value
        return not first <= atom.value <= last or atom.value in self.holes.get(atom.variable, ())

    def values(self, variable: int) -> Iterable[int]:
        """Return the values left, in order."""
        first, last = self.bounds(variable)
        holes = self.holes.get(variable, set())
        return (value for value in range(first, last + 1) if value not in holes)


def _follows(problem: Problem, inference: Inference, nogoods: dict[int, tuple[Atom, ...]]) -> bool:
    """Whether the premises and the opposite of the consequent contradict the named constraint, nogood or domains."""
    domains = Domains(problem)
    assumed = [*inference.premises, *([inference.consequent.negated()] if inference.consequent else [])]
    if any(not atom.variable < len(problem.bounds) for atom in assumed):
        return False
    for atom in assumed:
        domains.assume(atom)
    if domains.empty:
        return True
    if inference.tag in nogoods:
        return all(domains.hold(atom) for atom in nogoods[inference.tag])
    if not 1 <= inference.tag <= len(problem.constraints):
        return False
    constraint = problem.constraints[inference.tag - 1]
    if isinstance(constraint, Linear):
        return _least(constraint, domains) > constraint.most
    return _overloaded(constraint, domains, {atom.variable for atom in assumed})


def _least(constraint: Linear, domains: Domains) -> int:
    total = 0
    for term in constraint.terms:
        first, last = domains.bounds(term.variable)
        total += term.scale * (first if term.scale > 0 else last) + term.offset
    return total


def _overloaded(constraint: Cumulative, domains: Domains, touched: set[int]) -> bool:
    """Whether tasks exceed the capacity where they must run, or leave one of them no start.

    Only tasks that the inference speaks of count, and those that must run at some time from the beginning.
    """
    tasks = [
        (start, duration, demand)
        for start, duration, demand in zip(constraint.starts, constraint.durations, constraint.demands, strict=True)
        if start.variable in touched or _certain(start, duration, domains)
    ]
    profile: dict[int, int] = {}
    for start, duration, demand in tasks:
        for time in _certain(start, duration, domains):
            profile[time] = profile.get(time, 0) + demand
    if any(level > constraint.capacity for level in profile.values()):
        return True
    return any(_nowhere(*task, constraint.capacity, domains, profile) for task in tasks)


def _certain(start: Term, duration: int, domains: Domains) -> range:
    """Return when a task runs whatever its start."""
    first, last = domains.bounds(start.variable)
    return range(last + start.offset, first + start.offset + duration)


def _nowhere(start: Term, duration: int, demand: int, capacity: int, domains: Domains, profile: dict[int, int]) -> bool:
    """Whether every start left to a task overloads the profile of the others."""
    own = _certain(start, duration, domains)
    room = capacity - demand
    full = {time for time, level in profile.items() if level - (demand if time in own else 0) > room}
    return bool(full) and all(
        any(time in full for time in range(value + start.offset, value + start.offset + duration))
        for value in domains.values(start.variable)
    )


def _check_nogood(
    problem: Problem, nogood: Nogood, inferences: dict[int, Inference], nogoods: dict[int, tuple[Atom, ...]]
) -> None:
    """Assume the atoms, apply the named steps until nothing changes, and demand a contradiction."""
    domains = Domains(problem)
    for atom in nogood.atoms:
        if atom.variable >= len(problem.bounds):
            raise WrongStep(step=nogood.step, reason=f"there is no variable x{atom.variable}")
        domains.assume(atom)
    waiting = list(nogood.steps)
    while not domains.empty:
        left = [number for number in waiting if not _apply(number, nogood.step, domains, inferences, nogoods)]
        if domains.empty:
            return
        if len(left) == len(waiting):
            raise WrongStep(step=nogood.step, reason="the steps it names give no contradiction")
        waiting = left


def _apply(
    number: int, asking: int, domains: Domains, inferences: dict[int, Inference], nogoods: dict[int, tuple[Atom, ...]]
) -> bool:
    """Apply one step if all (of a nogood: all but one) of its premises hold; return whether it was used."""
    if domains.empty:
        return False
    if number in inferences:
        inference = inferences[number]
        if not all(domains.hold(atom) for atom in inference.premises):
            return False
        if inference.consequent is None:
            domains.empty = True
        else:
            domains.assume(inference.consequent)
        return True
    if number not in nogoods:
        raise WrongStep(step=asking, reason=f"it names step {number}, which is not there yet")
    open_atoms = [atom for atom in nogoods[number] if not domains.hold(atom)]
    if len(open_atoms) > 1:
        return False
    if open_atoms:
        domains.assume(open_atoms[0].negated())
    else:
        domains.empty = True
    return True
