"""Kubernetes quantities, read exactly (apimachinery/pkg/api/resource/quantity.go)."""

from __future__ import annotations

import re
from fractions import Fraction

from treadle.ir.cluster.errors import BadQuantity, NegativeAmount
from treadle.ir.diagnostics import Place

_FACTORS = {
    **{
        suffix: Fraction(10) ** power
        for suffix, power in zip(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), range(-9, 19, 3), strict=True)
    },
    **{f"{suffix}i": Fraction(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))(?:([eE][+-]?[0-9]{1,2})|([KMGTPE]i|[numkMGTPE]))?"
)


def parse_quantity(text: object, place: Place | None = None) -> Fraction:
    """Return a quantity exactly; integers are accepted as JSON has them.

    Raises:
        BadQuantity: no number, an unknown suffix, or an exponent together with a suffix (`1e3Mi`).
        NegativeAmount: below zero.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise BadQuantity(place=place, found=repr(text), expected="a string such as `500m` or `2Gi`")
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise BadQuantity(place=place, found=text, expected="a number with one suffix, such as `1000Mi` or `1e9`")
    value = Fraction(match[1]) * (Fraction(10) ** int(match[2][1:]) if match[2] else _FACTORS[match[3] or ""])
    if value < 0:
        raise NegativeAmount(place=place, what="a quantity", found=text)
    return value


def counted(name: str, text: object) -> Fraction:
    """Return the quantity of a resource; raises also BadQuantity above what can be added up exactly (2^50 units)."""
    value = parse_quantity(text)
    if value * (1000 if name == "cpu" else 1) > _MOST:
        raise BadQuantity(found=text, expected="at most 1Pi bytes or pieces, or 1T cores")
    return value


_MOST = 2**50
"""A hundred thousand of the largest amounts still add up in 64 bits with the weights of the solvers."""


def amount(name: str, quantity: Fraction, *, up: bool) -> int:
    """Return a quantity in the unit the scheduler counts (milli for `cpu`, whole otherwise), rounded up or down."""
    scaled = quantity * 1000 if name == "cpu" else quantity
    return -(-scaled.numerator // scaled.denominator) if up else scaled.numerator // scaled.denominator
