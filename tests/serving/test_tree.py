"""Branch-and-bound trees against brute force, and trees that claim too much."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.ir.errors import InvalidValue
from treadle.ir.serving.program import Program, Row, Variable, value_of, violations
from treadle.ir.serving.tree import Leaf, Split, Tree, tree_bound
from treadle.solvers.serving.branch import maximise


@st.composite
def programs(draw: st.DrawFn) -> Program:
    count = draw(st.integers(1, 4))
    variables = tuple(
        Variable(f"x{j}", Fraction(0), Fraction(3), True, Fraction(draw(st.integers(-3, 9)))) for j in range(count)
    )
    rows = tuple(
        Row(
            f"r{i}",
            tuple((j, Fraction(draw(st.integers(-2, 6)))) for j in range(count)),
            Fraction(draw(st.integers(-4, 12))),
            equal=draw(st.booleans()) and i == 0,
        )
        for i in range(draw(st.integers(1, 3)))
    )
    return Program(variables, rows)


@settings(max_examples=40, deadline=None)
@given(programs())
def test_tree_bound_equals_brute_force(program: Program) -> None:
    points = (tuple(map(Fraction, point)) for point in product(range(4), repeat=len(program.variables)))
    best = max((value_of(program, p) for p in points if not violations(program, p, Fraction(0))), default=None)
    solved = maximise(program)
    assert tree_bound(program, solved.tree) == best
    if best is None:
        assert solved.solution is None
    else:
        assert solved.solution is not None
        assert value_of(program, solved.solution) == best


ONE = Program(
    (Variable("x", Fraction(0), Fraction(5), True, Fraction(1)),), (Row("r", ((0, Fraction(2)),), Fraction(7)),)
)


def test_multipliers_give_the_bound() -> None:
    assert tree_bound(ONE, Tree((Leaf({"0": "0.5"}),))) == 3
    assert tree_bound(ONE, Tree((Leaf({}),))) == 5


@pytest.mark.parametrize(
    "tree",
    [
        Tree(()),
        Tree((Leaf({"0": "-1"}),)),
        Tree((Leaf({"7": "1"}),)),
        Tree((Leaf({"0": "1"}, empty=True),)),
        Tree((Split(0, 2, 1, 1), Leaf({}))),
        Tree((Split(0, 2, 1, 5), Leaf({}))),
        Tree((Split(3, 2, 1, 2), Leaf({}), Leaf({}))),
        Tree((Leaf({}), Leaf({}))),
    ],
)
def test_a_malformed_tree_is_refused(tree: Tree) -> None:
    with pytest.raises(InvalidValue):
        tree_bound(ONE, tree)


def test_a_continuous_variable_cannot_be_split() -> None:
    variable = replace(ONE.variables[0], integer=False)
    with pytest.raises(InvalidValue, match="no integer"):
        tree_bound(Program((variable,), ONE.rows), Tree((Split(0, 2, 1, 2), Leaf({}), Leaf({}))))
