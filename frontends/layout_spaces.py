"""Reads memory spaces beside the main one: a TOML file of `[[space]]` tables."""

from __future__ import annotations

from pathlib import Path

from treadle.frontends.toml_files import Table, read_toml
from treadle.ir.errors import InvalidValue
from treadle.ir.layout.memory_spaces import Space


class SpaceTable(Table):
    """One `[[space]]`: reached by copies (out and in), worked in directly, or both."""

    name: str
    capacity_bytes: int | None = None
    direct_bytes_per_s: int | None = None
    out_bytes_per_s: int | None = None
    in_bytes_per_s: int | None = None
    link: str = ""


class SpacesFile(Table):
    """The file: spaces in order."""

    space: list[SpaceTable]


def read_spaces(path: Path) -> tuple[Space, ...]:
    """Return the spaces of a file.

    Raises:
        UnreadableFile, MalformedText, UnknownField, MissingField, WrongType, InvalidValue: with file and line.
    """
    spaces = tuple(Space(**table.model_dump()) for table in read_toml(SpacesFile, path)[0].space)
    if not spaces:
        raise InvalidValue(message=f"`{path}` has no [[space]] table")
    return spaces
