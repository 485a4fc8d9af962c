"""Frozen data to JSON and back, and the places of its errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.ir.codec import decode, encode, file_locator, path_text
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue, MissingField, UnknownField, WrongType


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Leaf:
    name: str
    size: int = 1
    share: Fraction = Fraction(1, 2)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InvalidValue(message=f"`{self.name}` has a negative size")


@dataclass(frozen=True, slots=True)
class Branch:
    colour: Colour
    leaves: tuple[Leaf, ...]
    weight: float | None = None
    pair: tuple[int, str] = (0, "")
    notes: dict[str, int] = field(default_factory=dict[str, int])
    anything: Any = None


LEAVES = st.builds(Leaf, st.text(max_size=5), st.integers(0, 9), st.fractions())
BRANCHES = st.builds(
    Branch,
    st.sampled_from(Colour),
    st.lists(LEAVES, max_size=3).map(tuple),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.tuples(st.integers(), st.text(max_size=3)),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    st.none() | st.booleans() | st.lists(st.integers(), max_size=2),
)


@given(BRANCHES)
def test_round_trip(branch: Branch) -> None:
    assert decode(Branch, encode(branch), file_locator("f.json")) == branch


def test_defaults_are_left_out() -> None:
    assert encode(Branch(Colour.RED, ())) == {"colour": "red", "leaves": []}


@pytest.mark.parametrize(
    ("data", "error", "place", "words"),
    [
        ({"colour": "red", "leaves": [], "colr": 1}, UnknownField, "f.json: colr", "did you mean `colour`"),
        ({"colour": "red"}, MissingField, "f.json", "leaves"),
        ({"colour": "rod", "leaves": []}, WrongType, "f.json: colour", "did you mean `red`"),
        ({"colour": "red", "leaves": [{"name": 3}]}, WrongType, "f.json: leaves[0].name", "a string"),
        ({"colour": "red", "leaves": [{"name": "a", "size": True}]}, WrongType, "leaves[0].size", "an integer"),
        ({"colour": "red", "leaves": [{"name": "a", "share": "1/0"}]}, WrongType, "leaves[0].share", "share"),
        ({"colour": "red", "leaves": [{"name": "a", "size": -1}]}, InvalidValue, "f.json: leaves[0]", "negative size"),
        ({"colour": "red", "leaves": [], "pair": [1]}, WrongType, "f.json: pair", "a list of 2"),
        ({"colour": "red", "leaves": [], "weight": "x"}, WrongType, "f.json: weight", "a number"),
        ({"colour": [], "leaves": []}, WrongType, "f.json: colour", "one of red, blue"),
        ([], WrongType, "f.json", "a table"),
    ],
)
def test_errors_name_place_and_way_out(data: object, error: type[TreadleError], place: str, words: str) -> None:
    with pytest.raises(error) as caught:
        decode(Branch, data, file_locator("f.json"))
    message = caught.value.render()
    assert place in message
    assert words in message


def test_path_text() -> None:
    assert path_text(("kernels", 2, "loop", "units", 0)) == "kernels[2].loop.units[0]"
