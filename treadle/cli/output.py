"""What every verb prints with: data on stdout, messages and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from treadle.ir.certificate import Level


def print_json(data: object) -> None:
    """Write JSON data to stdout."""
    sys.stdout.write(json.dumps(data, indent=1, allow_nan=False) + "\n")


def say(message: str) -> None:
    """Write a message for people to stderr, after the data that came before it."""
    sys.stdout.flush()
    sys.stderr.write(message + "\n")


def console(stderr: bool = False) -> Console:
    """Return a rich console that honours NO_COLOR and stays readable without a terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print an aligned table to stdout; the first column is text, the others are figures."""
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A column is never cut: where the terminal is narrower, it wraps the line itself.
    out = console()
    out.width = max(out.width, 400)
    out.print(table)


def number(value: float, digits: int = 4) -> str:
    """Return a number for people: thousands separated, `digits` significant digits for fractions."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.{max(0, digits - len(str(int(abs(value)))))}f}" if abs(value) >= 1 else f"{value:.{digits}g}"


def level_line(level: Level) -> str:
    """Return one certificate level in words: value, status, bound and gap where open, kind of proof."""
    closed = level.status.value
    if level.gap:
        closed += f", bound {number(level.bound or 0)}"
        closed += f", gap {level.gap:.1%}" if level.value else ""
    unit = "" if level.unit == "1" else level.unit
    return f"{level.name:<22}{number(level.value):>12} {unit:<10}{closed}  [{level.proof.value}]"
