"""What an annotation allows, as the parser and the printer see it."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin

PLAIN: tuple[Any, ...] = (str, int, float, bool, Any, type(None))


def without_none(kind: Any) -> Any:
    """Return the one alternative of `T | None`, the type itself if it is no union, or Any for wider unions."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    return choices[0] if len(choices) == 1 else Any


def alternative(kind: Any, data: dict[str, Any]) -> type | None:
    """Return the dataclass of a union whose fields fit the data, or None."""
    if get_origin(kind) not in (Union, types.UnionType):
        return None
    for choice in get_args(kind):
        if is_record(choice):
            known = fields(choice)
            needed = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
            if needed <= set(data) <= {f.name for f in known}:
                return choice  # type: ignore[no-any-return] # an alternative of the union, seen to be a dataclass
    return None


def item_type(kind: Any, position: int) -> Any:
    """Return the annotation of one item of a tuple; Any where there is none."""
    if get_origin(kind) is not tuple:
        return Any
    arguments = get_args(kind)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return arguments[0]
    return arguments[position] if position < len(arguments) else Any


def value_type(kind: Any) -> Any:
    """Return the annotation of the values of a dictionary; Any where there is none."""
    return get_args(kind)[1] if get_origin(kind) is dict else Any


def is_record(kind: Any) -> bool:
    """Whether the annotation is a dataclass."""
    return isinstance(kind, type) and is_dataclass(kind)


def is_symbolic(kind: Any) -> bool:
    """Whether the codec writes the type as a string of its own (expressions, fractions)."""
    return (
        kind not in PLAIN
        and get_origin(kind) is None
        and not is_record(kind)
        and not (isinstance(kind, type) and issubclass(kind, Enum))
    )


def describe(kind: Any) -> str:
    """Return the annotation in words, for error messages."""
    kind = without_none(kind)
    if get_origin(kind) is tuple:
        return "a list [...]"
    if get_origin(kind) is dict:
        return "a record {...}"
    if is_record(kind):
        return f"a {''.join(f' {c.lower()}' if c.isupper() else c for c in kind.__name__).strip()}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(str(member.value) for member in kind)}"
    words = {str: "a name or a string", int: "an integer", float: "a number", bool: "true or false", Any: "a value"}
    return words.get(kind, "an expression in backquotes")
