"""Objects of the IR to text, led by the same forms and annotations as the parser."""

from __future__ import annotations

import math
from typing import Any, get_origin

from treadle.ir.codec import encode
from treadle.ir.errors import InvalidValue
from treadle.ir.plan import Plan, body_type
from treadle.ir.text.errors import LimitExceeded
from treadle.ir.text.forms import Element, FieldOf, Literal, Optional, field_types, form_of, is_named, name_field
from treadle.ir.text.kinds import alternative, is_record, is_symbolic, item_type, value_type, without_none
from treadle.ir.text.lexer import MAX_DIGITS, bare_or_quoted, quoted
from treadle.ir.text.parser import MAX_DEPTH

WIDTH = 110
_INDENT = "  "
_NO_BLANK_BEFORE = frozenset([":", ",", ")", "]", "@"])
_NO_BLANK_AFTER = ("(", "[", "@")


def print_object(word: str, kind: type, value: object) -> str:
    """Return one document: its word, its name and its record."""
    data = encode(value)
    if kind is Plan:
        data = {"format": data.pop("format", value.format if isinstance(value, Plan) else ""), **data}
    return f"{word} {_named_record(kind, data, 0)}\n"


def _value(kind: Any, data: Any, depth: int) -> str:
    """Return a value; continuation lines are indented for the nesting `depth`."""
    if depth > MAX_DEPTH:
        raise LimitExceeded(found="more", what="levels of nesting", allowed=MAX_DEPTH)
    if isinstance(data, dict) and without_none(kind) is Any and (chosen := alternative(kind, data)):
        return _union_record(chosen, data, depth)
    kind = without_none(kind)
    if isinstance(data, list):
        return _list(kind, data, depth)
    if isinstance(data, dict):
        if not is_record(kind):
            return _record(kind, data, depth)
        form = form_of(kind)
        return _line(kind, form, data, depth) if form and _covers(form, data) else _named_record(kind, data, depth)
    return _scalar(kind, data)


def _scalar(kind: Any, data: Any) -> str:
    if data is None or isinstance(data, bool):
        return {None: "null", True: "true", False: "false"}[data]
    if isinstance(data, float) and not math.isfinite(data):
        raise InvalidValue(message=f"{data} has no text form; plans hold finite numbers only")
    if isinstance(data, int | float):
        if isinstance(data, int) and abs(data) >= 10 ** (MAX_DIGITS - 1):
            raise LimitExceeded(found="more", what="digits in one number", allowed=MAX_DIGITS)
        return repr(data)
    if is_symbolic(kind) and "`" not in data and "\n" not in data:
        return f"`{data}`"
    return bare_or_quoted(data)


def _named_record(kind: type, data: dict[str, Any], depth: int) -> str:
    named = name_field(kind)
    if named is None or not isinstance(data.get(named), str):
        return _record(kind, data, depth)
    rest = {name: item for name, item in data.items() if name != named}
    return f"{_scalar(str, data[named])} {_record(kind, rest, depth, whole=data)}"


def _record(kind: Any, data: dict[str, Any], depth: int, whole: dict[str, Any] | None = None) -> str:
    fields = field_types(kind) if is_record(kind) else None
    lines: list[str] = []
    for name, item in data.items():
        field_kind = value_type(kind) if fields is None else fields[name]
        if kind is Plan and name == "body":
            field_kind = body_type((whole or data)["kind"])
        text = _value(field_kind, item, depth + 1)
        tight = text[0] in "{[" or (isinstance(item, dict) and is_named(field_kind))
        lines.append(f"{bare_or_quoted(name)}{' ' if tight else ' = '}{text}")
    return _wrapped("{", lines, "}", depth, one_per_line=is_record(kind) and depth == 0)


def _union_record(kind: type, data: dict[str, Any], depth: int) -> str:
    """Return a member of a union as a plain record: its reader learns the type from the fields only afterwards."""
    types = field_types(kind)
    lines: list[str] = []
    for name, item in data.items():
        text = _value(types[name] if is_symbolic(types[name]) else Any, item, depth + 1)
        lines.append(f"{name}{' ' if text[0] in '{[' else ' = '}{text}")
    return _wrapped("{", lines, "}", depth, one_per_line=False)


def _list(kind: Any, data: list[Any], depth: int) -> str:
    lines = [_value(item_type(kind, position), item, depth + 1) for position, item in enumerate(data)]
    scalars = not any(isinstance(item, dict | list) for item in data)
    if scalars:
        return _filled(lines, depth)
    return _wrapped("[", lines, "]", depth, one_per_line=get_origin(kind) is tuple and is_record(item_type(kind, 0)))


def _wrapped(opening: str, lines: list[str], closing: str, depth: int, one_per_line: bool) -> str:
    """Return the lines between brackets: on one line where they fit, else one below the other."""
    if not lines:
        return opening + closing
    joined = ", ".join(lines)
    if not one_per_line and "\n" not in joined and len(joined) + 2 * depth < WIDTH - 30:
        return f"{opening}{joined}{closing}"
    inner = _INDENT * (depth + 1)
    return "\n".join([opening, *(inner + line for line in lines), _INDENT * depth + closing])


def _filled(items: list[str], depth: int) -> str:
    """Return scalars in brackets, as many to a line as fit."""
    joined = ", ".join(items)
    if len(joined) + 2 * depth < WIDTH - 30:
        return f"[{joined}]"
    inner = _INDENT * (depth + 1)
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 < WIDTH:
            lines[-1] += f", {item}"
        else:
            lines.append(inner + item)
    return "\n".join(["[", *lines, _INDENT * depth + "]"])


def _covers(form: tuple[Element, ...], data: dict[str, Any]) -> bool:
    """Whether the form can say all that the data says: required parts are there, in the form's shape."""
    said: set[str] = set()
    for element in form:
        if isinstance(element, FieldOf):
            if element.name not in data or (element.many and not isinstance(data[element.name], list)):
                return False
            said.add(element.name)
        elif isinstance(element, Optional):
            said.add(element.field.name)
    return said >= set(data)


def _line(kind: type, form: tuple[Element, ...], data: dict[str, Any], depth: int) -> str:
    fields = field_types(kind)
    text = ""
    after_field = False
    for element in form:
        if isinstance(element, Optional) and element.field.name not in data:
            continue
        for part in element.elements if isinstance(element, Optional) else (element,):
            piece = _part(part, fields, data, depth)
            tight = piece in _NO_BLANK_BEFORE or (piece in ("(", "[") and after_field)
            text += piece if tight or not piece or text.endswith(_NO_BLANK_AFTER) or not text else f" {piece}"
            after_field = isinstance(part, FieldOf)
    return text


def _part(part: Literal | FieldOf, fields: dict[str, Any], data: dict[str, Any], depth: int) -> str:
    if isinstance(part, Literal):
        return part.text
    kind, item = fields[part.name], data[part.name]
    if part.many:
        return ", ".join(_value(item_type(kind, position), one, depth) for position, one in enumerate(item))
    if item is None and part.null_word:
        return part.null_word
    if part.in_quotes and isinstance(item, str):
        return quoted(item)
    return _value(kind, item, depth)
