"""Every change of one value in a plan's data, by kind and by place; the plan is sealed again after each."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from treadle.ir.plan import digest

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mutation:
    """One change: its kind, where, and the changed data."""

    kind: str
    path: Path
    data: dict[str, Any]

    @property
    def place(self) -> str:
        """The path with indices and given names left out: the kind of place."""
        return re.sub(r"\.?\d+", "[]", ".".join(map(str, self.path)))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "one more": lambda v: v + 1,
    "one less": lambda v: v - 1,
    "doubled": lambda v: v * 2 + 2,
    "a thousandth more": lambda v: v * 1.001 + 0.001,
    "negated": lambda v: not v,
    "renamed": lambda v: v + "x",
    "first dropped": lambda v: v[1:],
    "last doubled": lambda v: [*v, v[-1]],
    "first two swapped": lambda v: [v[1], v[0], *v[2:]],
    "key dropped": lambda v: dict(list(v.items())[1:]),
}


def kinds_for(value: Any) -> tuple[str, ...]:
    """Return the kinds of change that apply to a value."""
    if isinstance(value, bool):
        return ("negated",)
    if isinstance(value, int):
        return ("one more", "one less", "doubled")
    if isinstance(value, float):
        return ("a thousandth more", "doubled")
    if isinstance(value, str):
        return ("renamed",)
    if isinstance(value, list) and value:
        swap = ("first two swapped",) if len(value) > 1 and value[0] != value[1] else ()
        return ("first dropped", "last doubled", *swap)
    return ("key dropped",) if isinstance(value, dict) and value else ()


def mutations(data: dict[str, Any], skip: Callable[[str], bool]) -> Iterator[Mutation]:
    """Yield one mutation for each kind and kind of place (the first place of each), sealed again."""
    seen: set[tuple[str, str]] = set()
    for path, value in _walk(data, ()):
        for kind in kinds_for(value):
            changed = Mutation(kind, path, {})
            key = (kind, changed.place)
            if key in seen or skip(changed.place):
                continue
            seen.add(key)
            copied = copy.deepcopy(data)
            _replace(copied, path, CHANGES[kind](value))
            yield Mutation(kind, path, sealed_again(copied))


def sealed_again(data: dict[str, Any]) -> dict[str, Any]:
    """Recompute id and seal, as someone would who changes a plan on purpose."""
    fields = {"kind": data.get("kind"), "inputs": data.get("inputs"), "options": data.get("options")}
    data["id"] = digest(fields)[:16]
    data.pop("seal", None)
    data["seal"] = digest(data)
    return data


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if path:
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _walk(item, (*path, key))


def _replace(data: Any, path: Path, value: Any) -> None:
    for step in path[:-1]:
        data = data[step]
    data[path[-1]] = value
