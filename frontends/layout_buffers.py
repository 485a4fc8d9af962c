"""Reads buffer tables: CSV with id, lower, upper, size (the MiniMalloc form), or begin/end/start/stop for the clock."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from treadle.ir.diagnostics import Place, TreadleError
from treadle.ir.errors import InvalidValue
from treadle.ir.layout.buffers import Buffer, BuffersProblem
from treadle.ir.layout.errors import BadRow, WrongColumns
from treadle.ir.plan import read_text

_COLUMNS = {
    "id": ("id", "buffer", "buffer_id", "name"),
    "lower": ("lower", "begin", "start"),
    "upper": ("upper", "end", "stop"),
    "size": ("size", "size_bytes", "bytes"),
}


def read_buffers(path: Path, capacity_bytes: int | None) -> BuffersProblem:
    """Read a buffer table.

    Raises:
        UnreadableFile, WrongColumns, BadRow: with file and line.
    """
    rows = list(csv.reader(io.StringIO(read_text(path))))
    if not rows:
        raise WrongColumns(
            place=Place(str(path)), found="(none)", kind="a buffer table", expected="id, lower, upper, size"
        )
    columns = _positions(rows[0], path)
    buffers = [_buffer(row, columns, Place(str(path), line)) for line, row in enumerate(rows[1:], 2) if any(row)]
    try:
        return BuffersProblem(tuple(buffers), capacity_bytes)
    except InvalidValue as error:
        error.place = Place(str(path))
        raise


def _positions(header: list[str], path: Path) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    found: dict[str, int] = {}
    for field, aliases in _COLUMNS.items():
        position = next((names.index(alias) for alias in aliases if alias in names), None)
        if position is None:
            raise WrongColumns(
                place=Place(str(path), 1),
                found=", ".join(f"`{name}`" for name in names),
                kind="a buffer table",
                expected="id, lower, upper, size",
                hint=f"no column gives the {field}",
            )
        found[field] = position
    return found


def _buffer(row: list[str], columns: dict[str, int], place: Place) -> Buffer:
    def whole(field: str) -> int:
        text = row[columns[field]].strip() if columns[field] < len(row) else ""
        try:
            return int(text)
        except ValueError:
            raise BadRow(place=place, field=field, found=f"`{text}`", reason="not a whole number") from None

    identifier = row[columns["id"]].strip() if columns["id"] < len(row) else ""
    try:
        return Buffer(identifier, whole("lower"), whole("upper"), whole("size"))
    except BadRow:
        raise
    except TreadleError as error:
        error.place = place
        raise
