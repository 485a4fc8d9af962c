"""Branch and bound over a small mixed-integer program, keeping the multipliers of every leaf as a certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from itertools import count
from math import floor, inf

from ortools.math_opt.python import mathopt

from treadle.ir.certificate import Status
from treadle.ir.serving.program import Program
from treadle.ir.serving.tree import Leaf, Split, Tree
from treadle.solvers.backend import Limits, solve_linear

_WHOLE = 1e-6


@dataclass(frozen=True, slots=True)
class Solved:
    """A solution (None when there is none), its value, the tree, and whether the tree was finished."""

    solution: tuple[Fraction, ...] | None
    value: float | None
    tree: Tree
    finished: bool


@dataclass(slots=True)
class _Open:
    """A node waiting: its place in the tree and the bounds that differ from the root's."""

    position: int
    lower: dict[int, int]
    upper: dict[int, int]


@dataclass(slots=True)
class _Relaxation:
    """The program as one MathOpt model whose variable bounds move from node to node."""

    program: Program
    model: mathopt.Model = field(default_factory=mathopt.Model)
    variables: list[mathopt.Variable] = field(default_factory=list[mathopt.Variable])
    rows: list[mathopt.LinearConstraint] = field(default_factory=list[mathopt.LinearConstraint])

    def __post_init__(self) -> None:
        for variable in self.program.variables:
            self.variables.append(
                self.model.add_variable(lb=float(variable.lower), ub=float(variable.upper), name=variable.name)
            )
        for row in self.program.rows:
            terms = mathopt.fast_sum([float(factor) * self.variables[index] for index, factor in row.terms])
            limit = float(row.limit)
            least = limit if row.equal else -inf
            self.rows.append(self.model.add_linear_constraint(lb=least, ub=limit, expr=terms, name=row.name))
        self.model.maximize(
            sum(
                float(variable.objective) * self.variables[index]
                for index, variable in enumerate(self.program.variables)
                if variable.objective
            )
        )

    def move(self, node: _Open) -> None:
        """Set the bounds of a node."""
        for index, variable in enumerate(self.program.variables):
            self.variables[index].lower_bound = float(node.lower.get(index, variable.lower))
            self.variables[index].upper_bound = float(node.upper.get(index, variable.upper))


def maximise(
    program: Program, *, nodes: int = 2000, gap: float = 1e-9, start: tuple[Fraction, ...] | None = None
) -> Solved:
    """Maximise a program; the returned tree proves the bound.

    Args:
        program: the program; integer variables need finite bounds.
        nodes: nodes to visit at most; what is then open stays as leaves with their own bounds.
        gap: leaves whose bound exceeds the best value by less than this (relative) are closed.
        start: a known solution.
    """
    relaxation = _Relaxation(program)
    tree: list[Split | Leaf | None] = [None]
    best = start
    best_value = float(_value(program, start)) if start else float("-inf")
    order = count()
    queue: list[tuple[float, int, _Open, Leaf | None, tuple[float, ...] | None]] = []

    def evaluate(node: _Open) -> None:
        bound, leaf, values = _relax(relaxation, node)
        heappush(queue, (-bound, next(order), node, leaf, values))

    evaluate(_Open(0, {}, {}))
    visited = 0
    finished = True
    while queue:
        minus, _, node, leaf, values = heappop(queue)
        bound = -minus
        closed = values is None or _closed(program, bound, best_value, gap)
        fractional = None if values is None else _fractional(program, values)
        if not closed and fractional is None and values is not None:
            candidate = _exact(program, values)
            if (value := float(_value(program, candidate))) > best_value:
                best, best_value = candidate, value
            closed = True
        if not closed and visited >= nodes:
            closed, finished = True, False
        if closed or fractional is None or values is None:
            tree[node.position] = leaf
            continue
        visited += 1
        at = floor(values[fractional] + _WHOLE)
        below, above = len(tree), len(tree) + 1
        tree += [None, None]
        tree[node.position] = Split(fractional, at, below, above)
        evaluate(_Open(below, node.lower, {**node.upper, fractional: at}))
        evaluate(_Open(above, {**node.lower, fractional: at + 1}, node.upper))
    kept = tuple(node for node in tree if node is not None)
    return Solved(best, best_value if best else None, Tree(kept), finished)


def incumbent(program: Program) -> tuple[Fraction, ...] | None:
    """Return a good solution from the root of a mixed-integer solver: a start for `maximise`, no claim; or None."""
    relaxation = _Relaxation(program)
    for variable, chosen in zip(program.variables, relaxation.variables, strict=True):
        chosen.integer = variable.integer
    outcome = solve_linear(relaxation.model, Limits(nodes=1), engine="highs")
    if outcome.value is None:
        return None
    whole = {
        index: round(outcome[chosen])
        for index, (variable, chosen) in enumerate(zip(program.variables, relaxation.variables, strict=True))
        if variable.integer
    }
    plain = _Relaxation(program)
    plain.move(_Open(0, whole, whole))
    fixed = solve_linear(plain.model, Limits())
    if fixed.status is not Status.OPTIMAL:
        return None
    return _exact(program, tuple(fixed[chosen] for chosen in plain.variables))


def _closed(program: Program, bound: float, best: float, gap: float) -> bool:
    if best == float("-inf"):
        return False
    if program.integral:
        return floor(bound + _WHOLE) <= round(best)
    return bound <= best + gap * max(1.0, abs(best))


def _relax(relaxation: _Relaxation, node: _Open) -> tuple[float, Leaf, tuple[float, ...] | None]:
    """Solve a node's relaxation: bound, leaf with multipliers, values (None when the node is empty)."""
    relaxation.move(node)
    outcome = solve_linear(relaxation.model, Limits())
    if outcome.status is not Status.OPTIMAL:
        return float("-inf"), _ray(relaxation, node), None
    return (
        outcome.value or 0.0,
        _leaf(relaxation, outcome.duals, empty=False),
        tuple(outcome[variable] for variable in relaxation.variables),
    )


def _leaf(relaxation: _Relaxation, duals: dict[int, float], empty: bool) -> Leaf:
    multipliers: dict[str, str] = {}
    for index, row in enumerate(relaxation.program.rows):
        dual = duals[relaxation.rows[index].id]
        if abs(dual) > 1e-12 and (dual > 0 or row.equal):
            multipliers[str(index)] = f"{dual:.12g}"
    return Leaf(multipliers, empty)


def _ray(relaxation: _Relaxation, node: _Open) -> Leaf:
    """Find multipliers that prove a node empty: the duals of the least total violation of the rows."""
    model = mathopt.Model()
    program = relaxation.program
    variables = [
        model.add_variable(lb=source.lower_bound, ub=max(source.upper_bound, source.lower_bound))
        for source in relaxation.variables
    ]
    rows: list[mathopt.LinearConstraint] = []
    excess: list[mathopt.Variable] = []
    for row in program.rows:
        terms = mathopt.fast_sum([float(factor) * variables[index] for index, factor in row.terms])
        limit, over = float(row.limit), model.add_variable(lb=0.0)
        excess.append(over)
        if row.equal:
            under = model.add_variable(lb=0.0)
            excess.append(under)
            rows.append(model.add_linear_constraint(lb=limit, ub=limit, expr=terms - over + under))
        else:
            rows.append(model.add_linear_constraint(lb=-inf, ub=limit, expr=terms - over))
    model.maximize(-sum(excess))
    outcome = solve_linear(model, Limits())
    shown = _Relaxation.__new__(_Relaxation)
    shown.program, shown.rows = program, rows
    return _leaf(shown, outcome.duals, empty=True)


def _fractional(program: Program, values: tuple[float, ...]) -> int | None:
    """Return the integer variable farthest from a whole number, of those to split first if any; None when all are."""
    worst, chosen = (False, _WHOLE), None
    for index, (variable, value) in enumerate(zip(program.variables, values, strict=True)):
        if variable.integer and (distance := abs(value - round(value))) > _WHOLE:
            rank = (variable.first, distance)
            if rank > worst:
                worst, chosen = rank, index
    return chosen


def _exact(program: Program, values: tuple[float, ...]) -> tuple[Fraction, ...]:
    """Round integers to whole numbers and continuous values to twelve digits inside their box."""
    return tuple(
        Fraction(round(value))
        if variable.integer
        else min(max(Fraction(f"{value:.12g}"), variable.lower), variable.upper)
        for variable, value in zip(program.variables, values, strict=True)
    )


def _value(program: Program, solution: tuple[Fraction, ...]) -> Fraction:
    return sum(
        (variable.objective * value for variable, value in zip(program.variables, solution, strict=True)), Fraction(0)
    )
