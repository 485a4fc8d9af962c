"""Says where two values first differ, for findings that compare what a plan holds with what was derived again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treadle.ir.codec import Path, encode, path_text

MOST_CHARACTERS = 60
"""Longer values are cut in messages."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place, as in `crossings[0].bytes`, and what two values have there; no place where they are not alike at all."""

    place: str
    expected: str
    found: str


def first_difference(expected: object, found: object) -> Difference:
    """Return the first place at which the plain forms of two values differ."""
    path, right, stated = _first(encode(expected), encode(found), ())
    return Difference(path_text(path) or "all of it", _shortened(right), _shortened(stated))


def _first(expected: object, found: object, path: Path) -> tuple[Path, object, object]:
    right, stated = _parts(expected), _parts(found)
    if type(expected) is type(found):
        for step in dict.fromkeys([*right, *stated]):
            if right.get(step) != stated.get(step):
                return _first(right.get(step), stated.get(step), (*path, step))
    return path, expected, found


def _parts(value: object) -> Mapping[str | int, object]:
    """Return the elements of a dictionary or a list by their keys or positions."""
    if isinstance(value, Mapping):
        return value
    return dict(enumerate(value)) if isinstance(value, Sequence) and not isinstance(value, str) else {}


def _shortened(value: object) -> str:
    text = "left out" if value is None else str(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} ..."
