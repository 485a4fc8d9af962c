"""Lengths of a batch's sequences: a list, a table, or a distribution to draw from.

    # lengths.toml
    [lengths]
    count   = 512
    seed    = 0
    median  = 2980          # lognormal: median and sigma of the logarithm, cut at `longest`
    sigma   = 1.2
    longest = 131072
    # or shares = [[512, 0.6], [8192, 0.35], [131072, 0.05]]     (tokens, share of the sequences)

Text files have one length a line, or a header and a column `length`, `tokens` or `num_tokens`.
"""

from __future__ import annotations

import csv
import random
from math import log
from pathlib import Path

from pydantic import Field

from treadle.frontends.located import toml_place
from treadle.frontends.toml_files import Table, read_toml
from treadle.ir.diagnostics import Place
from treadle.ir.plan import read_text
from treadle.ir.training.grouping import NotLengths

_COLUMNS = ("length", "tokens", "num_tokens", "sequence_length")
_MOST = 10**7


class LengthsTable(Table):
    """A distribution."""

    count: int = Field(ge=1, le=1_000_000)
    seed: int = 0
    median: float | None = Field(default=None, gt=0)
    sigma: float = Field(default=1.0, ge=0, le=10)
    longest: int = Field(default=_MOST, ge=1, le=_MOST)
    shares: list[list[float]] = Field(default_factory=list[list[float]])


class LengthsFile(Table):
    """The document."""

    lengths: LengthsTable


def read_lengths(path: Path) -> tuple[int, ...]:
    """Return the lengths in tokens; raises UnreadableFile, NotLengths and the errors of TOML files, with places."""
    if path.suffix == ".toml":
        document, text = read_toml(LengthsFile, path)
        return _drawn(document.lengths, toml_place(text, str(path), ("lengths",)))
    lines = read_text(path).splitlines()
    filled = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not filled:
        raise NotLengths(place=Place(str(path)), reason="the file is empty", expected="one length a line")
    column = _column(filled[0][1], str(path))
    rows = filled if column is None else filled[1:]
    found = tuple(_length(line, column or 0, Place(str(path), number, 1, text=line[:120])) for number, line in rows)
    if not found:
        raise NotLengths(place=Place(str(path), 1), reason="a header and no rows", expected="one length a line")
    return found


def _column(first: str, file: str) -> int | None:
    """Return the column of the lengths where the file has a header, or None."""
    cells = [cell.strip().lower() for cell in next(csv.reader([first]))]
    if all(cell.isdecimal() for cell in cells):
        return None
    for name in _COLUMNS:
        if name in cells:
            return cells.index(name)
    expected = f"a number, or a header with one of {', '.join(_COLUMNS)}"
    raise NotLengths(place=Place(file, 1, 1, text=first[:120]), reason=f"`{first[:40]}` is none", expected=expected)


def _length(line: str, column: int, place: Place) -> int:
    cells = next(csv.reader([line]))
    cell = cells[column].strip() if column < len(cells) else ""
    if not cell.isdecimal() or not 1 <= int(cell) <= _MOST:
        raise NotLengths(place=place, reason=f"`{cell}` is no length", expected=f"a whole number, 1 to {_MOST}")
    return int(cell)


def _drawn(table: LengthsTable, place: Place) -> tuple[int, ...]:
    chance = random.Random(table.seed)
    if table.shares:
        pairs = [(round(row[0]), row[1]) for row in table.shares if len(row) == 2]
        tokens, shares = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if len(pairs) < len(table.shares) or min(tokens) < 1 or min(shares) < 0 or sum(shares) <= 0:
            raise NotLengths(place=place, reason="a row is no pair, or negative", expected="[[tokens, share], ...]")
        return tuple(chance.choices(tokens, shares, k=table.count))
    if table.median is None:
        raise NotLengths(place=place, reason="neither `median` nor `shares`", expected="one of them")
    middle = log(table.median)
    drawn = (round(chance.lognormvariate(middle, table.sigma)) for _ in range(table.count))
    return tuple(min(table.longest, max(1, length)) for length in drawn)
