"""`treadle machines [MACHINE]`: the machines treadle knows, and every figure of one with where it comes from."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from treadle.cli.options import JsonFlag
from treadle.cli.output import number, print_json, say
from treadle.costmodels.machines import load_machine, machine_ids
from treadle.ir.codec import encode
from treadle.ir.machine import Basis, Machine


def command(
    machine: Annotated[
        str | None, typer.Argument(help="A machine id such as h200, or a machine file (.toml).", metavar="MACHINE")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """List the machines, or show every figure of MACHINE with unit, basis, date and source.

    Exit status 2: no such machine, or a machine file with a fault in it.
    """
    if machine is None:
        _list([load_machine(name) for name in machine_ids()], json)
    else:
        _show(load_machine(machine), json)


def _list(machines: list[Machine], json: bool) -> None:
    if json:
        print_json({"machines": [_summary(machine) for machine in machines]})
        return
    header = ("id", "name", "architecture", "figures", *(basis.value for basis in Basis))
    rows: list[tuple[str, ...]] = []
    for machine in machines:
        counts = _counts(machine)
        figures = (str(len(machine.figures)), *(str(counts[basis]) for basis in Basis))
        rows.append((machine.id, machine.name, machine.architecture, *figures))
    _print_columns([header, *rows])
    say("`treadle machines ID` shows every figure with its source")


def _show(machine: Machine, json: bool) -> None:
    if json:
        print_json(encode(machine))
        return
    say(f"{machine.name} ({machine.architecture}); traits: {', '.join(machine.traits) or 'none'}")
    sources = list(dict.fromkeys((figure.source, figure.date) for figure in machine.figures))
    header = ("figure", "value", "unit", "basis", "source")
    rows = [
        (f.name, number(f.value), f.unit, f.basis.value, f"[{sources.index((f.source, f.date)) + 1}]")
        for f in machine.figures
    ]
    _print_columns([header, *rows])
    for position, (source, date) in enumerate(sources, start=1):
        sys.stdout.write(f"[{position}] {source} ({date})\n")


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print every cell in full, whatever the width of the terminal: names to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        others = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        sys.stdout.write("  ".join([row[0].ljust(widths[0]), *others]) + "\n")


def _summary(machine: Machine) -> dict[str, object]:
    return {
        "id": machine.id,
        "name": machine.name,
        "architecture": machine.architecture,
        "traits": list(machine.traits),
        "figures": len(machine.figures),
        **{basis.value: count for basis, count in _counts(machine).items()},
    }


def _counts(machine: Machine) -> dict[Basis, int]:
    found = Counter(figure.basis for figure in machine.figures)
    return {basis: found[basis] for basis in Basis}
