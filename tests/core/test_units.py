"""Quantities with units."""

from fractions import Fraction

import pytest

from treadle.ir.errors import WrongUnit
from treadle.ir.units import UNITS, parse_quantity


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("600ms", "time", Fraction(6, 10)),
        ("141GiB", "memory", 141 * 2**30),
        ("1.5 GB", "memory", 15 * 10**8),
        ("12/s", "rate", 12),
        ("30/min", "rate", Fraction(1, 2)),
        ("400Gbit/s", "bandwidth", 50 * 10**9),
        ("1e-3s", "time", Fraction(1, 1000)),
    ],
)
def test_exact(text: str, dimension: str, value: Fraction) -> None:
    assert parse_quantity(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("600", "time"),
        ("-5ms", "time"),
        ("5GB", "time"),
        ("", "rate"),
        ("1e9999s", "time"),
        ("ms", "time"),
        ("١ms", "time"),
    ],
)
def test_refused_with_the_way_out(text: str, dimension: str) -> None:
    with pytest.raises(WrongUnit) as caught:
        parse_quantity(text, dimension)
    assert "such as" in caught.value.render()


def test_every_dimension_has_a_readable_example() -> None:
    for dimension in UNITS:
        with pytest.raises(WrongUnit, match="is not a"):
            parse_quantity("?", dimension)
