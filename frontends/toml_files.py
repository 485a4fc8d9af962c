"""TOML files at the boundary: pydantic models that forbid unknown fields, and their errors as coded, located ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from treadle.frontends.located import toml_place
from treadle.ir.codec import Path as Steps
from treadle.ir.codec import path_text
from treadle.ir.diagnostics import Place, TreadleError, closest
from treadle.ir.errors import MalformedText, MissingField, UnknownField, WrongType
from treadle.ir.plan import read_text

_POSITION = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)")


class Table(BaseModel):
    """A table of a specification: no unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


T = TypeVar("T", bound=Table)


def read_toml(kind: type[T], path: Path) -> tuple[T, str]:
    """Return a TOML file as a `kind`, and its text for later places.

    Raises:
        UnreadableFile, MalformedText, UnknownField, MissingField, WrongType: with line and column.
    """
    text = read_text(path)
    return parse_toml(kind, text, str(path)), text


def parse_toml(kind: type[T], text: str, file: str) -> T:
    """Return a TOML text as a `kind`; raises as `read_toml` does."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _malformed(str(error), text, file) from None
    except (RecursionError, ValueError, OverflowError) as error:
        raise MalformedText(place=Place(file), message=f"not TOML: {error}") from None
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _located(kind, error.errors(include_url=False)[0], text, file) from None


def _malformed(message: str, text: str, file: str) -> MalformedText:
    match = _POSITION.search(message)
    lines = text.splitlines()
    line = int(match[1]) if match and match[1] else max(len(lines), 1)
    column = int(match[2]) if match and match[2] else 0
    shown = lines[line - 1] if line <= len(lines) and len(lines[line - 1]) <= 160 else ""
    return MalformedText(
        place=Place(file, line, column if shown else 0, text=shown),
        message=f"not TOML: {_POSITION.sub('', message)}",
        expected="a complete TOML document",
    )


def _located(kind: type[Table], detail: ErrorDetails, text: str, file: str) -> TreadleError:
    steps: Steps = tuple(detail["loc"])
    place = toml_place(text, file, steps)
    name = str(steps[-1]) if steps else "document"
    if detail["type"] == "extra_forbidden":
        allowed = fields_at(kind, steps[:-1])
        return UnknownField(
            place=place, field=name, expected=f"one of {', '.join(allowed)}", hint=closest(name, allowed)
        )
    if detail["type"] == "missing":
        return MissingField(place=place, field=path_text(steps), hint=f"add `{name}`")
    return WrongType(
        place=place, field=path_text(steps) or name, found=_brief(detail["input"]), reason=_reason(detail["msg"])
    )


def fields_at(kind: type[Table], steps: Steps) -> tuple[str, ...]:
    """Return the fields that the table at `steps` may have."""
    for step in steps:
        if isinstance(step, int):  # a position in an array of tables
            continue
        field = kind.model_fields.get(step)
        inner = _table_in(field.annotation) if field else None
        if inner is None:
            return ()
        kind = inner
    return tuple(kind.model_fields)


def _table_in(annotation: Any) -> type[Table] | None:
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _table_in(argument):
            return found
    return None


def _reason(message: str) -> str:
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _brief(value: object) -> str:
    text = repr(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"
