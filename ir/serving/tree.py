"""A branch-and-bound tree as a certificate, and the bound it proves, recomputed in whole numbers with safe rounding.

Inner nodes split one integer variable: `x <= at` below, `x >= at + 1` above, so the leaves cover every integer point. A
leaf carries multipliers of the rows. For any multipliers of the right sign the Lagrangian
`y b + sum_j max over the leaf's box of (c_j - y A_j) x_j` bounds the leaf (weak duality): rounding in the solver that
found them can weaken the bound, never make it wrong. A leaf marked `empty` carries a Farkas ray: the same expression
without the objective is negative, so no point of the leaf satisfies the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

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
    scaled = _Scaled.of(program)
    boxes: dict[int, Box] = {0: scaled.box}
    worst: Fraction | None = None
    for position, node in enumerate(tree.nodes):
        box = boxes.pop(position, None)
        if box is None:
            raise InvalidValue(message=f"node {position} of the tree has no parent")
        if isinstance(node, Split):
            _divide(program, tree, position, node, box, boxes)
            continue
        bound = scaled.leaf_bound(node, box)
        if bound is not None:
            worst = bound if worst is None else max(worst, bound)
    if boxes:
        raise InvalidValue(message="the tree has nodes that are missing")
    return worst if worst is None or not program.integral else Fraction(floor(worst))


_DIGITS = 24
_UNIT: int = 10**_DIGITS
"""Numbers are whole multiples of 1 / _UNIT; what rounding to them may change is added to the bound."""

Box = tuple[tuple[int, int], ...]


def _divide(program: Program, tree: Tree, position: int, node: Split, box: Box, boxes: dict[int, Box]) -> None:
    inside = 0 <= node.variable < len(program.variables) and position < min(node.below, node.above)
    if not inside or node.below == node.above or max(node.below, node.above) >= len(tree.nodes):
        raise InvalidValue(message=f"node {position} of the tree is malformed")
    if not program.variables[node.variable].integer:
        raise InvalidValue(message=f"node {position} splits `{program.variables[node.variable].name}`, no integer")
    lower, upper = box[node.variable]
    below = (lower, min(upper, node.at * _UNIT))
    above = (max(lower, (node.at + 1) * _UNIT), upper)
    for child, part in ((node.below, below), (node.above, above)):
        if child in boxes:
            raise InvalidValue(message=f"node {child} of the tree has two parents")
        boxes[child] = (*box[: node.variable], part, *box[node.variable + 1 :])


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A program in whole numbers: coefficients to the nearest unit, boxes rounded outwards."""

    program: Program
    rows: tuple[tuple[tuple[tuple[int, int], ...], int, bool, str], ...]
    objective: tuple[int, ...]
    box: Box

    @classmethod
    def of(cls, program: Program) -> _Scaled:
        """Scale a program."""
        return cls(
            program,
            tuple(
                (
                    tuple((index, _units(factor)) for index, factor in row.terms),
                    _units(row.limit),
                    row.equal,
                    row.name,
                )
                for row in program.rows
            ),
            tuple(_units(variable.objective) for variable in program.variables),
            tuple((floor(one.lower * _UNIT), ceil(one.upper * _UNIT)) for one in program.variables),
        )

    def leaf_bound(self, leaf: Leaf, box: Box) -> Fraction | None:
        """Return the Lagrangian bound of a leaf, None for a leaf proven empty.

        Multipliers are rounded first: any multipliers of the right sign prove a bound. A price is then off by at most
        half a unit for every unit of the multipliers, and of the objective; the bound grows by that over the box.
        """
        if any(lower > upper for lower, upper in box):
            return None
        prices = [0 if leaf.empty else objective * _UNIT for objective in self.objective]
        total, used = 0, 0
        for key, text in leaf.multipliers.items():
            terms, limit, equal, name = self.rows[_position(key, len(self.rows))]
            multiplier = _parsed(text)
            if multiplier < 0 and not equal:
                raise InvalidValue(message=f"row `{name}` has a negative multiplier")
            total += multiplier * limit * _UNIT
            used += abs(multiplier)
            for index, factor in terms:
                prices[index] -= multiplier * factor
        reach = 0
        for price, (lower, upper) in zip(prices, box, strict=True):
            total += price * (upper if price > 0 else lower)
            reach += max(abs(lower), abs(upper))
        total += (used + _UNIT) * (reach + _UNIT)
        if leaf.empty and total >= 0:
            raise InvalidValue(message="a leaf is claimed empty and its ray proves nothing")
        return None if leaf.empty else Fraction(total, _UNIT**3)


def _units(value: Fraction) -> int:
    """Return a number in units, to the nearest."""
    return (2 * value.numerator * _UNIT + value.denominator) // (2 * value.denominator)


@lru_cache(maxsize=4096)  # the leaves of a tree share most of their multipliers
def _parsed(text: str) -> int:
    """Return a multiplier in units."""
    whole, _, digits = text.partition(".")
    if whole.isdigit() and len(digits) <= _DIGITS and (digits or "0").isdigit() and text.isascii():
        return int(whole + digits.ljust(_DIGITS, "0"))
    return _units(Fraction(text))


def _position(key: str, count: int) -> int:
    if not key.isdigit() or int(key) >= count:
        raise InvalidValue(message=f"multiplier of row {key}, of {count}")
    return int(key)
