"""A branch-and-bound tree as a certificate, and the bound it proves, recomputed in exact arithmetic.

Inner nodes split one integer variable: `x <= at` below, `x >= at + 1` above, so the leaves cover every integer point. A
leaf carries multipliers of the rows. For any multipliers of the right sign the Lagrangian
`y b + sum_j max over the leaf's box of (c_j - y A_j) x_j` bounds the leaf (weak duality): rounding in the solver that
found them can weaken the bound, never make it wrong. A leaf marked `empty` carries a Farkas ray: the same expression
without the objective is negative, so no point of the leaf satisfies the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from treadle.ir.errors import InvalidValue
from treadle.ir.serving.program import Program


@dataclass(frozen=True, slots=True)
class Leaf:
    """Multipliers by row position (decimal text, so that plans are stable), or a ray of an empty leaf."""

    multipliers: dict[str, str]
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """An inner node: children are positions in the tree's node list, both larger than this node's own."""

    variable: int
    at: int
    below: int
    above: int


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes, root first."""

    nodes: tuple[Split | Leaf, ...]

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return sum(isinstance(node, Leaf) for node in self.nodes)


def tree_bound(program: Program, tree: Tree) -> Fraction | None:
    """Return the bound that the tree proves on the maximum; None when it proves that there is no solution.

    Raises:
        InvalidValue: the tree is malformed, or a leaf's ray proves nothing.
    """
    if not tree.nodes:
        raise InvalidValue(message="the tree has no nodes")
    boxes: dict[int, tuple[tuple[Fraction, Fraction], ...]] = {
        0: tuple((variable.lower, variable.upper) for variable in program.variables)
    }
    worst: Fraction | None = None
    for position, node in enumerate(tree.nodes):
        box = boxes.pop(position, None)
        if box is None:
            raise InvalidValue(message=f"node {position} of the tree has no parent")
        if isinstance(node, Split):
            _divide(program, tree, position, node, box, boxes)
            continue
        bound = _leaf_bound(program, node, box)
        if bound is not None:
            worst = bound if worst is None else max(worst, bound)
    if boxes:
        raise InvalidValue(message="the tree has nodes that are missing")
    return worst if worst is None or not program.integral else Fraction(floor(worst))


def _divide(
    program: Program,
    tree: Tree,
    position: int,
    node: Split,
    box: tuple[tuple[Fraction, Fraction], ...],
    boxes: dict[int, tuple[tuple[Fraction, Fraction], ...]],
) -> None:
    inside = 0 <= node.variable < len(program.variables) and position < min(node.below, node.above)
    if not inside or node.below == node.above or max(node.below, node.above) >= len(tree.nodes):
        raise InvalidValue(message=f"node {position} of the tree is malformed")
    if not program.variables[node.variable].integer:
        raise InvalidValue(message=f"node {position} splits `{program.variables[node.variable].name}`, no integer")
    lower, upper = box[node.variable]
    below = (lower, min(upper, Fraction(node.at)))
    above = (max(lower, Fraction(node.at + 1)), upper)
    for child, part in ((node.below, below), (node.above, above)):
        if child in boxes:
            raise InvalidValue(message=f"node {child} of the tree has two parents")
        boxes[child] = (*box[: node.variable], part, *box[node.variable + 1 :])


def _leaf_bound(program: Program, leaf: Leaf, box: tuple[tuple[Fraction, Fraction], ...]) -> Fraction | None:
    """Return the Lagrangian bound of a leaf, None for a leaf proven empty."""
    if any(lower > upper for lower, upper in box):
        return None
    prices = [Fraction(0) if leaf.empty else variable.objective for variable in program.variables]
    total = Fraction(0)
    for key, text in leaf.multipliers.items():
        row = program.rows[_position(key, len(program.rows))]
        multiplier = Fraction(text)
        if multiplier < 0 and not row.equal:
            raise InvalidValue(message=f"row `{row.name}` has a negative multiplier")
        total += multiplier * row.limit
        for index, factor in row.terms:
            prices[index] -= multiplier * factor
    for price, (lower, upper) in zip(prices, box, strict=True):
        total += price * (upper if price > 0 else lower)
    if leaf.empty and total >= 0:
        raise InvalidValue(message="a leaf is claimed empty and its ray proves nothing")
    return None if leaf.empty else total


def _position(key: str, count: int) -> int:
    if not key.isdigit() or int(key) >= count:
        raise InvalidValue(message=f"multiplier of row {key}, of {count}")
    return int(key)
