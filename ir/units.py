"""Quantities as people write them (`600ms`, `141GiB`, `12/s`), read exactly into base units."""

from __future__ import annotations

import re
from fractions import Fraction

from treadle.ir.diagnostics import Place
from treadle.ir.errors import WrongUnit

_SI = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_IEC = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}

UNITS: dict[str, dict[str, Fraction]] = {
    "time": {
        "ns": Fraction(1, 10**9),
        "us": Fraction(1, 10**6),
        "ms": Fraction(1, 1000),
        "s": Fraction(1),
        "min": Fraction(60),
        "h": Fraction(3600),
        "d": Fraction(86400),
    },
    "memory": {f"{p}B": Fraction(f) for p, f in {**_SI, **_IEC}.items() if p != "k"} | {"kB": Fraction(1000)},
    "rate": {"/s": Fraction(1), "/min": Fraction(1, 60), "/h": Fraction(1, 3600)},
    "bandwidth": {f"{p}B/s": Fraction(f) for p, f in {**_SI, **_IEC}.items()}
    | {f"{p}bit/s": Fraction(f, 8) for p, f in _SI.items()},
    "frequency": {f"{p}Hz": Fraction(f) for p, f in _SI.items()},
    "power": {f"{p}W": Fraction(f) for p, f in _SI.items()},
}
"""Unit suffixes per dimension, with the factor to the base unit (s, byte, 1/s, byte/s, Hz, W)."""

_QUANTITY = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-z/]*)\s*")


def parse_quantity(text: str, dimension: str, place: Place | None = None) -> Fraction:
    """Read a non-negative quantity with its unit, exactly.

    Args:
        text: such as ``600ms`` or ``141 GiB``.
        dimension: a key of `UNITS`.
        place: where the text stands, for the error.

    Returns: the amount in the dimension's base unit.

    Raises:
        WrongUnit: no number, no unit, or a unit of another dimension.
    """
    match = _QUANTITY.fullmatch(text)
    units = UNITS[dimension]
    if match is None or match[2] not in units:
        raise WrongUnit(
            place=place,
            found=text,
            dimension=dimension,
            expected=f"a number with one of {', '.join(units)}, such as `{_example(dimension)}`",
        )
    return Fraction(match[1]) * units[match[2]]


def _example(dimension: str) -> str:
    return {
        "time": "600ms",
        "memory": "141GiB",
        "rate": "12/s",
        "bandwidth": "50GB/s",
        "frequency": "1.8GHz",
        "power": "700W",
    }[dimension]
