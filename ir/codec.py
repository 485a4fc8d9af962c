"""Frozen dataclasses to plain data and back, by their annotations: the mechanism behind plan.json and the text form.

Understood annotations: dataclasses, enums (by value), `bool`, `int`, `float`, `str`, `None`, unions of these,
`tuple[T, ...]`, `tuple[A, B]`, `dict[str, T]`, `Any` (plain JSON data), `Fraction` (as ``"p/q"``) and types given to
`register_scalar`. Fields equal to their default are left out; unknown and missing fields are errors with their place.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable
from enum import Enum
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from treadle.ir.diagnostics import Place, TreadleError, closest
from treadle.ir.errors import MissingField, UnknownField, WrongType

T = TypeVar("T")
Path = tuple[str | int, ...]
Locator = Callable[[Path], Place]
"""Where the value at a path stands in the source."""

_PLAIN = frozenset((int, float, str, bool))
_SCALARS: dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]] = {}


def register_scalar(kind: type[T], encode_to: Callable[[T], str], decode_from: Callable[[str], T]) -> None:
    """Teach the codec a type that is written as a string; `decode_from` raises ValueError on bad text."""
    _SCALARS[kind] = (encode_to, decode_from)


register_scalar(Fraction, str, Fraction)


def encode(value: object) -> Any:
    """Return `value` as JSON data: dictionaries, lists, strings, numbers, booleans and None."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {
            field.name: encode(item)
            for field in dataclasses.fields(value)
            if not _is_default(field, item := getattr(value, field.name))
        }
    if isinstance(value, tuple | list):
        return [item if type(item) in _PLAIN else encode(item) for item in value]
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    for kind, (encode_to, _) in _SCALARS.items():
        if isinstance(value, kind):
            return encode_to(value)
    raise TypeError(f"no plain form for {type(value).__name__}")


def decode(kind: type[T], data: object, locate: Locator) -> T:
    """Build a `kind` from JSON data.

    Raises:
        UnknownField, MissingField, WrongType: with the place that `locate` gives for the offending path.
        TreadleError: from the type's own validity check, with the place added.
    """
    result: T = _decode(kind, data, (), locate)
    return result


def file_locator(file: str) -> Locator:
    """Return a locator that knows only the file and shows the path inside it (`kernels[2].loop.units`)."""
    return lambda path: Place(file, path=path_text(path))


def path_text(path: Path) -> str:
    """Return a path as people write it: `kernels[2].loop.units`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else step)
    return text


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        return type(value) is type(field.default) and value == field.default
    return field.default_factory is not dataclasses.MISSING and value == field.default_factory()


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode(kind: Any, data: Any, path: Path, locate: Locator) -> Any:
    if kind is Any:
        return data
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(kind), data, path, locate)
    if origin is tuple:
        return _decode_tuple(get_args(kind), data, path, locate)
    if origin is dict:
        _expect(isinstance(data, dict), "a table of fields", data, path, locate)
        if _all_plain(get_args(kind)[1], data.values()):
            return dict(data)
        return {key: _decode(get_args(kind)[1], item, (*path, key), locate) for key, item in data.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, path, locate)
    return _decode_scalar(kind, data, path, locate)


def _decode_dataclass(kind: Any, data: Any, path: Path, locate: Locator) -> Any:
    _expect(isinstance(data, dict), f"a table with the fields of a {_spaced(kind.__name__)}", data, path, locate)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in data:
        if key not in fields:
            raise UnknownField(
                place=locate((*path, key)),
                field=key,
                expected=f"one of {', '.join(fields)}",
                hint=closest(str(key), list(fields)),
            )
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(_hints(kind)[name], data[name], (*path, name), locate)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise MissingField(place=locate(path), field=name, hint=f"add `{name}`")
    try:
        return kind(**values)
    except TreadleError as error:
        error.place = error.place or locate(path)
        raise


def _decode_tuple(kinds: tuple[Any, ...], data: Any, path: Path, locate: Locator) -> Any:
    _expect(isinstance(data, list | tuple), "a list", data, path, locate)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        if _all_plain(kinds[0], data):
            return tuple(data)
        kinds = (kinds[0],) * len(data)
    _expect(len(data) == len(kinds), f"a list of {len(kinds)}", data, path, locate)
    return tuple(
        _decode(kind, item, (*path, index), locate) for index, (kind, item) in enumerate(zip(kinds, data, strict=True))
    )


def _all_plain(kind: Any, items: Iterable[Any]) -> bool:
    """Whether all items are of a kind that is written as it is: no need to look at them one by one."""
    return kind in _PLAIN and all(type(item) is kind for item in items)


def _decode_union(kinds: tuple[Any, ...], data: Any, path: Path, locate: Locator) -> Any:
    if data is None and type(None) in kinds:
        return None
    choices = [kind for kind in kinds if kind is not type(None)]
    for kind in choices:
        if isinstance(kind, type) and type(data) is kind:
            return data
    failure: TreadleError | None = None
    for kind in choices:
        try:
            return _decode(kind, data, path, locate)
        except TreadleError as error:
            # The alternative that read furthest is the one that was meant.
            failure = error if failure is None or _depth(error) >= _depth(failure) else failure
    raise (
        failure
        if failure
        else WrongType(place=locate(path), field=_last(path), found=_brief(data), reason="no such form")
    )


def _decode_scalar(kind: Any, data: Any, path: Path, locate: Locator) -> Any:
    if kind in _SCALARS:
        _expect(isinstance(data, str), "a string", data, path, locate)
        try:
            return _SCALARS[kind][1](data)
        except (ValueError, ZeroDivisionError) as error:
            raise WrongType(place=locate(path), field=_last(path), found=_brief(data), reason=str(error)) from None
    if isinstance(kind, type) and issubclass(kind, Enum):
        members = {member.value: member for member in kind}
        if not isinstance(data, str | int) or data not in members:
            raise WrongType(
                place=locate(path),
                field=_last(path),
                found=_brief(data),
                reason="not one of the allowed words",
                expected=f"one of {', '.join(map(str, members))}",
                hint=closest(str(data), [str(word) for word in members]),
            )
        return members[data]
    if kind is float:
        _expect(isinstance(data, int | float) and not isinstance(data, bool), "a number", data, path, locate)
        return data
    if kind in (int, str, bool):
        _expect(
            type(data) is kind, {int: "an integer", str: "a string", bool: "true or false"}[kind], data, path, locate
        )
        return data
    raise TypeError(f"the codec does not know {kind!r}")


def _expect(condition: bool, expected: str, data: Any, path: Path, locate: Locator) -> None:
    if not condition:
        raise WrongType(
            place=locate(path), field=_last(path), found=_brief(data), reason="wrong kind of value", expected=expected
        )


def _depth(error: TreadleError) -> int:
    return len(error.place.path) if error.place else 0


def _last(path: Path) -> str:
    """Return the last named step with the indices behind it; the place tells the rest."""
    named = next((position for position in range(len(path) - 1, -1, -1) if isinstance(path[position], str)), 0)
    return path_text(path[named:]) or "document"


def _brief(data: object) -> str:
    text = repr(data)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _spaced(name: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
