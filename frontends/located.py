"""Where a field stands in a JSON or TOML text: found by scanning again, only when an error has to name the place."""

from __future__ import annotations

import re
from collections.abc import Callable

from treadle.ir.codec import Path as Steps
from treadle.ir.codec import path_text
from treadle.ir.diagnostics import Place

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_TOML_TABLE = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")


def json_place(text: str, file: str, steps: Steps) -> Place:
    """Return the place of the field at `steps` in a JSON text; the file alone when it is not there."""
    return _place(text, file, steps, _json_offset)


def toml_place(text: str, file: str, steps: Steps) -> Place:
    """Return the place of the field at `steps` in a TOML text; the nearest enclosing field when it is not there."""
    return _place(text, file, steps, _toml_offset)


def _place(text: str, file: str, steps: Steps, find: Callable[[str, Steps], int]) -> Place:
    offset = -1
    for length in range(len(steps), 0, -1):
        offset = find(text, steps[:length])
        if offset >= 0:
            break
    if offset < 0:
        return Place(file, path=path_text(steps))
    start = text.rfind("\n", 0, offset) + 1
    line = text[start:].split("\n", 1)[0]
    column = offset - start + 1
    shown = line if len(line) <= 160 and column <= 160 else ""
    return Place(file, text.count("\n", 0, offset) + 1, column, path_text(steps), shown)


def _json_offset(text: str, steps: Steps) -> int:
    """Return the offset of the key (or list item) at `steps`, or -1."""
    here: list[str | int] = []
    word = ""
    for token in _JSON_TOKEN.finditer(text):
        mark = token[0]
        if mark == ":":
            here[-1] = word
        elif mark == ",":
            here[-1] = step + 1 if here and isinstance(step := here[-1], int) else ""
        elif mark in "]}":
            if here:
                here.pop()
        else:
            is_key = mark[0] == '"' and text[token.end() :].lstrip()[:1] == ":"
            if is_key and here:
                word = mark[1:-1]
                if (*here[:-1], word) == steps:
                    return token.start()
            elif here and isinstance(here[-1], int) and tuple(here) == steps:
                return token.start()
            if mark in "[{":
                here.append(0 if mark == "[" else "")
    return -1


def _toml_offset(text: str, steps: Steps) -> int:
    """Return the offset of the key at `steps` (tables, arrays of them, dotted keys and inline tables), or -1."""
    counts: dict[Steps, int] = {}
    table: Steps = ()
    offset = 0
    for line in text.splitlines(keepends=True):
        if header := _TOML_TABLE.match(line):
            table = _header(header[2], header[1] == "[[", counts)
            if steps in (table, table[:-1] if header[1] == "[[" else table):
                return offset + line.index("[")
        elif steps[: len(table)] == table:
            names = [step for step in steps[len(table) :] if isinstance(step, str)]
            if (found := _in_line(line, names)) >= 0:
                return offset + found
        offset += len(line)
    return -1


def _header(name: str, is_array: bool, counts: dict[Steps, int]) -> Steps:
    """Return the steps of a table header, with the position in every array of tables on the way (`counts` so far)."""
    parts = [part.strip().strip("\"'") for part in name.split(".")]
    table: Steps = ()
    for depth, part in enumerate(parts, start=1):
        table = (*table, part)
        if is_array and depth == len(parts):
            counts[table] = counts.get(table, 0) + 1
        if table in counts:
            table = (*table, counts[table] - 1)
    return table


def _in_line(line: str, names: list[str]) -> int:
    """Return the column of ``a`` in ``a =``, or of ``b`` in ``a = { b =`` for the names a, b; -1 if absent."""
    position = 0
    for depth, name in enumerate(names):
        before = r"^\s*" if depth == 0 else r"[{,.]\s*"
        found = re.compile(rf"{before}[\"']?({re.escape(name)})[\"']?\s*[=.]").search(line, position)
        if found is None:
            return -1
        position = found.start(1)
    return position if names else -1
